"""The memory that a process has had in use at most.

Not `ru_maxrss` of getrusage: a new program begins with that of the process which started it.
"""

from pathlib import Path


def peak() -> float:
    """The largest resident memory of this process so far, or since `forget_peak`, in MiB."""
    lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def forget_peak() -> None:
    """What is in use now is the largest from here on."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
