"""What a prepared sample is: the settings that decide its content, and the hash that names them.

A `Spec` maps each modality, in the data set's order, to the description of its stored form. Its
JSON form is stored with the data, and its hash names the folder: two preparations with the same
hash hold the same content, and a reader that expects another hash refuses.
"""

import math
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from common.files import digest, shown
from common.options import UsageError

# Raised whenever the content that equal settings produce changes.
# 2: raw frames of no fixed size carry it; 3: packed frames in order; 4: filter banks padded with
# zeros instead of tiled, three frames a clip of CREMA-D, a text's cleaning, the pool of the lists,
# texts instead of tokens where the vocabulary is built.
VERSION = 4


@dataclass(frozen=True)
class Audio:
    """A stored log spectrogram, float16 [F, T], frequency first, time last.

    "stft": mono wave, tiled and cut to `seconds`, clipped to [-1, 1]; periodic Hann window of
    `n_fft`, centred, zero padding; ln(|S| + 1e-7).
    "fbank": Kaldi log-mel filter bank of the first `seconds`, mean removed, 25 ms windows each
    10 ms, zero-padded or cut at `frames` (before any normalisation, as in the official release).
    """

    feature: str = "stft"
    sample_rate: int = 22050
    seconds: float = 3.0
    n_fft: int = 512
    hop: int = 353
    mels: int = 128
    frames: int = 1024
    missing: str = "reject"  # or "fill": silence, and a flag in the manifest
    drop_silent: bool = False

    @property
    def shape(self) -> tuple[int, int]:
        """(F, T) of the stored array."""
        if self.feature == "fbank":
            return self.mels, self.frames
        return self.n_fft // 2 + 1, int(self.seconds * self.sample_rate) // self.hop + 1


@dataclass(frozen=True)
class Video:
    """Stored frames, RGB, picked by presentation time, each JPEG or raw uint8 [H, W, 3].

    With `fps`, the frames shown at (k + 0.5) / fps seconds, at most `max_frames`; with `positions`,
    the frames shown at (j + 0.5) / positions of the duration; with `first`, the first so many
    frames. The frame of a time is the latest one that is not after it. Of a candidate whose
    `inline` holds [start, end] for this modality, only times in these seconds count, and the
    duration is theirs. A folder of pictures may stand in place of a file (`modalities/frames.py`).
    """

    fps: float | None = None
    positions: int | None = None
    first: int | None = None
    max_frames: int = 10
    min_frames: int = 1  # fewer stored ones: the last is repeated
    min_decoded: int = 3  # fewer in the file: few_frames
    short_side: int | None = 256  # longer frames are scaled down to it, aspect kept
    square: int | None = None  # or: area-resized to square x square
    codec: str = "jpeg"
    quality: int = 95
    missing: str = "reject"  # or "fill": repeat what decodes, black where nothing does, and a flag
    of_folder: int = 0  # most frames of a folder of pictures, without a set number; 0: none is read


@dataclass(frozen=True)
class Image:
    """One stored picture, RGB, a JPEG whose shorter side is at most `short_side`, turned upright.

    Alpha and palettes are laid on white; of an animation the first frame counts.
    """

    short_side: int = 256
    quality: int = 90
    max_pixels: int = 100_000_000  # a header that claims more is refused before decoding
    missing: str = "reject"  # or "fill": a grey picture, and a flag in the manifest


@dataclass(frozen=True)
class Flow:
    """Stored optical flow between consecutive frames, as the field stores it: u and v as images.

    At each of `positions`, shown at (j + 0.5) / positions of the duration, `stack` consecutive
    pairs of frames give `stack` pictures of u and of v: 8-bit grey, flow clipped to +-bound pixels
    and mapped linearly to 0..255, so that no motion is 128. Order: u1, v1, u2, v2, ...
    """

    algorithm: str = "dis"  # or "farneback", "tvl1", "precomputed"
    positions: int = 10
    stack: int = 1
    bound: float = 20.0
    quality: int = 95
    min_decoded: int = 4  # fewer frames in the file: few_frames
    of_folder: int = 0  # most positions of folders of u and v in place of a video; 0: none is read


@dataclass(frozen=True)
class Text:
    """Stored token ids, uint16 [n], special tokens included, at most `max_tokens`.

    `vocabulary`: "electra" (uncased WordPiece of 30,522), or the first digits of the SHA-256 of a
    vocab.txt of `words` lines; the file stands beside the samples as vocab.txt. With "build" the
    cleaned texts are stored in UTF-8, and become tokens when they are read, by a vocabulary of at
    most `words` made of the train part's texts of a split, which stands beside the split's file. A
    pair of texts is joined by the separator token and carries segment ids. `cleaning` names the
    rule of `data_prep.modalities.text.clean` that a text passes first; "" is none.
    """

    vocabulary: str = "electra"
    words: int = 30522
    max_tokens: int = 40
    pair: bool = False
    cleaning: str = ""

    @property
    def built(self) -> bool:
        """Whether the vocabulary is made of the texts, which are stored themselves then."""
        return self.vocabulary == "build"


