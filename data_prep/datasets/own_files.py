"""The files that an own manifest names, as people write their paths.

`\\` counts as `/` in a relative path, `file://` as an absolute one, and a name's Unicode form (an
accent as a character of its own, as in archives made on macOS) does not matter.
"""

import os
import unicodedata
from functools import lru_cache
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from common.options import UsageError


class Files:
    """Finds files under `root`.

    `anywhere`: links may lead out of `root` (the user gave --dataset_root).
    """

    def __init__(self, root: Path, anywhere: bool):
        self.root, self.anywhere = root, anywhere
        self._real = Path(os.path.realpath(root))
        self._names = lru_cache(64)(self._list)  # of a folder; its files mostly come together

    def find(self, text: str) -> tuple[str, str]:
        """(path relative to the root, why there is no such file: a reason or "").

        Raises `UsageError` for a path that leaves the root; its message says what to do.
        """
        path = unquote(text.removeprefix("file://")) if text.startswith("file://") else text
        if not path or "\0" in path:
            return path, f"{text[:80]!r} is not a path"
        if not os.path.isabs(path):
            if not _exists(self.root / path):
                path = path.replace("\\", "/")
        else:
            path = self._relative(path)
        normal = os.path.normpath(path)
        if normal == ".." or normal.startswith("../"):
            raise UsageError(f"{text!r} leaves the folder {self.root}")
        if not _exists(self.root / normal):
            near, why = self._near(PurePosixPath(normal))
            if why:
                return normal, why
            normal = near
        if not self.anywhere and not self._stays(normal):
            raise UsageError(
                f"{text!r} is a link that leads out of {self.root}: with --dataset_root"
                f" {self.root} links may lead anywhere"
            )
        return normal, "" if os.path.isfile(self.root / normal) else "it is not a file"

    def is_there(self, text: str) -> bool:
        """Whether a cell looks like a path: a file under the root, or a path that leaves it."""
        try:
            return not self.find(text.strip())[1]
        except UsageError:
            return True

    def _relative(self, path: str) -> str:
        """An absolute path relative to the root; raises `UsageError` where it lies elsewhere."""
        for root in (os.path.abspath(self.root), str(self._real)):
            if PurePosixPath(os.path.normpath(path)).is_relative_to(root):
                return os.path.relpath(path, root)
        raise UsageError(
            f"{path!r} is not under {self.root}: give --dataset_root a folder that holds all files"
        )

    def _stays(self, path: str) -> bool:
        real = os.path.realpath(self.root / path)
        return PurePosixPath(real).is_relative_to(self._real)

    def _near(self, path: PurePosixPath) -> tuple[str, str]:
        """The path with each name in the form that the disk has, or what is there instead."""
        found = ""
        for name in path.parts:
            exact, folded = self._names(found)
            key = unicodedata.normalize("NFC", name)
            if key not in exact:
                other = folded.get(key.casefold())
                there = f"; there is {other!r}, in another case" if other else ""
                return "", f"{str(path)[:80]!r} is not there{there}"
            found = f"{found}/{exact[key]}" if found else exact[key]
        return found, ""

    def _list(self, folder: str) -> tuple[dict[str, str], dict[str, str]]:
        """The names in a folder by their composed form, and by that without regard to case."""
        try:
            names = sorted(os.listdir(self.root / folder))
        except OSError:
            names = []
        exact = {unicodedata.normalize("NFC", name): name for name in names}
        return exact, {key.casefold(): name for key, name in exact.items()}


def _exists(path: Path) -> bool:
    """Whether something is there; a name that no file system takes is not."""
    try:
        return path.exists()
    except OSError:
        return False
