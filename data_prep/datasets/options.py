"""Settings and stored forms that several datasets share."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from common.options import option
from data_prep.modalities import Modality
from data_prep.spec import Spec

CROPS = {"frame": "crop_flip_apart", "clip": "crop_flip", "none": "none"}
# Maximum frames or flow positions stored from a folder: 10 for each of 3 in an input. Our choice.
FOLDER_FRAMES = 30

# Each creates a field of a dataset's `Settings`; additional arguments are passed to `option`.
audio_feature = partial(
    option, help="audio features; stft: as in OGM-GE and ARL", choices=("fbank", "stft")
)
frame_codec = partial(option, "jpeg", "how frames are stored", choices=("jpeg", "raw"))
frame_choice = partial(
    option,
    help="frame selection: one from each equal segment, or the rule of the official release",
    choices=("segments", "release"),
)
crop = partial(
    option,
    "frame",
    "random resized crop and flip in training: per frame, per clip, or none",
    choices=tuple(CROPS),
)
vocabulary = partial(
    option,
    "electra",
    "text vocabulary: electra (30,522 words, from the Hugging Face cache), build (from the texts of"
    " the train part, at most 4,000), or a folder with a vocab.txt (uncased WordPiece)",
    source="paper Sec. 4.1: ELECTRA",
)
max_tokens = partial(option, help="tokens per text, with special tokens", low=8, high=512)


@dataclass(frozen=True)
class TextSettings:
    """How texts are prepared."""

    vocabulary: str = vocabulary()
    max_tokens: int = max_tokens(512, source="official release (Food-101)")


def classes(dataset: str) -> tuple[str, ...]:
    """The class names in the order of their ids."""
    names = Path(__file__).with_name("classes") / f"{dataset}.txt"
    return tuple(names.read_text(encoding="utf-8").splitlines())


def clip_spec(
    dataset: str, settings: Any, sound: dict[str, Any], stft: dict[str, Any], **frames: Any
) -> Spec:
    """Audio as a filter bank [128, 1024] or an STFT with the settings `stft`, and frames.

    The filter bank is normalised with the constants of the official release, the STFT is not.
    """
    from data_prep.modalities.audio import Audio
    from data_prep.modalities.video import Video

    if settings.audio_feature == "fbank":
        # 1,024 windows of 25 ms, 10 ms apart, are 10.255 s; (x + 4.503877) / (2 * 5.141276)
        stft = {"sample_rate": 16000, "seconds": 10.255, "normalise": (-4.503877, 10.282552)}
    video = Video(
        codec=settings.frame_codec,
        of_folder=FOLDER_FRAMES,
        augment=CROPS[settings.crop],
        choice=dataset if settings.frame_choice == "release" else "segments",
        **frames,
    )
    return {"audio": Audio(settings.audio_feature, **stft | sound), "video": video}


def tokens(settings: Any, **how: Any) -> Modality:
    """A text modality from `TextSettings`."""
    from data_prep.modalities.text import text_spec

    return text_spec(settings.vocabulary, settings.max_tokens, **how)


def picture(missing: str = "reject") -> Modality:
    """An image, shorter side at most 256; rotated and flipped in training (the release)."""
    from data_prep.modalities.image import Image

    return Image(missing=missing)
