"""What a prepared sample is: the settings that decide its content, and the hash that names them.

A `Spec` maps each modality, in the data set's order, to the description of its stored form. Its
JSON form is stored with the data, and its hash names the folder: two preparations with the same
hash hold the same content, and a reader that expects another hash refuses.
"""

from dataclasses import asdict, dataclass, field

from common.files import digest

# Raised whenever the content that equal settings produce changes.
VERSION = 2  # 2: raw frames of no fixed size carry it

# Why a raw file did not become a sample. `rejected.csv` holds one of these codes a line.
REASONS = {
    "lfs_pointer": "a git-lfs pointer instead of the file: run `git lfs pull` in the raw folder",
    "unreadable": "empty, not a media file, or a container that does not open",
    "truncated": "the file ends early and less than 3 s of it decode",
    "no_audio": "no audio track (and no other file that has one)",
    "silent": "no sound in the track, and --drop_silent was asked",
    "no_video": "no video track",
    "few_frames": "fewer frames decode than a sample needs",
    "bad_values": "the decoded values are not finite",
    "decoder_crash": "the decoder crashed or hung on this file",
    "unknown_name": "the name fits no file of this data set",
    "missing_file": "a list names the file, and it is not there",
    "no_label": "neither a list nor the folder tells its class",
    "label_conflict": "list and folder tell different classes: the list was taken",
    "duplicate": "the same id stands elsewhere: the first was taken",
}
# Findings that are written to rejected.csv although the sample itself is kept.
KEPT_REASONS = ("label_conflict",)


class Reject(Exception):
    """A file that cannot become a sample; `reason` is a key of `REASONS`."""

    def __init__(self, reason: str, detail: str = ""):
        assert reason in REASONS, reason
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


@dataclass(frozen=True)
class Audio:
    """A stored log spectrogram, float16 [F, T], frequency first, time last.

    "stft": mono wave, tiled and cut to `seconds`, clipped to [-1, 1]; periodic Hann window of
    `n_fft`, centred, zero padding; ln(|S| + 1e-7).
    "fbank": Kaldi log-mel filter bank of the first `seconds`, mean removed, 25 ms windows each
    10 ms, zero-padded or cut at `frames` (before any normalisation, as the field's script does).
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
    the frames shown at (j + 0.5) / positions of the duration. The frame of a time is the latest one
    that is not after it.
    """

    fps: float | None = None
    positions: int | None = None
    max_frames: int = 10
    min_frames: int = 1  # fewer stored ones: the last is repeated
    min_decoded: int = 3  # fewer in the file: few_frames
    short_side: int | None = 256  # longer frames are scaled down to it, aspect kept
    square: int | None = None  # or: area-resized to square x square
    codec: str = "jpeg"
    quality: int = 95
    missing: str = "reject"  # or "fill": repeat what decodes, black where nothing does, and a flag


Modality = Audio | Video
Spec = dict[str, Modality]
KINDS = {"audio": Audio, "video": Video}


@dataclass(frozen=True)
class Candidate:
    """One sample of a raw tree before decoding.

    `sources` maps a modality to the files that hold it, relative to the root, in the order in which
    they are tried. `group` names what must not be torn apart by a group split (actor, video);
    `part` is the official part, if the data set has one ("train", "val" or "test").
    """

    id: str
    label: int
    sources: dict[str, tuple[str, ...]]
    group: str = ""
    part: str = ""


@dataclass(frozen=True)
class Rejection:
    """A line of rejected.csv."""

    id: str
    source: str
    reason: str
    detail: str = ""


@dataclass
class Scan:
    """What a layout found under a root: candidates in id order, and what it could not use."""

    label_names: tuple[str, ...]
    candidates: list[Candidate]
    rejected: list[Rejection] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class AudioView:
    """How a stored spectrogram becomes an input: `window` columns of it (all when None).

    Training draws the window's start; evaluation takes the centre.
    """

    window: int | None = None


@dataclass(frozen=True)
class VideoView:
    """How stored frames become an input.

    `frames` of them: training draws one from each of as many equal segments, evaluation takes each
    segment's middle. "crop_flip": one RandomResizedCrop and one coin for a flip, shared by all
    frames of a clip; "none": the frames as they are, resized.
    """

    frames: int = 3
    augment: str = "crop_flip"


def spec_json(dataset: str, spec: Spec) -> dict:
    """The spec as JSON-able values, with everything that decides the stored content."""
    modalities = {name: {"kind": type(m).__name__.lower(), **asdict(m)} for name, m in spec.items()}
    return {"version": VERSION, "dataset": dataset, "order": list(spec), "modalities": modalities}


def spec_from_json(value: dict) -> Spec:
    """The inverse of `spec_json`."""
    spec = {}
    for name in value["order"]:
        fields = dict(value["modalities"][name])
        spec[name] = KINDS[fields.pop("kind")](**fields)
    return spec


def spec_hash(dataset: str, spec: Spec) -> str:
    """Twelve hexadecimal digits that name the prepared folder."""
    return digest(spec_json(dataset, spec))
