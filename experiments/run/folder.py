"""A run's folder: the only reader and writer of what a run leaves behind.

    results/runs/<dataset>/<method>/<default | key=value,...>/seed<k>/
        config.json      fully resolved           env.json         versions, threads, hashes
        log.jsonl        one line an epoch        best.pt          of the chosen epoch
        last.pt, prev.pt of the last two epochs   vocab.txt        where texts are tokens
        predictions.csv  the test part            result.json      written last: it means done
        error.txt        why a run stopped with an error (removed when it goes on)
        tensorboard/     with --tensorboard       .lock            held while a process works here

Reading needs neither torch nor the data, except for the checkpoints.
"""

import contextlib
import fnmatch
import json
import os
import shutil
import sys
import urllib.parse
import zipfile
from pathlib import Path
from typing import Any

from common import files
from common.files import shown
from common.options import UsageError, format_value

LOCK = ".lock"
# What a run writes beside config.json; result.json goes first, since it means that the run is done.
FILES = (
    "result.json", "error.txt", "last.pt", "prev.pt", "best.pt", "log.jsonl", "env.json",
    "predictions.csv", "vocab.txt",
)  # fmt: skip
BOARD = "tensorboard"
ANEW = "the run's train.py command with --overwrite makes it anew"


def variant_name(differing: dict[str, Any]) -> str:
    """`default`, or the differing settings as key=value in alphabetical order, safe in a path."""
    text = ",".join(f"{key}={format_value(value)}" for key, value in sorted(differing.items()))
    safe = urllib.parse.quote(text, safe="=,+")
    if len(safe) > 150:
        safe = f"{safe[:130]}~{files.digest(text)}"
    return safe or "default"


def run_path(
    results: Path, dataset: str, method: str, differing: dict[str, Any], seed: int
) -> Path:
    """The run's folder under `results`."""
    return results / "runs" / dataset / method / variant_name(differing) / f"seed{seed}"


def find_runs(results: Path) -> list["RunFolder"]:
    """Every run folder under `results`, in a fixed order."""
    return [RunFolder(p.parent) for p in sorted((results / "runs").glob("*/*/*/seed*/config.json"))]


