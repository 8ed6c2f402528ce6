"""One file a modality: its settings, its stored bytes, and the model's input made of them.

`KINDS` is all that a new modality has to be added to. Modules are imported when they are used, so
that `--help` waits for no decoder.
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
    """The class of a modality; raises `KeyError` for a kind that there is not."""
    name = KINDS[kind]
    return getattr(importlib.import_module(f"data_prep.modalities.{kind}"), name)
