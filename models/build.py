"""Builds the classifier of a run from plain values."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from common.options import UsageError, unknown
from models import encoders
from models.classifier import ON_CPU, Classifier, Execution, seeded
from models.sequences import SequenceEncoder, TextEncoder
from models.weights import RESNETS, resnet_state, text_body
from models.zoo import HubTrunk, TimmTrunk


@dataclass(frozen=True)
class Stream:
    """What the model needs to know about a modality."""

    kind: str  # audio, video, image, flow, text, array or grid
    normalise: Any  # (mean, std), "imagenet", or None for text
    channels: int = 3  # of an image-like input; of a grid, as many as means
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
    fusion: str = "concat"
    image_width: int = 0  # output width of a linear layer on image features; 0: none


# Kinds that --encoder is not for, and why.
OWN_ENCODER = {
    "text": "the encoder of text is --text_model",
    "array": "arrays have an encoder of their own",
}


def encoders_of(text: str, kinds: Mapping[str, str]) -> dict[str, str]:
    """The name of each modality's encoder, from --encoder; `kinds` {modality: kind of `Stream`}.

    "resnet18" is for all, "small,video=timm:convnext_tiny" has another one for the video. Raises
    `UsageError` if a name is unknown or does nothing, and if a modality has none.
    """
    known = ("small", *RESNETS)
    named: dict[str, str] = {}
    for item in text.split(","):
        m, _, name = item.rpartition("=")
        if not name.startswith(("timm:", "hf:")) and name not in known:
            raise unknown("encoder", name, (*known, "timm:<name>", "hf:<name>"))
        if m in named:
            raise UsageError(f"--encoder names two for {m or 'all modalities'}: {text}")
        named[m] = name
    missing = named.keys() - {"", *kinds}
    if missing:
        raise unknown("modality", sorted(missing)[0], kinds)
    for m, kind in kinds.items():
        if kind in OWN_ENCODER and m in named:
            raise UsageError(f"--encoder {m}={named[m]}: {OWN_ENCODER[kind]}")
        if kind not in OWN_ENCODER and not named.keys() & {"", m}:
            raise UsageError(f"--encoder names none for {m}: add one without a modality")
    return {m: named.get(m, named.get("", "")) for m in kinds}


def build_trunk(stream: Stream, choice: Choice) -> Any:
    """The trunk of a convolutional encoder; frames and pictures get pretrained weights if wanted.

    Models of transformers get them for spectrograms, too.
    """
    name, pictures = choice.encoder, stream.kind in ("image", "video")
    pretrained = choice.weights != "none"
    folder = None if choice.weights in ("none", "pretrained") else Path(choice.weights)
    if name.startswith("timm:"):
        wanted = pretrained and pictures
        return TimmTrunk(name.removeprefix("timm:"), stream.channels, wanted, folder)
    if name.startswith("hf:"):
        return HubTrunk(name.removeprefix("hf:"), stream.channels, pretrained)
    trunk = encoders.ResNet(stream.channels, name) if name in RESNETS else None
    if pretrained and pictures:
        if trunk is None:
            raise UsageError(f"--weights {choice.weights} does not work with --encoder {name}")
        trunk.load_imagenet(resnet_state(name, folder))
    return trunk or encoders.SmallCNN(stream.channels)


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
    elif stream.kind == "grid":
        inputs = encoders.FramesInput(mean, std, scale=1)
        stream = replace(stream, channels=len(mean))
    else:
        inputs = encoders.FramesInput(mean, std)
    trunk = build_trunk(stream, choice)
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
    names = encoders_of(choice.encoder, {m: stream.kind for m, stream in streams.items()})
    built = {}
    for m, stream in streams.items():
        with seeded(seed, f"encoder {m}"):
            built[m] = build_encoder(stream, replace(choice, encoder=names[m]))
    return Classifier(built, num_classes, heads, seed, execution, choice.fusion)