def _flat(value: dict, prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one, with dotted keys."""
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        name = prefix + key
        flat |= _flat(inner, f"{name}.") if isinstance(inner, dict) else {name: inner}
    return flat


class RunFolder:
    def __init__(self, path: str | Path):
        self.path = Path(path)

    def file(self, name: str) -> Path:
        return self.path / name

    def lock(self) -> contextlib.AbstractContextManager[None]:
        """Keeps every other process off this folder; ends with the process at the latest."""
        busy = f"another process works on {self.path}: wait, stop it, or give another --output_dir"
        return files.locked(self.file(LOCK), busy)

    def busy(self) -> bool:
        if not self.file(LOCK).exists():
            return False
        try:
            with self.lock():
                return False
        except files.Busy:
            return True

    @property
    def state(self) -> str:
        """new, partial, done or failed."""
        found = {"result.json": "done", "error.txt": "failed", "config.json": "partial"}
        return next((state for name, state in found.items() if self.file(name).exists()), "new")

    def read_json(self, name: str) -> dict:
        """A JSON file of the folder; raises `UsageError` when it is absent or damaged."""
        try:
            return files.read_object(self.file(name))
        except UsageError as error:
            raise UsageError(f"{error}; {ANEW}") from None
        except (FileNotFoundError, NotADirectoryError):
            why = "it is not a run's folder, or it has not begun"
            raise UsageError(f"{self.path} has no {name}: {why}") from None

    def write_json(self, name: str, value: dict) -> None:
        files.write_json(self.file(name), value)

    # Beginning, and failing -----------------------------------------------------------------------

    def check(self, config: dict | None) -> None:
        """Raises `UsageError` if this is not a run's folder, or another run's than `config`."""
        if not self.file("config.json").exists():
            names = sorted(each.name for each in self.path.iterdir()) if self.path.exists() else []
            for name in names:
                if name != LOCK and not fnmatch.fnmatch(name, files.TEMPORARY):
                    why = f"holds {name} and no config.json: it is not a run's folder"
                    raise UsageError(f"{self.path} {why}; give another --output_dir")
        elif config is not None:
            there = _flat(self.read_json("config.json"))
            asked = _flat(json.loads(json.dumps(config)))
            what = ", ".join(
                f"{k} {shown(repr(there.get(k)))} there, {shown(repr(asked.get(k)))} asked"
                for k in sorted(k for k in there | asked if there.get(k) != asked.get(k))[:4]
            )
            if what:
                raise UsageError(
                    f"{self.path} belongs to another configuration ({what});"
                    " give another --output_dir, or --overwrite to start anew"
                )

    def claim(self, config: dict, overwrite: bool) -> None:
        """Makes the folder this configuration's; raises `UsageError` if it is another's.

        With `overwrite` the files of an earlier run are removed, and others stay. config.json is
        there at every moment: without it nobody could tell that the folder is a run's.
        """
        self.check(None if overwrite else config)
        if overwrite:
            for name in FILES:
                self.file(name).unlink(missing_ok=True)
            for events in self.file(BOARD).glob("events.out.tfevents.*"):
                events.unlink()
            with contextlib.suppress(OSError):  # there is none, or it holds other files
                self.file(BOARD).rmdir()
        if overwrite or not self.file("config.json").exists():
            self.write_json("config.json", config)
        self.file("error.txt").unlink(missing_ok=True)
        files.remove_leftovers(self.path)

    def note_start(self, environment: dict) -> None:
        """Adds the environment of a start to env.json: a run may be resumed elsewhere."""
        starts = []
        if self.file("env.json").exists():
            try:
                starts = self.read_json("env.json").get("starts", [])
            except UsageError as error:
                print(f"WARNING: {error}: earlier starts are forgotten", file=sys.stderr)
        self.write_json("env.json", {"starts": [*starts, environment]})

    def check_data(self, then: dict[str, str], now: dict[str, str]) -> None:
        """Raises `UsageError` where the run was begun with another split or other samples."""
        for name, text in now.items():
            if then.get(name, text) != text:
                what = name.replace("_", " ")
                raise UsageError(
                    f"{self.path} was begun with other data: the SHA-256 of the {what} was"
                    f" {then[name][:12]}... then and is {text[:12]}... now. Put the former files"
                    " back, or start anew with --overwrite"
                )

    def fail(self, why: str) -> None:
        """Notes why the run stopped."""
        try:
            files.write_text(self.file("error.txt"), why.rstrip() + "\n")
        except OSError as error:  # it must not hide the reason
            print(f"note: error.txt cannot be written ({error.strerror})", file=sys.stderr)

    # The log --------------------------------------------------------------------------------------

    def append_log(self, record: dict[str, Any]) -> None:
        """Adds one line, flushed to the disk."""
        with open(self.file("log.jsonl"), "a", encoding="utf-8") as handle:
            handle.write(json.dumps(record, sort_keys=True) + "\n")
            handle.flush()
            os.fsync(handle.fileno())

    def read_log(self) -> list[dict]:
        """All lines before the first one that is damaged, such as the last one after a kill."""
        try:
            text = self.file("log.jsonl").read_text(encoding="utf-8", errors="replace")
        except (FileNotFoundError, NotADirectoryError):
            return []
        records: list[dict] = []
        for line in text.splitlines():
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                break
            if not isinstance(record, dict):
                break
            records.append(record)
        return records

    def restore_log(self, records: list[dict]) -> None:
        """Makes the log what it was at a checkpoint: later lines go, lost ones come back."""
        if self.read_log()[: len(records)] != records:
            damaged = f"{self.file('log.jsonl')} is damaged"
            print(f"WARNING: {damaged}; the checkpoint has its lines", file=sys.stderr)
        text = "".join(json.dumps(record, sort_keys=True) + "\n" for record in records)
        files.write_text(self.file("log.jsonl"), text)

    # Checkpoints ----------------------------------------------------------------------------------

    def save(self, name: str, state: dict, keep_previous: bool = False) -> None:
        """Writes a checkpoint; with `keep_previous` the one before stays as prev.pt.

        At no moment is the file missing or half-written: the previous checkpoint gets a second name
        before the new one takes its place.
        """
        import torch

        path, previous = self.file(name), self.file("prev.pt")
        with files.atomic(path) as temporary:
            with open(temporary, "wb") as handle:  # torch would write a path's name into the file
                torch.save(state, handle)
            if keep_previous and path.exists():
                second = self.file(".prev.pt.tmp")
                second.unlink(missing_ok=True)
                try:
                    os.link(path, second)
                except OSError:  # a file system without hard links
                    shutil.copyfile(path, second)
                os.replace(second, previous)
                second.unlink(missing_ok=True)  # still there where both were the same file

    def load(self, name: str) -> dict:
        """A checkpoint of tensors and plain values; raises `UsageError` if missing or damaged."""
        import torch

        path = self.file(name)
        try:
            with zipfile.ZipFile(path) as archive:
                if wrong := archive.testzip():
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

    def load_last(self) -> dict | None:
        """The newest readable checkpoint, or None; raises `UsageError` if none of several is."""
        names = [name for name in ("last.pt", "prev.pt") if self.file(name).exists()]
        for name in names:
            try:
                state = self.load(name)
            except UsageError as error:
                more = "; trying the previous checkpoint" if name != names[-1] else ""
                print(f"WARNING: {error}{more}", file=sys.stderr)
                continue
            if name != names[0]:
                print(f"WARNING: going on from {name}, epoch {state['epoch']}", file=sys.stderr)
            return state
        if names:
            raise UsageError(f"no readable checkpoint in {self.path}; --overwrite starts anew")
        return None

    def load_best(self, result: dict) -> dict:
        """The weights that result.json was written with; raises `UsageError` for others."""
        if files.file_digest(self.file("best.pt")) != result.get("checkpoint"):
            why = "is not the file that result.json was written with (its SHA-256 is another)"
            raise UsageError(f"{self.file('best.pt')} {why}: {ANEW}")
        return self.load("best.pt")["method"]

    def vocabulary(self, result: dict) -> Path:
        """The run's vocab.txt; raises `UsageError` where it changed since the run."""
        path, due = self.file("vocab.txt"), result["hashes"].get("vocabulary")
        if due and not (path.is_file() and files.file_digest(path) == due):
            raise UsageError(f"{path} is missing or not the file of the run: {ANEW}")
        return path

    def drop_optimizer(self) -> None:
        """Makes a finished run small: last.pt without optimizers, no previous checkpoint."""
        last = self.load_last()
        for name in ("optimizers", "schedulers"):
            last.pop(name, None)
        self.save("last.pt", last)
        self.file("prev.pt").unlink(missing_ok=True)


class ReadOnlyFolder(RunFolder):
    """The folder as all but the first of several processes see it: they write nothing."""

    def lock(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def nothing(self, *_: Any, **__: Any) -> None:
        """In place of a method that writes."""

    claim = note_start = fail = append_log = restore_log = save = nothing
