"""A run's folder: the only reader and writer of what a run leaves behind.

    results/runs/<dataset>/<method>/<default | key=value,...>/seed<k>/
        config.json      fully resolved           env.json         versions, threads, hashes
        log.jsonl        one line an epoch        best.pt          of the chosen epoch
        last.pt, prev.pt of the last two epochs   vocab.txt        where texts are tokens
        predictions.csv  the test part            result.json      written last: it means done
        error.txt        why a run stopped with an error (removed when it goes on)
        tensorboard/     with --tensorboard       .lock            held while a process works here

Reading needs neither torch nor the data, but for the checkpoints.
"""

import contextlib
import fnmatch
import json
import os
import sys
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common.files import (
    TEMPORARY,
    Busy,
    digest,
    file_digest,
    locked,
    read_object,
    remove_leftovers,
    shown,
    write_json,
    write_text,
)
from common.options import UsageError, format_value
from experiments.run import checkpoint

LOCK = ".lock"
# What a run writes beside config.json; a result that stands without the rest would look done.
FILES = (
    "result.json", "error.txt", "last.pt", "prev.pt", "best.pt", "log.jsonl", "env.json",
    "predictions.csv", "vocab.txt",
)  # fmt: skip
BOARD = "tensorboard"
ANEW = "the run's train.py command with --overwrite makes it anew"
# What every result.json has, and programs ask for.
RESULT = {
    "test/acc": float, "label_names": list, "count/n_train": int, "checkpoint": str, "hashes": dict,
}  # fmt: skip
# What the entries of a run's "hashes" are, for messages.
HASHED = {
    "split": "the split's file",
    "pairs_val": "the misaligned pairs of the val part",
    "pairs_test": "the misaligned pairs of the test part",
    "release_pairs_val": "the release's pairs of the val part",
    "release_pairs_test": "the release's pairs of the test part",
    "vocabulary": "the vocabulary",
    "data": "the prepared samples",
}


def variant_name(differing: dict[str, Any]) -> str:
    """`default`, or the differing settings as key=value in alphabetical order, safe in a path."""
    text = ",".join(f"{key}={format_value(value)}" for key, value in sorted(differing.items()))
    safe = urllib.parse.quote(text, safe="=,+")
    if len(safe) > 150:
        safe = f"{safe[:130]}~{digest(text)}"
    return safe or "default"


def run_path(
    results: Path, dataset: str, method: str, differing: dict[str, Any], seed: int
) -> Path:
    """The run's folder under `results`."""
    return results / "runs" / dataset / method / variant_name(differing) / f"seed{seed}"


def _parts(value: dict, prefix: str = "") -> dict[str, Any]:
    flat = {}
    for key, inner in value.items():
        flat |= (
            _parts(inner, f"{prefix}{key}.") if isinstance(inner, dict) else {prefix + key: inner}
        )
    return flat


