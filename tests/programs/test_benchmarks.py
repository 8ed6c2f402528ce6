"""The benchmarks run at the smallest size, and print what they promise."""

import json
import re
import subprocess
import sys

import pytest
from conftest import ROOT

pytestmark = pytest.mark.slow


def printed(name, *words):
    command = [sys.executable, ROOT / "benchmarks" / name, *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_gpu_script_without_one(tmp_path):
    cases = ("cremad", "cremad, loader", "cremad, tf32")
    printed(
        "gpu.py", "--device", "cpu", "--quick", "--out", tmp_path / "gpu.json", "--only", *cases
    )
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert "needs a GPU" in found["cases"]["cremad, tf32"]["error"]
    assert found["cases"]["cremad"]["samples_per_s"] > 0
    assert found["ratios"]["device / loader"] > 0 and "bf16 / float32" not in found["ratios"]


def test_two_devices_have_the_losses_of_one():
    text = printed(
        "devices.py", "--size", "32", "--samples", "48", "--batch", "12", "--rounds", "1"
    )
    # Rounding grows from step to step; tests/contracts/test_ranks.py compares in float64.
    assert float(re.search(r"at most (\S+);", text)[1]) < 1e-3


def test_starts_and_growth():
    text = printed("startup.py", "--rows", "3000", "--runs", "600")
    sizes = [float(gigabytes) for gigabytes in re.findall(r"s, (\S+) GB", text)]
    assert len(sizes) == 2 and max(sizes) < 1
    assert len(re.findall(r"Midas +\d", printed("growth.py", "--rounds", "1"))) == 13
