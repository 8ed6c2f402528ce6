"""Checkpoints on disk: never half-written, and a damaged one is recognised."""

import os
import shutil
import zipfile
from pathlib import Path

from common.files import atomic, shown
from common.options import UsageError


def save(path: Path, state: dict, previous: Path | None = None) -> None:
    """Writes a checkpoint; the one that was there before becomes `previous`.

    At no moment is `path` missing or half-written: the previous checkpoint gets a second name
    before the new one takes its place.
    """
    import torch

    with atomic(path) as temporary:
        with open(temporary, "wb") as handle:  # torch would write a path's name into the file
            torch.save(state, handle)
        if previous and path.exists():
            second = path.with_name(f".{previous.name}.tmp")
            second.unlink(missing_ok=True)
            try:
                os.link(path, second)
            except OSError:  # a file system without hard links
                shutil.copyfile(path, second)
            os.replace(second, previous)
            second.unlink(missing_ok=True)  # still there where both were the same file


def load(path: Path) -> dict:
    """A checkpoint of tensors and plain values.

    Raises `UsageError` when it is missing, or damaged: the archive holds a CRC-32 of each of its
    entries, which torch itself does not look at.
    """
    import torch

    try:
        with zipfile.ZipFile(path) as archive:
            wrong = archive.testzip()
        if wrong:
            raise ValueError(f"the checksum of {wrong} is wrong")
        state = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(state, dict):
            raise TypeError(f"it holds {type(state).__name__}")
        return state
    except FileNotFoundError:
        raise UsageError(f"{path} is missing") from None
    except MemoryError:
        raise
    except Exception as error:  # zipfile and torch raise many kinds for a damaged file
        reason = shown(str(error).split("\n")[0], 200) or type(error).__name__
        raise UsageError(f"{path} is damaged ({reason})") from None
