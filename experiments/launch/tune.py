"""Searches hyperparameters with Optuna: `python -m experiments tune DATASET METHOD --trials 50`.

A trial is an ordinary run with seed 0, chosen by validation accuracy alone. Trials and their
database are in <results>/tune; a search that was stopped goes on with its unfinished trials first.
What is searched is declared beside each setting (`option(..., search=...)`): the learning rate, and
the method's own hyperparameters.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import methods
from common.files import locked, write_json
from common.options import UsageError, unknown
from data_prep import datasets
from experiments.launch.tasks import Task
from experiments.paper.adapt import resolved
from experiments.paper.kinds import SEEDS, RunSet, suffix_of
from experiments.report.reader import Reader
from experiments.run.resolve import setting_names
from experiments.run.settings import DATASET_DEFAULTS, Settings

Launch = Callable[[Sequence[Task]], int]

SEED = 0  # tables have other ones
FOLDER = "tune"
LR_RANGE = 10.0  # the learning rate is searched between a tenth and ten times its default


def space(source: str, method: str) -> dict[str, tuple]:
    """Setting -> (low, high), (low, high, "log"), or ("of", values...)."""
    found: dict[str, tuple] = {}
    hparams: Any = methods.load(method).HParams
    for field in fields(hparams):
        if search := field.metadata["search"]:
            found[field.name] = search
    default = DATASET_DEFAULTS.get(datasets.public_name(source), {}).get("lr", Settings().lr)
    return {"lr": (default / LR_RANGE, default * LR_RANGE, "log"), **found}


def suggest(trial: Any, searched: Mapping[str, tuple]) -> dict[str, Any]:
    """The values of a new trial."""
    for name, (low, *rest) in searched.items():
        if low == "of":
            trial.suggest_categorical(name, rest)
        else:
            trial.suggest_float(name, low, rest[0], log=rest[-1] == "log")
    return rounded(trial.params)


def rounded(values: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers with four digits, so that folder names stay short."""
    return {k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in values.items()}


def open_study(folder: Path, name: str) -> Any:
    """The study of that name; raises `UsageError` without Optuna."""
    try:
        import optuna
    except ImportError:
        raise UsageError("tune needs: pip install -r requirements-tune.txt") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder.mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        storage=f"sqlite:///{(folder / name).resolve()}.db",
        study_name=name,
        direction="maximize",
        load_if_exists=True,
    )
    # With one seed, a search that goes on would draw its first values again.
    seed = len(study.get_trials(deepcopy=False))
    study.sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=True)
    return study


@dataclass(frozen=True)
class Search:
    """One method on one dataset; `fixed` settings are the same in all trials."""

    source: str  # a dataset's name or the path of a manifest
    method: str
    trials: int
    fixed: Mapping[str, str]
    flags: tuple[str, ...] = ()  # of train.py, for folders

    @property
    def name(self) -> str:
        return f"{datasets.public_name(self.source)}-{self.method}{suffix_of(self.fixed)}"

    def runs(self, values: Mapping[str, Any]) -> RunSet:
        return resolved(self.source, self.method, {**self.fixed, **values})

    def task(self, values: Mapping[str, Any]) -> Task:
        return Task(self.runs(values), SEED, self.flags)


def tune(search: Search, reader: Reader, launch: Launch, width: int) -> int:
    """Makes trials until enough are finished, `width` at a time; returns `launch`'s status.

    `reader` reads the folder of all trials.
    """
    allowed = setting_names(search.source, search.method)
    for name in search.fixed.keys() - allowed:
        raise unknown("setting", name, sorted(allowed))
    search.runs({})  # raises what train.py would raise
    searched = space(search.source, search.method)
    searched = {name: how for name, how in searched.items() if name not in search.fixed}
    if not searched:
        raise UsageError(f"nothing to search for {search.method}: --set fixes all of it")
    busy = f"another process is searching {search.name}: wait, or stop it"
    with locked(reader.results / f".{search.name}.lock", busy):
        return try_out(search, searched, reader, launch, width)


def try_out(
    search: Search, searched: Mapping[str, tuple], reader: Reader, launch: Launch, width: int
) -> int:
    """Makes the missing trials; unfinished ones first."""
    from optuna.trial import TrialState

    study = open_study(reader.results, search.name)
    while True:
        trials = study.get_trials(deepcopy=False)
        missing = search.trials - sum(trial.state == TrialState.COMPLETE for trial in trials)
        if missing <= 0:
            return report(search, study, reader.results)
        batch = {}
        for trial in trials:
            if trial.state == TrialState.RUNNING:
                if trial.params.keys() == searched.keys():
                    batch[trial.number] = rounded(trial.params)
                else:  # killed while its values were drawn
                    study.tell(trial.number, state=TrialState.FAIL)
        while len(batch) < min(width, missing):
            asked = study.ask()
            batch[asked.number] = suggest(asked, searched)
        tasks = {number: search.task(values) for number, values in batch.items()}
        status = launch(list(dict.fromkeys(tasks.values())))
        for number, task in tasks.items():
            folder = task.folder(reader.results)
            if folder.state == "done":
                study.tell(number, folder.read_json("result.json")["val/acc"])
            elif folder.state == "failed":
                study.tell(number, state=TrialState.FAIL)
        if status:
            return status


def report(search: Search, study: Any, folder: Path) -> int:
    """Writes and prints the best trial, and the command that trains it with other seeds."""
    best = rounded(study.best_params)
    runs, done = search.runs(best), sum(trial.value is not None for trial in study.trials)
    about: dict[str, Any] = {
        "dataset": runs.dataset,
        "method": runs.method,
        "settings": dict(runs.overrides),
    }
    about |= {
        "source": runs.source,
        "trials": done,
        "fixed": dict(search.fixed),
        "val/acc": study.best_value,
    }
    write_json(folder / f"{search.name}.json", about)
    print(f"best of {done} trial{'s' * (done != 1)}: val/acc {study.best_value:.4f}")
    places = dict(zip(search.flags[::2], search.flags[1::2])) | {"--results_dir": folder.parent}
    if folder.parent == Path("results"):
        del places["--results_dir"]
    flags = [str(word) for pair in places.items() for word in pair]
    print(runs.commands(SEEDS, flags), flush=True)
    return 0
