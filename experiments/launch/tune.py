"""Searches hyperparameters with Optuna: `python -m experiments tune DATASET METHOD --trials 50`.

A trial is an ordinary run with seed 0, chosen by validation accuracy alone. Trials are kept in
<results>/tune/<dataset>-<method>.db; a search that was stopped goes on with its unfinished trials
first. What is searched is declared beside each setting (`option(..., search=...)`): the learning
rate, and the method's own hyperparameters.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import methods
from common.files import write_json
from common.options import UsageError, format_value
from data_prep import datasets
from experiments.launch.tasks import Task
from experiments.paper.adapt import resolved
from experiments.report.reader import Reader
from experiments.run.settings import DATASET_DEFAULTS, Settings

SEED = 0  # tables have other ones
FOLDER = "tune"
LR_RANGE = 10.0  # the learning rate is searched between a tenth and ten times its default


def space(dataset: str, method: str) -> dict[str, tuple]:
    """Setting -> (low, high), (low, high, "log"), or ("of", values...)."""
    found: dict[str, tuple] = {}
    hparams: Any = methods.load(method).HParams
    for field in fields(hparams):
        if search := field.metadata["search"]:
            found[field.name] = search
    default = DATASET_DEFAULTS.get(dataset, {}).get("lr", Settings().lr)
    return {"lr": (default / LR_RANGE, default * LR_RANGE, "log"), **found}


def suggest(trial: Any, searched: Mapping[str, tuple]) -> dict[str, Any]:
    """The values of a trial, rounded to four digits, so that folder names stay short."""
    values: dict[str, Any] = {}
    for name, (low, *rest) in searched.items():
        if low == "of":
            values[name] = trial.suggest_categorical(name, rest)
        else:
            high, log = rest[0], rest[-1] == "log"
            values[name] = float(f"{trial.suggest_float(name, low, high, log=log):.4g}")
    return values


def open_study(results: Path, dataset: str, method: str) -> Any:
    """The study of a dataset and a method; raises `UsageError` without Optuna."""
    try:
        import optuna
    except ImportError:
        raise UsageError("tune needs: pip install -r requirements-tune.txt") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    path = results / FOLDER / f"{dataset}-{method}.db"
    path.parent.mkdir(parents=True, exist_ok=True)
    return optuna.create_study(
        storage=f"sqlite:///{path.resolve()}",
        study_name=f"{dataset}-{method}",
        direction="maximize",
        load_if_exists=True,
        sampler=optuna.samplers.TPESampler(seed=SEED),
    )


def tune(
    reader: Reader,
    dataset: str,
    method: str,
    trials: int,
    fixed: dict[str, str],
    task_flags: tuple,
    launch: Callable[[Sequence[Task]], int],
    width: int,
) -> int:
    """Makes trials until `trials` are finished, `width` at a time; returns `launch`'s status."""
    from optuna.trial import TrialState

    dataset = datasets.public_name(dataset)
    study, searched = open_study(reader.results, dataset, method), space(dataset, method)
    while True:
        states = [trial.state for trial in study.trials]
        done = states.count(TrialState.COMPLETE)
        waiting = [t for t in study.trials if t.state == TrialState.RUNNING]
        if done >= trials:
            break
        batch = {t.number: dict(t.params) for t in waiting}
        while len(batch) < min(width, trials - done):
            trial = study.ask()
            batch[trial.number] = suggest(trial, searched)
        tasks = {
            number: Task(resolved(dataset, method, fixed | rounded(values)), SEED, task_flags)
            for number, values in batch.items()
        }
        status = launch(list(dict.fromkeys(tasks.values())))
        for number, task in tasks.items():
            folder = task.folder(reader.results)
            if folder.state == "done":
                study.tell(number, folder.read_json("result.json")["val/acc"])
            elif folder.state == "failed":
                study.tell(number, state=TrialState.FAIL)
        if status:
            return status
    return report(reader.results, dataset, method, study, fixed)


def rounded(values: Mapping[str, Any]) -> dict[str, Any]:
    """As `suggest` rounds them."""
    return {k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in values.items()}


def report(results: Path, dataset: str, method: str, study: Any, fixed: Mapping[str, str]) -> int:
    """Writes and prints the best trial, and the command that trains it with other seeds."""
    best = rounded(study.best_params)
    done = [t for t in study.trials if t.value is not None]
    about = {"dataset": dataset, "method": method, "trials": len(done), "val/acc": study.best_value}
    about |= {"settings": best, "fixed": dict(fixed)}
    write_json(results / FOLDER / f"{dataset}-{method}.json", about)
    flags = " ".join(f"--{k} {format_value(v)}" for k, v in best.items())
    more = " ".join(f"--{k} {v}" for k, v in fixed.items())
    print(f"best of {len(done)} trials: val/acc {study.best_value:.4f}")
    print(f"python train.py --dataset {dataset} --method {method} --seeds 1 2 3 {more} {flags}")
    sys.stdout.flush()
    return 0
