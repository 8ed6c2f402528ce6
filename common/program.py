"""Runs a program's `main`: expected errors become one line on stderr and an exit status."""

import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path

import psutil

from common.options import UsageError

# torchvision and torchaudio wheels built for another torch version fail with these words.
MISMATCH = ("torchvision::nms", "libc10_cuda", "libtorch")
# Machine errors and what to do about them.
FAULTS = {
    errno.ENOSPC: "no space left on the disk: free some space",
    errno.EDQUOT: "disk quota exceeded: free some space",
    errno.EIO: "the disk cannot be read or written (I/O error): check the system log",
    errno.EROFS: "the file system is read-only: use another folder",
    errno.EACCES: "permission denied: check the permissions, or use another folder",
    errno.EPERM: "permission denied: check the permissions, or use another folder",
    errno.EMFILE: "too many open files: raise the limit (ulimit -n)",
    errno.ENOTDIR: "expected a folder, found a file: use another path",
    errno.EEXIST: "expected a folder, found a file: use another path",
    errno.EISDIR: "expected a file, found a folder: use another path",
    errno.ENAMETOOLONG: "the name is too long for the file system: use another path",
}
MEMORY = (
    "out of memory",
    "can't allocate memory",
    "cannot allocate memory",
    "can't start new thread",
    "bad_alloc",
)


def explain(error: BaseException) -> str | None:
    """One line about a machine fault and what to do; None for any other error."""
    seen: BaseException | None = error
    while seen is not None:  # libraries wrap system errors
        if isinstance(seen, OSError) and seen.errno in FAULTS:
            place = f"{seen.filename}: " if seen.filename else ""
            return f"{place}{FAULTS[seen.errno]}"
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)
    text = str(error)
    if isinstance(error, MemoryError) or any(words in text.lower() for words in MEMORY):
        return (
            "out of memory: use fewer --num_workers or, in training, --cache off, a higher"
            " --accumulate, or a smaller --batch_size or --size"
        )
    if "DataLoader worker" in text:
        return (
            f"a loader worker died ({text.splitlines()[0][:100]}), most often from lack of memory:"
            " use fewer --num_workers"
        )
    return None


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0))


def free_memory() -> int:
    """Bytes available on the machine, or in this process's control group if that is less."""
    free = psutil.virtual_memory().available
    try:
        most = int(Path("/sys/fs/cgroup/memory.max").read_text())
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
        counts = Path("/sys/fs/cgroup/memory.stat").read_text().split()
        cached = int(counts[counts.index("inactive_file") + 1])
    except (OSError, ValueError, IndexError):  # no control group, or no limit
        return free
    return min(free, most - used + cached)


def duration(seconds: float) -> str:
    """A readable duration: "40 s", "3.5 h", "12 days"."""
    for unit, size, least in (("days", 86400, 1.995), ("h", 3600, 0.995), ("min", 60, 0.995)):
        amount = seconds / size
        if amount >= least:
            return f"{amount:.{1 if amount < 9.95 else 0}f} {unit}"
    return f"{seconds:.0f} s"


def run(main: Callable[[list[str]], int], argv: list[str] | None = None) -> int:
    """Calls `main(argv)` and returns the exit status."""
    try:
        return main(sys.argv[1:] if argv is None else argv)
    except UsageError as error:
        print(f"{error.prefix}{error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    except Exception as error:
        if any(words in str(error) for words in MISMATCH):
            wrong = f"torch, torchvision and torchaudio versions do not match ({error})"
            mend = "install the pinned versions: pip install -r requirements.txt"
            print(f"error: {wrong}; {mend}", file=sys.stderr)
            return 2
        why = explain(error)
        if why is None:
            raise
        rest = "Finished files are complete and kept: run the same command to continue"
        print(f"error: {why}. {rest}", file=sys.stderr)
        return os.EX_IOERR
