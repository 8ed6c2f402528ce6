"""The training program with a dataset of three modalities.

Run as `python tests/probe.py <flags of train.py>`.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import tests.trio_layout  # noqa: E402
from common.program import run  # noqa: E402
from data_prep import datasets  # noqa: E402

datasets.DATASETS["trio"] = ("AV-Digits with a third modality", None)
sys.modules["data_prep.datasets.trio"] = tests.trio_layout

if __name__ == "__main__":
    import train

    sys.exit(run(train.main))
