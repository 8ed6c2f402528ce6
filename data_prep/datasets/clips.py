"""What the data sets of clips share: the official release's filter bank, and frame settings."""

from typing import Any

from common.options import option

# [128, 1024]: 1,024 windows of 25 ms, 10 ms apart, are 10.255 s.
FBANK = {"feature": "fbank", "sample_rate": 16000, "seconds": 10.255, "mels": 128, "frames": 1024}
FBANK_CONSTANTS = (-4.503877, 10.282552)  # (x + 4.503877) / (2 * 5.141276)
# Most frames or flow positions stored from a folder: ten for each of a view's three. Our choice.
FOLDER_FRAMES = 30
CROPS = {"frame": "crop_flip_apart", "clip": "crop_flip", "none": "none"}


def audio_feature_option() -> Any:
    """The field `audio_feature` of the `Settings` of a set of clips with sound."""
    return option(
        "fbank", "form of the sound", choices=("fbank", "stft"),
        source="official release; stft: OGM-GE and ARL",
    )  # fmt: skip


def crop_option() -> Any:
    """The field `crop`."""
    return option(
        "frame", "random resized crop and flip in training: drawn for each frame, once for all"
        " frames of a clip, or none", choices=tuple(CROPS), source="official release",
    )  # fmt: skip


def frame_choice_option(default: str) -> Any:
    """The field `frame_choice`."""
    return option(
        default, "which stored frames: one of each equal segment, or by the official release's"
        " rule for this set", choices=("segments", "release"),
        source="official release" if default == "release" else "our choice: covers the whole clip",
    )  # fmt: skip
