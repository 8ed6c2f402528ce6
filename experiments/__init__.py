"""The runs behind each table and figure, run folders, launching, and reports.

For notebooks: `load_run` and `diagnose`.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from experiments.run.load import LoadedRun


def load_run(folder: str | Path, device: str = "cpu") -> "LoadedRun":
    """A finished run: model, label names, transforms and metrics. See `experiments.run.load`."""
    from experiments.run.load import load  # loads torch

    return load(Path(folder), device)


def diagnose(*args: Any, **kwargs: Any) -> dict[str, float]:
    """What a model listens to, from its features. See `experiments.run.diagnose`."""
    from experiments.run import diagnose  # loads torch

    return diagnose.diagnose(*args, **kwargs)
