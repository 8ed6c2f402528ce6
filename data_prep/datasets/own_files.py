"""Reads a user's csv table and finds the files that it names, tolerating variations in paths.

A column `array:depth` contains arrays for a modality called `depth`; rows name it `depth`. In a
relative path, `\\` means `/`; `file://` starts an absolute one; and the Unicode normalisation
of a name does not matter (macOS archives have separate combining accents).
"""

import os
import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from common.files import shown
from common.options import UsageError
from data_prep.datasets.lists import MAX_BAD_LINES, TOO_MANY, Record, read_records
from data_prep.modalities import KINDS, load
from data_prep.spec import Rejection

PLAIN = ("id", "label", "split", "group")
# A modality's name occurs in flags, log keys, folder names and the columns of predictions.
NAME = re.compile(r"[a-z][a-z0-9_]{0,29}", re.ASCII)
TAKEN = (*PLAIN, "part", "sources", "duration_s", "n_frames", "flags", "fused")


class Table:
    """The csv file given by `flag`, with lower-case columns.

    Only the columns `known` are used, by default `PLAIN` and those of modalities, whose kinds are
    in `kinds`. With `files`, a line that names one of them is a new row, not a continuation of a
    multi-line text. Raises `UsageError` if the file is not such a table.
    """

    def __init__(
        self,
        path: Path,
        flag: str,
        needed: Sequence[str],
        files: "Files | None" = None,
        known: Sequence[str] = (),
    ):
        self.path, self._needed, self._files = path, needed, files
        self._header: list[str] = []
        self.kinds: dict[str, str] = {}  # modality -> its kind, in the order of the columns
        try:
            self._records = read_records(path, self._is_header, self._is_row)
            first = next(self._records, Record(1, []))
        except OSError as error:
            raise UsageError(f"{flag} {path} cannot be read: {error.strerror}") from None
        if first.fault:
            raise UsageError(f"{path}, line {first.line}: {first.fault}")
        cells = [cell.strip().casefold() for cell in first.cells]
        self._header = list(map(modality_name, cells))
        for name, cell in zip(self._header, cells):
            if fault := name_fault(name) if name != cell else "":
                raise UsageError(f"{path}: the column {cell[:80]!r} is refused: {fault}")
            if name != cell or cell in KINDS:
                self.kinds.setdefault(name, cell.partition(":")[0].rstrip())
        known = known or (*PLAIN, *self.kinds)
        self.columns = [name for name in self._header if name in known]
        missing = [f"no column {name}" for name in needed if name not in self._header]
        twice = [f"the column {c} twice" for c in self.columns if self.columns.count(c) > 1]
        self.shown = shown(", ".join(cells)) or "none"  # all columns, for messages
        if missing or twice:
            raise UsageError(
                f"{path} has {(twice + missing)[0]} (its columns: {self.shown}); it needs"
                f" {', '.join(needed)}"
            )
        others = [name or "one without a name" for name in self._header if name not in known]
        note = f"{path.name}: ignored columns: {shown(', '.join(others))}"
        self.notes = [note] if others else []

    def rows(self, rejected: list[Rejection]) -> Iterator[tuple[int, dict[str, str]]]:
        """(line, cells by column) of each row; rows with a wrong cell count go to `rejected`.

        Raises `UsageError` for an unclosed quote.
        """
        for record in self._records:
            if record.fault:
                raise UsageError(f"{self.path}, line {record.line}: {record.fault}")
            if wrong := record.wrong(len(self._header)):
                where = f"{self.path.name}, line {record.line}"
                rejected.append(Rejection("", where, "bad_line", wrong))
                if len(rejected) > MAX_BAD_LINES:
                    raise UsageError(f"{self.path} has more than {MAX_BAD_LINES} {TOO_MANY}")
            else:
                yield record.line, dict(zip(self._header, record.cells))

    def find(self, line: int, text: str, folders: bool = False) -> tuple[str, str]:
        """`Files.find` for a cell; its error names the line."""
        assert self._files is not None
        try:
            return self._files.find(text.strip(), folders)
        except UsageError as error:
            raise UsageError(f"{self.path}, line {line}: {error}") from None

    def _is_header(self, cells: list[str]) -> bool:
        return set(self._needed) <= {modality_name(cell.strip().casefold()) for cell in cells}

    def _is_row(self, cells: list[str]) -> bool:
        if len(cells) != len(self._header):
            return False
        kinds = {m: load(kind) for m, kind in self.kinds.items()}
        named = [(kinds[m], cell) for m, cell in zip(self._header, cells) if m in kinds]
        paths = [(cell, kind.folders) for kind, cell in named if not kind.inline]
        if self._files and paths:
            return any(self._files.is_there(*path) for path in paths)
        return cells[self._header.index("id")].strip().isalnum()


