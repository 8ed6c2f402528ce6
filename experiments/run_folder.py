"""A run's folder: the only reader and writer of what a run leaves behind.

    results/runs/<dataset>/<method>/<default | key=value,...>/seed<k>/
        config.json      fully resolved           env.json         versions, threads, hashes
        log.jsonl        one line an epoch        last.pt, best.pt checkpoints
        predictions.csv  the test part            result.json      written last: it means done
        error.txt        why a run stopped with an error (removed when it goes on)

Reading needs neither torch nor the data; only the checkpoint functions import torch.
"""

import json
import os
import shutil
import sys
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common.files import atomic, digest, locked, remove_leftovers, write_json, write_text
from common.options import UsageError, format_value

LOCK = ".lock"


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

    def read_json(self, name: str) -> dict:
        """A JSON file of the folder; raises `UsageError` when it is absent or damaged."""
        try:
            return json.loads(self.file(name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise UsageError(
                f"{self.path} has no {name}: it is not a run's folder, or it has not begun"
            ) from None
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise UsageError(f"{self.file(name)} is damaged ({error})") from None

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
        """Raises `UsageError` if it is no run's folder, or (unless None) another config's."""
        if self.file("config.json").exists():
            if config is None:
                return
            before, now = (
                _parts(self.read_json("config.json")),
                _parts(json.loads(json.dumps(config))),
            )
            changed = sorted(k for k in before | now if before.get(k) != now.get(k))
            if changed:
                what = ", ".join(
                    f"{k} {before.get(k)!r} there, {now.get(k)!r} asked" for k in changed[:4]
                )
                raise UsageError(
                    f"{self.path} belongs to another configuration ({what});"
                    " give another --output_dir, or --overwrite to start anew"
                )
        elif self.path.exists() and any(p.name != LOCK for p in self.path.iterdir()):
            raise UsageError(
                f"{self.path} holds files and no config.json: it is not a run's folder;"
                " give another --output_dir"
            )

    def claim(self, config: dict, overwrite: bool) -> None:
        """Makes the folder this configuration's; raises `UsageError` if it is another's."""
        if overwrite:
            self.clear()
        self.check(config)
        if not self.file("config.json").exists():
            self.write_json("config.json", config)
        self.file("error.txt").unlink(missing_ok=True)
        remove_leftovers(self.path)

    def note_start(self, environment: dict) -> None:
        """Adds the environment of a start to env.json: a run may be resumed elsewhere."""
        starts = self.read_json("env.json")["starts"] if self.file("env.json").exists() else []
        self.write_json("env.json", {"starts": [*starts, environment]})

    def fail(self, why: str) -> None:
        """Notes why the run stopped with an error."""
        write_text(self.file("error.txt"), why.rstrip() + "\n")

    def clear(self) -> None:
        """Removes the files of an earlier run, and nothing that is not one."""
        if self.path.exists() and not self.file("config.json").exists():
            return
        names = (
            "result.json",
            "error.txt",
            "log.jsonl",
            "last.pt",
            "prev.pt",
            "best.pt",
            "env.json",
            "predictions.csv",
            "vocab.txt",
            "config.json",
        )
        for name in names:
            self.file(name).unlink(missing_ok=True)

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
            text = self.file("log.jsonl").read_text(encoding="utf-8")
        except FileNotFoundError:
            return []
        lines = text.splitlines()
        try:  # in one piece: quicker, and all lines share their keys
            values = json.loads(f"[{','.join(lines)}]")
        except json.JSONDecodeError:
            values = []
        return values if len(values) == len(lines) else list(_whole_lines(lines))

    def cut_log(self, epoch: int) -> None:
        """Keeps the lines up to `epoch`."""
        kept = [record for record in self.read_log() if record["epoch"] <= epoch]
        with atomic(self.file("log.jsonl")) as temporary:
            temporary.write_text("".join(json.dumps(r, sort_keys=True) + "\n" for r in kept))

    # Checkpoints ----------------------------------------------------------------------------------

    def save(self, name: str, state: dict, keep_previous: bool = False) -> None:
        """Writes a checkpoint; with `keep_previous` the one before stays as prev.pt.

        At no moment is `name` missing or half-written: the previous checkpoint gets a second name
        before the new one takes its place.
        """
        import torch

        with atomic(self.file(name)) as temporary:
            torch.save(state, temporary)
            if keep_previous and self.file(name).exists():
                second = self.file(".prev.pt.tmp")
                second.unlink(missing_ok=True)
                try:
                    os.link(self.file(name), second)
                except OSError:  # a file system without hard links
                    shutil.copyfile(self.file(name), second)
                os.replace(second, self.file("prev.pt"))

    def load(self, name: str) -> dict:
        """A checkpoint of tensors and plain values; raises `UsageError` when it is damaged."""
        import torch

        try:
            return torch.load(self.file(name), map_location="cpu", weights_only=True)
        except FileNotFoundError:
            raise UsageError(f"{self.file(name)} is missing") from None
        except Exception as error:  # torch raises many kinds for a damaged file
            raise UsageError(f"{self.file(name)} is damaged ({type(error).__name__})") from None

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
                print(f"WARNING: {error}; trying the previous checkpoint", file=sys.stderr)
                continue
            if name != names[0]:
                print(f"WARNING: going on from {name}, epoch {state['epoch']}", file=sys.stderr)
            return state
        if names:
            raise UsageError(f"no readable checkpoint in {self.path}; --overwrite starts anew")
        return None


def _whole_lines(lines: list[str]) -> Iterator[dict]:
    for line in lines:
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            return


def find_runs(results: Path) -> list[RunFolder]:
    """Every run folder under `results`, in a fixed order."""
    return [RunFolder(p.parent) for p in sorted((results / "runs").glob("*/*/*/seed*/config.json"))]
