"""The peak memory of a process.

Not `ru_maxrss` of getrusage: a new program inherits that of the process that started it.
"""

from pathlib import Path


def peak() -> float:
    """The peak resident memory of this process so far, or since `forget_peak`, in MiB."""
    lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def forget_peak() -> None:
    """Resets the peak to the memory in use now."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