def modality_name(column: str) -> str:
    """The part after the colon of a column `kind:name`; another column as it is."""
    kind, _, name = column.partition(":")
    return name.lstrip() if kind.rstrip() in KINDS and name else column


def name_fault(name: str) -> str:
    """Why a modality cannot have this name, or ""."""
    if not NAME.fullmatch(name):
        return (
            f"{name[:80]!r} is no name of a modality, which begins with one of a-z and has at most"
            " 30 of a-z, 0-9 and _"
        )
    if name in TAKEN:
        return f"no modality can be called {name!r}, as none of {', '.join(TAKEN)}"
    from torch.nn import ModuleDict  # takes a second: imported only on use

    is_taken = hasattr(ModuleDict(), name)
    return f"PyTorch allows no part of a model to be called {name!r}" if is_taken else ""


class Files:
    """Finds files under `root`; `anywhere`: links may point outside (the user gave the root)."""

    def __init__(self, root: Path, anywhere: bool):
        self.root, self.anywhere = str(root), anywhere
        self._real = os.path.realpath(root)
        # Cached, as the files of a folder mostly come together.
        self._names, self._folder = lru_cache(64)(self._list), lru_cache(64)(os.path.realpath)

    def find(self, text: str, folders: bool = False) -> tuple[str, str]:
        """(path relative to the root, reason why there is no such file or "").

        `folders`: a folder is accepted as well. Raises `UsageError` if the path, or a link in such
        a folder, leaves the root; the message says what to do.
        """
        path = unquote(text.removeprefix("file://")) if text.startswith("file://") else text
        if not path or "\0" in path:
            return path, f"{text[:80]!r} is not a path"
        if os.path.isabs(path):
            roots = [os.path.abspath(self.root), self._real]
            inside = [root for root in roots if _is_below(os.path.normpath(path), root)]
            if not inside:
                raise UsageError(
                    f"{path!r} is not under {self.root}: set --dataset_root to a folder that"
                    " contains all files"
                )
            path = os.path.relpath(path, inside[0])
        elif not self._exists(path):
            path = path.replace("\\", "/")
        path = os.path.normpath(path)
        if path == ".." or path.startswith("../"):
            raise UsageError(f"{text!r} leaves the folder {self.root}")
        if not self._exists(path):
            found = PurePosixPath()
            for name in PurePosixPath(path).parts:
                names = self._names(str(found))
                key = unicodedata.normalize("NFC", name)
                if key not in names:
                    same = [n for k, n in names.items() if k.casefold() == key.casefold()]
                    there = f"; there is {same[0]!r}, in another case" if same else ""
                    return path, f"{path[:80]!r} does not exist{there}"
                found /= names[key]
            path = str(found)
        place = f"{self.root}/{path}"
        is_folder = folders and os.path.isdir(place)
        inner = os.listdir(place) if is_folder else []
        self._check_links(path, *(f"{path}/{name}" for name in inner))
        return path, "" if is_folder or os.path.isfile(place) else "it is not a file"

    def _check_links(self, *paths: str) -> None:
        """Raises `UsageError` if one of the paths is a link that may not be followed."""
        for path in () if self.anywhere else paths:
            if not _is_below(self._target(path), self._real):
                raise UsageError(
                    f"{path!r} is a link that points outside {self.root}: to allow this, give"
                    f" --dataset_root {self.root}"
                )

    def is_there(self, text: str, folders: bool) -> bool:
        """Whether a cell is a path: an existing file under the root, or a path that leaves it."""
        try:
            return not self.find(text.strip(), folders)[1]
        except UsageError:
            return True

    def _list(self, folder: str) -> dict[str, str]:
        """The names in a folder, keyed by their NFC form."""
        try:
            names = sorted(os.listdir(f"{self.root}/{folder}"))
        except OSError:
            names = []
        return {unicodedata.normalize("NFC", name): name for name in names}

    def _exists(self, path: str) -> bool:
        return os.path.exists(f"{self.root}/{path}")

    def _target(self, path: str) -> str:
        """`os.path.realpath`; asks for a folder's own links only once."""
        folder, name = os.path.split(f"{self.root}/{path}")
        target = f"{self._folder(folder)}/{name}"
        return os.path.realpath(target) if os.path.islink(target) else target


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")
