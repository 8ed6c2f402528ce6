"""Builds the classifier of a run from plain values."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from common.options import UsageError
from models import encoders
from models.classifier import ON_CPU, Classifier, Execution, seeded
from models.sequences import SequenceEncoder, TextEncoder
from models.weights import resnet18_state, text_body


@dataclass(frozen=True)
class Stream:
    """What the model needs to know about a modality."""

    kind: str  # audio, video, image, flow, text or array
    normalise: Any  # (mean, std), "imagenet", or None for text
    channels: int = 3  # of an image-like input
    length: int = 0  # of a text
    vocabulary: int = 0


@dataclass(frozen=True)
class Choice:
    """The run's settings that determine how encoders are built."""

    encoder: str = "resnet18"
    spec_pool: int = 1
    audio_norm: str = "dataset"
    weights: str = "none"  # "none", "pretrained" (from the usual caches), or a folder
    text_model: str = "tiny"
    image_width: int = 0  # output width of a linear layer on image features; 0: none


def build_encoder(stream: Stream, choice: Choice) -> nn.Module:
    """The encoder of one modality; raises `UsageError` if its weights are missing."""
    pretrained = choice.weights != "none"
    if stream.kind == "text":
        body = text_body(choice.text_model, pretrained, stream.vocabulary, stream.length)
        return TextEncoder(body)
    mean, std = encoders.IMAGENET if stream.normalise == "imagenet" else stream.normalise
    if stream.kind == "array":
        return SequenceEncoder(mean, std)
    inputs: nn.Module
    if stream.kind == "audio":
        mean, std = (v[0] if isinstance(v, (list, tuple)) else v for v in (mean, std))
        zscore = choice.audio_norm == "zscore"
        inputs = encoders.SpectrogramInput(mean, std, choice.spec_pool, zscore)
    else:
        inputs = encoders.FramesInput(mean, std)
    trunk = encoders.TRUNKS[choice.encoder](stream.channels)
    if pretrained and stream.kind in ("image", "video"):
        if not isinstance(trunk, encoders.ResNet18):
            raise UsageError(f"--weights {choice.weights} works only with --encoder resnet18")
        folder = None if choice.weights == "pretrained" else Path(choice.weights)
        trunk.load_imagenet(resnet18_state(folder))
    project = choice.image_width if stream.kind == "image" else 0
    return encoders.PooledEncoder(inputs, trunk, project)


def build_classifier(
    streams: dict[str, Stream],
    num_classes: int,
    choice: Choice,
    *,
    heads: bool = False,
    seed: int = 0,
    execution: Execution = ON_CPU,
) -> Classifier:
    """The model of all modalities, in the order of `streams`."""
    built = {}
    for m, stream in streams.items():
        with seeded(seed, f"encoder {m}"):
            built[m] = build_encoder(stream, choice)
    return Classifier(built, num_classes, heads, seed, execution)
