# Needs python3 (3.11), venv and make; each target creates the virtual environment if needed.
PYTHON ?= python3
PY := .venv/bin/python
DATA ?= data
RESULTS ?= results
RAW ?= raw/avmnist

.PHONY: demo real test test-slow lint bench faults clean

.venv/installed: $(wildcard requirements*.txt)
	$(PYTHON) -m venv .venv
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.txt -r requirements-dev.txt
	touch $@

# Generates media files, prepares them, trains, makes tables and figures: minutes on two CPU cores.
demo: .venv/installed
	$(PY) -m data_prep --dataset demo --data_dir $(DATA)
	$(PY) -m experiments run demo-short --data_dir $(DATA) --results_dir $(RESULTS) --devices cpu
	$(PY) make_tables.py demo-short --results_dir $(RESULTS) --out $(RESULTS)
	$(PY) benchmarks/demo_claims.py --data_dir $(DATA) --results_dir $(RESULTS)

# Real recordings: RAW is a clone of the Free Spoken Digit Dataset with MNIST's t10k files in it.
real: .venv/installed
	$(PY) -m data_prep --dataset avmnist --dataset_root $(RAW) --data_dir $(DATA)
	$(PY) -m experiments run avmnist --data_dir $(DATA) --results_dir $(RESULTS) --devices cpu
	$(PY) make_tables.py avmnist --results_dir $(RESULTS) --out $(RESULTS)

lint: .venv/installed
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

# All tests except the slow ones: about ten minutes on two cores.
test: lint
	$(PY) -m pytest -n 2 --dist worksteal -m "not slow" --cov --cov-report=term:skip-covered

# Kills, clusters, and every configuration used by the tables.
test-slow: lint
	$(PY) -m pytest -n 2 --dist worksteal -m slow

# About 40 minutes on two cores, and ten more where there is a GPU.
bench: .venv/installed
	$(PY) benchmarks/step_cost.py
	$(PY) benchmarks/train_throughput.py
	$(PY) benchmarks/devices.py
	$(PY) benchmarks/prep_throughput.py
	$(PY) benchmarks/startup.py
	$(PY) benchmarks/tables_scaling.py
	if nvidia-smi > /dev/null 2>&1; then $(PY) benchmarks/gpu.py; fi

# The long fault tests: 50 to 60 minutes on two cores; needs a C compiler.
faults: .venv/installed
	$(PY) tests/faults/run_faults.py
	$(PY) tests/faults/fuzz.py --executions 2000000 --media 50000

# Keeps data and results.
clean:
	rm -rf .venv .pytest_cache .ruff_cache .mypy_cache .coverage*
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
