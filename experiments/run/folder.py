"""The run folder; only this module reads and writes its files.

    results/runs/<dataset>/<method>/<default | key=value,...>/seed<k>/
        config.json      fully resolved           env.json         versions, threads, hashes
        log.jsonl        one line per epoch       best.pt          of the best epoch
        last.pt, prev.pt of the last two epochs   vocab.txt        if texts are tokenized
        predictions.csv  on the test split        result.json      written last: the run is done
        error.txt        why the run failed (removed on resume)
        tensorboard/     with --track             .lock            held while a process uses it

Reading needs neither torch nor the data, except for checkpoints.
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
# What a run writes besides config.json; result.json is deleted first, since it marks a run as done.
FILES = (
    "result.json", "error.txt", "last.pt", "prev.pt", "best.pt", "log.jsonl", "env.json",
    "predictions.csv", "vocab.txt",
)  # fmt: skip
BOARD = "tensorboard"
ANEW = "repeat the run with its train.py command and --overwrite"


def variant_name(differing: dict[str, Any]) -> str:
    """`default`, or the differing settings as sorted key=value pairs, safe in a path."""
    text = ",".join(f"{key}={format_value(value)}" for key, value in sorted(differing.items()))
    safe = urllib.parse.quote(text, safe="=,+")
    if len(safe) > 150:
        safe = f"{safe[:130]}~{files.digest(text)}"
    return safe or "default"


def run_path(
    results: Path, dataset: str, method: str, differing: dict[str, Any], seed: int
) -> Path:
    return results / "runs" / dataset / method / variant_name(differing) / f"seed{seed}"


def find_runs(results: Path) -> list["RunFolder"]:
    """Every run folder under `results`, sorted."""
    return [RunFolder(p.parent) for p in sorted((results / "runs").glob("*/*/*/seed*/config.json"))]


def _flat(value: dict, prefix: str = "") -> dict[str, Any]:
    """A nested dictionary flattened to dotted keys."""
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
        """An exclusive lock on this folder, released when the process ends."""
        busy = f"another process is using {self.path}: wait, stop it, or use another --output_dir"
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
        """A JSON file of the folder; raises `UsageError` if it is missing or damaged."""
        try:
            return files.read_object(self.file(name))
        except UsageError as error:
            raise UsageError(f"{error}; {ANEW}") from None
        except (FileNotFoundError, NotADirectoryError):
            why = "it is not a run folder, or the run has not started"
            raise UsageError(f"{self.path} has no {name}: {why}") from None

    def write_json(self, name: str, value: dict) -> None:
        files.write_json(self.file(name), value)

    # Start and failure ----------------------------------------------------------------------------

    def check(self, config: dict | None) -> None:
        """Raises `UsageError` if this is not a run folder, or has another run's configuration."""
        if not self.file("config.json").exists():
            names = sorted(each.name for each in self.path.iterdir()) if self.path.exists() else []
            for name in names:
                if name != LOCK and not fnmatch.fnmatch(name, files.TEMPORARY):
                    why = f"contains {name} but no config.json: it is not a run folder"
                    raise UsageError(f"{self.path} {why}; use another --output_dir")
        elif config is not None:
            there = _flat(self.read_json("config.json"))
            asked = _flat(json.loads(json.dumps(config)))
            what = ", ".join(
                f"{k} is {shown(repr(there.get(k)))}, requested {shown(repr(asked.get(k)))}"
                for k in sorted(k for k in there | asked if there.get(k) != asked.get(k))[:4]
            )
            if what:
                raise UsageError(
                    f"{self.path} belongs to another configuration ({what});"
                    " use another --output_dir, or --overwrite to start over"
                )

    def claim(self, config: dict, overwrite: bool) -> None:
        """Claims the folder for `config`; raises `UsageError` if it belongs to another run.

        `overwrite` removes the files of an earlier run and keeps all others. config.json exists
        at every moment, since it identifies the folder as a run folder.
        """
        self.check(None if overwrite else config)
        if overwrite:
            for name in FILES:
                self.file(name).unlink(missing_ok=True)
            for events in self.file(BOARD).glob("events.out.tfevents.*"):
                events.unlink()
            with contextlib.suppress(OSError):  # missing, or contains other files
                self.file(BOARD).rmdir()
        if overwrite or not self.file("config.json").exists():
            self.write_json("config.json", config)
        self.file("error.txt").unlink(missing_ok=True)
        files.remove_leftovers(self.path)

    def note_start(self, environment: dict) -> None:
        """Appends an environment to env.json: a run may be resumed on another machine."""
        starts = []
        if self.file("env.json").exists():
            try:
                starts = self.read_json("env.json").get("starts", [])
            except UsageError as error:
                print(f"WARNING: {error}: the record of earlier starts is lost", file=sys.stderr)
        self.write_json("env.json", {"starts": [*starts, environment]})

    def check_data(self, then: dict[str, str], now: dict[str, str]) -> None:
        """Raises `UsageError` if the run was started with another split or other samples."""
        for name, text in now.items():
            if then.get(name, text) != text:
                what = name.replace("_", " ")
                raise UsageError(
                    f"{self.path} was started with other data: the SHA-256 of the {what} was"
                    f" {then[name][:12]}... then and is {text[:12]}... now. Restore the old files,"
                    " or start over with --overwrite"
                )

    def fail(self, why: str) -> None:
        """Writes error.txt."""
        try:
            files.write_text(self.file("error.txt"), why.rstrip() + "\n")
        except OSError as error:  # must not hide the original error
            print(f"note: cannot write error.txt ({error.strerror})", file=sys.stderr)

    # The log --------------------------------------------------------------------------------------

    def append_log(self, record: dict[str, Any]) -> None:
        """Appends one line and fsyncs it."""
        with open(self.file("log.jsonl"), "a", encoding="utf-8") as handle:
            handle.write(json.dumps(record, sort_keys=True) + "\n")
            handle.flush()
            os.fsync(handle.fileno())

    def read_log(self) -> list[dict]:
        """All lines before the first damaged one (a killed run may leave a partial last line)."""
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
        """Restores the log of a checkpoint: drops later lines, rewrites lost ones."""
        if self.read_log()[: len(records)] != records:
            damaged = f"{self.file('log.jsonl')} is damaged"
            print(f"WARNING: {damaged}; restored from the checkpoint", file=sys.stderr)
        text = "".join(json.dumps(record, sort_keys=True) + "\n" for record in records)
        files.write_text(self.file("log.jsonl"), text)

    # Checkpoints ----------------------------------------------------------------------------------

    def save(self, name: str, state: dict, keep_previous: bool = False) -> None:
        """Writes a checkpoint; with `keep_previous` the previous one is kept as prev.pt.

        The file is never missing or half-written: the previous checkpoint gets a second name before
        the new one replaces it.
        """
        import torch

        path, previous = self.file(name), self.file("prev.pt")
        with files.atomic(path) as temporary:
            with open(temporary, "wb") as handle:  # given a path, torch stores its name in the file
                torch.save(state, handle)
            if keep_previous and path.exists():
                second = self.file(".prev.pt.tmp")
                second.unlink(missing_ok=True)
                try:
                    os.link(path, second)
                except OSError:  # no hard links on this file system
                    shutil.copyfile(path, second)
                os.replace(second, previous)
                second.unlink(missing_ok=True)  # `replace` keeps it if both are one file

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
                raise TypeError(f"it contains {type(state).__name__}, not a dict")
            return state
        except FileNotFoundError:
            raise UsageError(f"{path} is missing") from None
        except MemoryError:
            raise
        except Exception as error:  # zipfile and torch raise many types for damaged files
            reason = shown(str(error).split("\n")[0], 200) or type(error).__name__
            raise UsageError(f"{path} is damaged ({reason})") from None

    def load_last(self) -> dict | None:
        """The newest readable checkpoint, or None; raises `UsageError` if all are damaged."""
        names = [name for name in ("last.pt", "prev.pt") if self.file(name).exists()]
        for name in names:
            try:
                state = self.load(name)
            except UsageError as error:
                more = "; trying the previous checkpoint" if name != names[-1] else ""
                print(f"WARNING: {error}{more}", file=sys.stderr)
                continue
            if name != names[0]:
                print(f"WARNING: resuming from {name}, epoch {state['epoch']}", file=sys.stderr)
            return state
        if names:
            raise UsageError(f"no readable checkpoint in {self.path}; start over with --overwrite")
        return None

    def load_best(self, result: dict) -> dict:
        """The weights in best.pt; raises `UsageError` if result.json belongs to another file."""
        if files.file_digest(self.file("best.pt")) != result.get("checkpoint"):
            why = "changed after result.json was written (SHA-256 mismatch)"
            raise UsageError(f"{self.file('best.pt')} {why}: {ANEW}")
        return self.load("best.pt")["method"]

    def vocabulary(self, result: dict) -> Path:
        """The run's vocab.txt; raises `UsageError` if it is missing or has changed."""
        path, due = self.file("vocab.txt"), result["hashes"].get("vocabulary")
        if due and not (path.is_file() and files.file_digest(path) == due):
            raise UsageError(f"{path} is missing or has changed since the run: {ANEW}")
        return path

    def drop_optimizer(self) -> None:
        """Shrinks a finished run: removes optimizers from last.pt, and prev.pt."""
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
