"""How every program ends: a mistake of the user's is one line on stderr and a status."""

import os
import sys
from collections.abc import Callable, Sequence

from common.options import UsageError

# torchvision and torchaudio wheels that do not belong to the installed torch fail with these words.
MISMATCH = ("torchvision::nms", "libc10_cuda", "libtorch")


def cores() -> int:
    """CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def run(main: Callable[[Sequence[str]], int], argv: Sequence[str] | None = None) -> int:
    """Calls `main(argv)` and returns the exit status."""
    try:
        return main(list(sys.argv[1:] if argv is None else argv))
    except UsageError as error:
        print(f"{error.prefix}{error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    except (ImportError, OSError, RuntimeError) as error:
        if not any(words in str(error) for words in MISMATCH):
            raise
        print(
            f"error: torch, torchvision and torchaudio do not belong together ({error});"
            " install the three pinned versions: pip install -r requirements.txt",
            file=sys.stderr,
        )
        return 2