class RunFolder:
    """One run's files."""

    def __init__(self, path: Path):
        self.path = Path(path)

    def file(self, name: str) -> Path:
        """The path of one of the folder's files."""
        return self.path / name

    def lock(self) -> Any:
        """A context that keeps every other process off this folder; a kill frees it."""
        return locked(
            self.file(LOCK),
            f"another process works on {self.path}: wait, stop it, or give another --output_dir",
        )

    def busy(self) -> bool:
        """Whether another process works on the run."""
        if not self.file(LOCK).exists():
            return False
        try:
            with self.lock():
                return False
        except Busy:
            return True

    def read_json(self, name: str) -> dict:
        """A JSON file of the folder; raises `UsageError` when it is absent or damaged."""
        try:
            return read_object(self.file(name))
        except UsageError as error:
            raise UsageError(f"{error}; {ANEW}") from None
        except (FileNotFoundError, NotADirectoryError):
            raise UsageError(
                f"{self.path} has no {name}: it is not a run's folder, or it has not begun"
            ) from None

    def read_result(self) -> dict:
        """result.json; raises `UsageError` where it lacks what a finished run has."""
        result = self.read_json("result.json")
        for key, kind in RESULT.items():
            if not isinstance(result.get(key), kind):
                raise UsageError(f"{self.file('result.json')} is damaged (no {key}); {ANEW}")
        return result

    def write_json(self, name: str, value: dict) -> None:
        """Writes a JSON file of the folder atomically."""
        write_json(self.file(name), value)

    @property
    def state(self) -> str:
        """new, partial, done or failed."""
        if self.file("result.json").exists():
            return "done"
        if self.file("error.txt").exists():
            return "failed"
        return "partial" if self.file("config.json").exists() else "new"

    def check(self, config: dict | None) -> None:
        """Raises `UsageError` if this is not a run's folder, or holds another configuration's run.

        None skips the comparison of configurations. Nothing is deleted before this check has
        passed. Temporary files left by a killed process are ignored.
        """
        if self.file("config.json").exists():
            if config is None:
                return
            before = _parts(self.read_json("config.json"))
            now = _parts(json.loads(json.dumps(config)))
            changed = sorted(k for k in before | now if before.get(k) != now.get(k))
            if changed:
                what = ", ".join(
                    f"{k} {shown(repr(before.get(k)))} there, {shown(repr(now.get(k)))} asked"
                    for k in changed[:4]
                )
                raise UsageError(
                    f"{self.path} belongs to another configuration ({what});"
                    " give another --output_dir, or --overwrite to start anew"
                )
        elif strange := self._strangers():
            raise UsageError(
                f"{self.path} holds {strange[0]} and no config.json: it is not a run's folder;"
                " give another --output_dir"
            )

    def _strangers(self) -> list[str]:
        """What is there beside a lock and the leftovers of killed writers."""
        if not self.path.exists():
            return []
        names = sorted(entry.name for entry in self.path.iterdir())
        return [n for n in names if n != LOCK and not fnmatch.fnmatch(n, TEMPORARY)]

    def claim(self, config: dict, overwrite: bool) -> None:
        """Makes the folder this configuration's; raises `UsageError` if it is another's.

        With `overwrite` the files of an earlier run go, and others stay. config.json is there at
        every moment: without it nobody could tell that the folder is a run's.
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
        remove_leftovers(self.path)

    def note_start(self, environment: dict) -> None:
        """Adds the environment of a start to env.json: a run may be resumed elsewhere."""
        starts = []
        if self.file("env.json").exists():
            try:
                starts = self.read_json("env.json").get("starts")
            except UsageError as error:
                print(f"WARNING: {error}: earlier starts are forgotten", file=sys.stderr)
        starts = starts if isinstance(starts, list) else []
        self.write_json("env.json", {"starts": [*starts, environment]})

    def check_data(self, then: dict[str, str], now: dict[str, str]) -> None:
        """Raises `UsageError` where the run was begun with another split or other samples.

        It would go on with samples in training that it is tested on later.
        """
        for name, text in now.items():
            before = then.get(name, text)
            if before != text:
                raise UsageError(
                    f"{self.path} was begun with other data: {HASHED[name]} had the SHA-256"
                    f" {before[:12]}... then, and {text[:12]}... now. Put the former files back, or"
                    " start anew with --overwrite"
                )

    def kept(self) -> str:
        """What a run that met a fault can go on from, and how."""
        last = next((n for n in ("last.pt", "prev.pt") if self.file(n).exists()), None)
        if last is None:
            return "No epoch was finished: the same command begins again"
        return f"{self.file(last)} is kept: the same command goes on from the last finished epoch"

    def fail(self, why: str) -> None:
        """Notes why the run stopped; that the note cannot be written does not hide the reason."""
        try:
            write_text(self.file("error.txt"), why.rstrip() + "\n")
        except OSError as error:
            print(f"note: error.txt cannot be written ({error.strerror})", file=sys.stderr)

    # The log --------------------------------------------------------------------------------------

    def append_log(self, record: dict[str, Any]) -> None:
        """Adds one line, flushed to the disk."""
        with open(self.file("log.jsonl"), "a", encoding="utf-8") as handle:
            handle.write(json.dumps(record, sort_keys=True) + "\n")
            handle.flush()
            os.fsync(handle.fileno())

    def read_log(self) -> list[dict]:
        """All whole lines; a half-written last line (a kill) is left out."""
        try:
            text = self.file("log.jsonl").read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return []
        lines = text.splitlines()
        try:  # in one piece: quicker, and all lines share their keys
            values = json.loads(f"[{','.join(lines)}]")
        except (ValueError, RecursionError):
            values = []
        if len(values) == len(lines) and all(isinstance(value, dict) for value in values):
            return values
        return list(_whole_lines(lines))

    def restore_log(self, records: list[dict]) -> None:
        """Makes the log what it was at a checkpoint: later lines go, lost ones come back."""
        if self.read_log()[: len(records)] != records:
            print(
                f"WARNING: {self.file('log.jsonl')} is damaged; the checkpoint has its lines",
                file=sys.stderr,
            )
        text = "".join(json.dumps(record, sort_keys=True) + "\n" for record in records)
        write_text(self.file("log.jsonl"), text)

    # Checkpoints ----------------------------------------------------------------------------------

    def save(self, name: str, state: dict, keep_previous: bool = False) -> None:
        """Writes a checkpoint; with `keep_previous` the one before stays as prev.pt."""
        checkpoint.save(self.file(name), state, self.file("prev.pt") if keep_previous else None)

    def load(self, name: str) -> dict:
        """A checkpoint of tensors and plain values: see `checkpoint.load`."""
        return checkpoint.load(self.file(name))

    def load_best(self, result: dict) -> dict:
        """The weights that result.json speaks of; raises `UsageError` where others are there."""
        if file_digest(self.file("best.pt")) != result.get("checkpoint"):
            raise UsageError(
                f"{self.file('best.pt')} is not the file that result.json was written with (its"
                " SHA-256 is another): --overwrite with the run's train.py command makes it anew"
            )
        return self.load("best.pt")["method"]

    def vocabulary(self, result: dict) -> Path:
        """The run's vocab.txt; raises `UsageError` where it changed since the run."""
        path, due = self.file("vocab.txt"), result["hashes"].get("vocabulary")
        if due and not (path.is_file() and file_digest(path) == due):
            raise UsageError(f"{path} is missing or not the file of the run: {ANEW}")
        return path

    def drop_optimizer(self) -> None:
        """Makes a finished run small: last.pt without optimizers, no previous checkpoint."""
        last = self.load_last()
        kept = {k: v for k, v in last.items() if k not in ("optimizers", "schedulers")}
        self.save("last.pt", kept)
        self.file("prev.pt").unlink(missing_ok=True)

    def load_last(self) -> dict | None:
        """The newest readable checkpoint, None if there is none; says loudly what it skipped.

        Raises `UsageError` when there are checkpoints and none can be read.
        """
        names = [name for name in ("last.pt", "prev.pt") if self.file(name).exists()]
        for name in names:
            try:
                state = self.load(name)
            except UsageError as error:
                more = "; trying the previous checkpoint" if name != names[-1] else ""
                print(f"WARNING: {error}{more}", file=sys.stderr)
                continue
            if not {"hashes", "log"} <= state.keys():
                raise UsageError(
                    f"{self.file(name)} was written by an older version: --overwrite starts anew"
                )
            if name != names[0]:
                print(f"WARNING: going on from {name}, epoch {state['epoch']}", file=sys.stderr)
            return state
        if names:
            raise UsageError(f"no readable checkpoint in {self.path}; --overwrite starts anew")
        return None


def _whole_lines(lines: list[str]) -> Iterator[dict]:
    for line in lines:
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            return
        if not isinstance(value, dict):
            return
        yield value


def find_runs(results: Path) -> list[RunFolder]:
    """Every run folder under `results`, in a fixed order."""
    return [RunFolder(p.parent) for p in sorted((results / "runs").glob("*/*/*/seed*/config.json"))]
