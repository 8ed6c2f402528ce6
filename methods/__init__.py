"""The registry of training methods: public name -> module and one line of help.

Modules are imported on use, so that a wrong name and `train.py --help` are answered without torch.
To add a method: write `methods/<file>.py` with a `Method` subclass (see `methods/base.py`) and add
a line here.
"""

import importlib

from common.options import match_name

METHODS = {
    "Midas": (
        "methods.midas",
        "MIDAS: misaligned samples with confidence-based labels (NeurIPS 2025)",
    ),
    "Joint": ("methods.joint", "joint training: one cross-entropy on concatenated features"),
    "JointUni": (
        "methods.joint",
        "Joint plus the unimodal losses: the control row for MIDAS's gain",
    ),
    "Unimodal": ("methods.joint", "one modality alone (--modality)"),
}


def load(name: str) -> type:
    """The method's class, whatever the name's case; raises `UsageError` for an unknown one."""
    public = match_name("method", name, METHODS)
    return getattr(importlib.import_module(METHODS[public][0]), public)
