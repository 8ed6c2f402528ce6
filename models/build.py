"""Builds the classifier of a run from plain values."""

from torch import nn

from models.classifier import ON_CPU, Classifier, Execution, seeded
from models.inputs import IMAGENET, FramesInput, PooledEncoder, SpectrogramInput
from models.trunks import TRUNKS

CHANNELS = {"audio": 1, "video": 3}


def build_encoder(
    kind: str, trunk: str, normalise: tuple, spec_pool: int, zscore: bool
) -> nn.Module:
    """The encoder of one modality; `kind` is a key of `CHANNELS`, `normalise` (mean, std)."""
    mean, std = IMAGENET if normalise == "imagenet" else normalise
    if kind == "audio":
        mean, std = (v[0] if isinstance(v, (list, tuple)) else v for v in (mean, std))
        inputs = SpectrogramInput(mean, std, spec_pool, zscore)
    else:
        inputs = FramesInput(mean, std)
    body = TRUNKS[trunk](CHANNELS[kind])
    return PooledEncoder(inputs, body, body.width)


def build_classifier(
    kinds: dict[str, str],
    normalise: dict[str, tuple],
    num_classes: int,
    *,
    encoder: str,
    spec_pool: int = 1,
    audio_norm: str = "dataset",
    heads: bool = False,
    seed: int = 0,
    execution: Execution = ON_CPU,
) -> Classifier:
    """`kinds` maps each modality, in order, to "audio" or "video"; `normalise` to (mean, std)."""
    encoders = {}
    for m, kind in kinds.items():
        with seeded(seed, f"encoder {m}"):
            encoders[m] = build_encoder(
                kind, encoder, normalise[m], spec_pool, audio_norm == "zscore"
            )
    return Classifier(encoders, num_classes, heads, seed, execution)
