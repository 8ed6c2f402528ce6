"""One module per modality: its settings, its stored bytes, and how they become model input.

To add a modality, add a line to `KINDS`. Modules are imported on use, so `--help` loads no decoder.
"""

import importlib

from data_prep.modalities.base import Modality

# Name in manifests, settings and meta.json -> class in the module of that name.
KINDS = {
    "audio": "Audio",
    "video": "Video",
    "image": "Image",
    "flow": "Flow",
    "text": "Text",
    "array": "Array",
    "grid": "Grid",
}


def load(kind: str) -> type[Modality]:
    """The class of a modality; raises `KeyError` for an unknown kind."""
    name = KINDS[kind]
    assert name.lower() == kind, f"KINDS: class {name} must be registered as {name.lower()!r}"
    return getattr(importlib.import_module(f"data_prep.modalities.{kind}"), name)