@dataclass(frozen=True)
class Array:
    """A stored sequence of feature vectors, float32 [L, D], L at most `max_length`.

    Not finite numbers become 0 where `clean`, else they reject the sample. D is the data set's own
    and the same for all samples.
    """

    max_length: int = 512
    clean: bool = False
    origin: str = ""  # what else decides the samples where settings choose it: files, label rule


Modality = Audio | Video | Image | Flow | Text | Array
Spec = dict[str, Modality]
KINDS = {kind.__name__.lower(): kind for kind in (Audio, Video, Image, Flow, Text, Array)}


@dataclass(frozen=True, slots=True)  # a list may have a million
class Candidate:
    """One sample of a raw tree before decoding.

    `sources` maps a modality to the files that hold it, relative to the root, in the order in which
    they are tried. `group` names what must not be torn apart by a group split (actor, video);
    `part` is the official part, if the data set has one ("train", "val" or "test"). `inline` holds
    what is no file of its own: a modality's text, the row of a sample in a file of many, or the
    [start, end] of a video's event in seconds.
    """

    id: str
    label: int
    sources: dict[str, tuple[str, ...]]
    group: str = ""
    part: str = ""
    inline: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Rejection:
    """A line of rejected.csv."""

    id: str
    source: str
    reason: str
    detail: str = ""


@dataclass(frozen=True)
class Listed:
    """A row of the lists from which the release's split is drawn, usable or not.

    `key` is its class as the list writes it: its sorting order decides the draw. `header`: the
    release takes this row for a header and loses it.
    """

    id: str
    key: str | int
    header: bool = False


@dataclass
class Scan:
    """What a layout found under a root: candidates in id order, and what it could not use.

    `pool` are the rows of the raw data's lists in their order; None where it has none. `listed` is
    the number of samples that an own manifest names, usable or not; 0 for downloads, of which
    something is always missing.
    """

    label_names: tuple[str, ...]
    candidates: list[Candidate]
    rejected: list[Rejection] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    pool: list[Listed] | None = None
    listed: int = 0


@dataclass(frozen=True)
class AudioView:
    """How a stored spectrogram becomes an input: `window` columns of it (all when None).

    Training draws the window's start; evaluation takes the centre.
    """

    window: int | None = None


@dataclass(frozen=True)
class VideoView:
    """How stored frames become an input.

    `frames` of them: training draws one from each of as many segments, evaluation takes each
    segment's middle; `choice` is the rule of `transforms.choose_frames`. "crop_flip": one
    RandomResizedCrop and a flip, shared by all frames of a clip; "flip": the flip alone;
    "rotate_flip": a rotation by up to 30 degrees, then the flip; "none": the frames as they are,
    resized. The coin for the flip is tossed once a sample, for all of its modalities: flow and
    frames turn together, and u changes its sign. "crop_flip_apart" and "flip_apart" instead draw
    for each picture apart, and u keeps its sign.
    """

    frames: int = 3
    augment: str = "crop_flip"
    choice: str = "segments"


@dataclass(frozen=True)
class PlainView:
    """Token ids and feature sequences become inputs as they are, padded to their largest length."""


View = AudioView | VideoView | PlainView


def spec_json(dataset: str, spec: Spec) -> dict:
    """The spec as JSON-able values, with everything that decides the stored content."""
    modalities = {name: {"kind": type(m).__name__.lower(), **asdict(m)} for name, m in spec.items()}
    return {"version": VERSION, "dataset": dataset, "order": list(spec), "modalities": modalities}


def spec_from_json(value: dict) -> Spec:
    """The inverse of `spec_json`; raises `UsageError` for what it cannot have written."""
    spec = {}
    try:
        for name in value["order"]:
            told = dict(value["modalities"][name])
            kind = KINDS[told.pop("kind")]
            spec[name] = kind(**told)
            for each in fields(kind):
                if not fits(getattr(spec[name], each.name), each.type):
                    raise ValueError(f"{each.name} of {name}")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(
            f"the stored form of the samples is damaged ({shown(str(error))})"
        ) from None
    return spec


def fits(value: Any, kind: Any) -> bool:
    """Whether a field annotated with `kind` may hold the value; a whole number is a number, too."""
    if isinstance(value, float) and not math.isfinite(value):
        return False
    return isinstance(value, kind) or isinstance(value, int) and isinstance(0.5, kind)


def spec_hash(dataset: str, spec: Spec) -> str:
    """Twelve hexadecimal digits that name the prepared folder."""
    return digest(spec_json(dataset, spec))
