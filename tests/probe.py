"""A method that uses every optional hook, and the training program with it registered.

Run as `python tests/probe.py <flags of train.py>`.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import methods  # noqa: E402
from common.program import run  # noqa: E402

methods.METHODS["Probe"] = ("tests.probe_method", "uses every optional hook")

if __name__ == "__main__":
    import train

    sys.exit(run(train.main))
