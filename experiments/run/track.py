"""Experiment trackers: TensorBoard, Weights & Biases, MLflow (`--track tensorboard,wandb,mlflow`).

Each is optional and imported on use. A resumed run goes on in the same record. W&B works offline
with its own WANDB_MODE=offline; MLflow writes where its own MLFLOW_TRACKING_URI points, by default
to mlflow.db and mlflow/ in the results folder.
"""

import importlib.util
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from common.files import digest
from common.options import UsageError, match_name
from experiments.run.folder import BOARD, RunFolder
from experiments.run.resolve import Run

NAMES = ("tensorboard", "wandb", "mlflow")
PROJECT = "midas"


class Tracker(Protocol):
    """Receives the log of a run, epoch by epoch, and pictures at its end."""

    def log(self, values: dict[str, float], epoch: int) -> None: ...

    def pictures(self, paths: Sequence[Path]) -> None: ...

    def close(self) -> None: ...


class TensorBoard:
    """Event files in the run's folder."""

    def __init__(self, run: Run, folder: RunFolder, results: Path):
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(folder.file(BOARD)))

    def log(self, values: dict[str, float], epoch: int) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, epoch)

    def pictures(self, paths: Sequence[Path]) -> None:
        import numpy as np
        from PIL import Image

        for path in paths:
            self.writer.add_image(path.stem, np.asarray(Image.open(path)), dataformats="HWC")

    def close(self) -> None:
        self.writer.close()


class WandB:
    """A run of the project "midas", in the run's folder if offline."""

    def __init__(self, run: Run, folder: RunFolder, results: Path):
        import wandb

        self.images = wandb.Image
        self.run: Any = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            dir=str(folder.path),
            id=digest(str(folder.path.resolve()), 16),
            resume="allow",
            name=name_of(run),
            config=run.config(),
        )

    def log(self, values: dict[str, float], epoch: int) -> None:
        self.run.log(values, step=epoch)

    def pictures(self, paths: Sequence[Path]) -> None:
        self.run.log({path.stem: self.images(str(path)) for path in paths})

    def close(self) -> None:
        self.run.finish()


class MLflow:
    """A run of the experiment "midas"."""

    def __init__(self, run: Run, folder: RunFolder, results: Path):
        import mlflow

        if not os.environ.get("MLFLOW_TRACKING_URI"):
            mlflow.set_tracking_uri(f"sqlite:///{(results / 'mlflow.db').resolve()}")
            if not mlflow.get_experiment_by_name(PROJECT):  # by default files go to ./mlruns
                files = (results / "mlflow").resolve().as_uri()
                mlflow.create_experiment(PROJECT, artifact_location=files)
        self.client: Any = mlflow
        experiment = mlflow.set_experiment(PROJECT)
        key = digest(str(folder.path.resolve()), 16)
        found = mlflow.search_runs(
            [experiment.experiment_id], f"tags.folder = '{key}'", output_format="list"
        )
        known = found[0].info.run_id if found else None
        mlflow.start_run(run_id=known, run_name=name_of(run), tags={"folder": key})
        if not known:
            flat = {"dataset": run.dataset, "method": run.method, "seed": run.seed}
            for part in ("settings", "prep", "hparams"):
                flat |= run.config()[part]
            mlflow.log_params(flat)

    def log(self, values: dict[str, float], epoch: int) -> None:
        allowed = {re.sub(r"[^\w .:/-]", "-", name): value for name, value in values.items()}
        self.client.log_metrics(allowed, step=epoch)

    def pictures(self, paths: Sequence[Path]) -> None:
        for path in paths:
            self.client.log_artifact(str(path), "plots")

    def close(self) -> None:
        self.client.end_run()


TRACKERS: dict[str, Callable[[Run, RunFolder, Path], Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": WandB,
    "mlflow": MLflow,
}


def name_of(run: Run) -> str:
    """The run's name in a tracker: as its folder, with its settings."""
    settings = ",".join(f"{key}={value}" for key, value in sorted(run.differing.items()))
    return "/".join(filter(None, [run.dataset, run.method, settings, f"seed{run.seed}"]))


def tracker_names(text: str | None) -> list[str]:
    """The trackers in a comma-separated list; raises `UsageError` if one is not installed."""
    names = [match_name("tracker", name.strip(), NAMES) for name in (text or "").split(",") if name]
    for name in names:
        if not importlib.util.find_spec(name):
            raise UsageError(f"--track {name} needs: pip install -r requirements-track.txt")
    return names


def open_trackers(
    names: Sequence[str], run: Run, folder: RunFolder, results: Path
) -> list[Tracker]:
    """The trackers of a run, ready for its log."""
    return [TRACKERS[name](run, folder, results) for name in names]
