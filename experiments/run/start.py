"""What a run starts from besides chance: another run's weights (--init_from, --extend)."""

import sys
from typing import TYPE_CHECKING

from common.options import UsageError
from experiments.run.folder import RunFolder
from models.classifier import Classifier

if TYPE_CHECKING:
    from experiments.run.session import Session


def load_initial(model: Classifier, folder: str) -> None:
    """Loads the weights of a finished run where names and shapes agree.

    Not the constants of an encoder's input, which belong to the data. Raises `UsageError` if no
    encoder fits.
    """
    source = RunFolder(folder)
    state = source.load_best(source.read_json("result.json"))
    own = model.state_dict()
    fits = {
        name: value
        for name in own
        if (value := state.get(f"model.{name}")) is not None
        and value.shape == own[name].shape
        and not name.endswith((".mean", ".std"))
    }
    found = []
    for m in model.modalities:
        names = [name for name, _ in model.encoders[m].named_parameters(f"encoders.{m}")]
        if all(name in fits for name in names):
            found.append(m)
        else:
            fits = {k: v for k, v in fits.items() if not k.startswith(f"encoders.{m}.")}
    if not found:
        raise UsageError(f"--init_from {folder}: none of its encoders fits this run's")
    if len(found) < len(model.modalities):
        fits = {k: v for k, v in fits.items() if not k.startswith("fusion.")}
    model.load_state_dict(own | fits)
    print(f"note: initial weights of {', '.join(found)} from {folder}", file=sys.stderr)


def extension(session: "Session", extend: str | None) -> tuple[dict, dict] | None:
    """For --extend: the last checkpoint and the best weights of the finished run.

    Raises `UsageError` if it cannot be extended.
    """
    if not extend:
        return None
    source, s = RunFolder(extend), session.run.settings
    result, saved = source.read_json("result.json"), source.load_last() or {}
    stages = session.method.stages(s.max_epochs)
    why = ""
    if "optimizers" not in saved:
        why = "it has no optimizer state: repeat it with --keep_checkpoints --overwrite"
    elif len(stages) > 1:
        why = f"{session.run.method} has several stages, and it is past the first"
    elif s.schedule == "cosine":
        why = "with --schedule cosine its learning rate has fallen to 0"
    elif saved["epoch"] >= s.max_epochs:
        why = f"it has {saved['epoch']} epochs already: give a larger --max_epochs"
    if why:
        raise UsageError(f"{extend} cannot be extended: {why}")
    return saved, {"method": source.load_best(result), "epoch": result["best_epoch"]}


def take_over(folder: RunFolder, found: tuple[dict, dict] | None) -> dict | None:
    """Writes what `extension` found to the new run's folder; returns the checkpoint."""
    if not found:
        return None
    saved, best = found
    folder.restore_log([])
    for record in saved["log"]:
        folder.append_log(record)
    folder.save("best.pt", best)
    folder.save("last.pt", saved)
    return saved
