"""One file for each modality: its settings, its stored bytes, and the model's input made of them.

A new modality is a line in `KINDS`. Modules are imported on use: `--help` loads no decoder.
"""

import importlib

from data_prep.modalities.base import Modality

# The name in manifests, settings and meta.json -> the class in the module of that name.
KINDS = {
    "audio": "Audio",
    "video": "Video",
    "image": "Image",
    "flow": "Flow",
    "text": "Text",
    "array": "Array",
}


def load(kind: str) -> type[Modality]:
    """The class of a modality; raises `KeyError` for an unknown kind."""
    name = KINDS[kind]
    return getattr(importlib.import_module(f"data_prep.modalities.{kind}"), name)
