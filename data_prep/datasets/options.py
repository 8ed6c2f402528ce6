"""Settings that several data sets share."""

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


MAX_TOKENS = 512  # positions of an ELECTRA encoder


def vocabulary_option() -> Any:
    """The field `vocabulary` of the `Settings` of a data set with texts."""
    return option(
        "electra",
        "words of the text: electra (30,522, from the Hugging Face cache), build (made of the train"
        " part's texts, at most 4,000), or a folder that holds vocab.txt (uncased WordPiece)",
        source="paper Sec. 4.1: ELECTRA",
    )


def max_tokens_option(default: int, source: str) -> Any:
    """The field `max_tokens` of the `Settings` of a data set with texts."""
    return option(
        default, "tokens kept of a text, special ones included", low=8, high=MAX_TOKENS,
        source=source,
    )  # fmt: skip


def text_clean_option(default: str) -> Any:
    """The field `text_clean` of the `Settings` of a data set of web pages."""
    return option(
        default, "rule by which a text is cleaned: the official release's, or ours",
        choices=("release", "plain"), source="official release; plain: our choice",
    )  # fmt: skip
