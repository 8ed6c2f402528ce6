"""One sample's files as arrays: what the decoders return, and the rules for the sample as a whole.

`extract_sample` is what a worker calls. Whatever a file's content, it ends in a result or in a
`Reject`; any other exception is a defect of this program.
"""

import importlib
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import av
import numpy as np

from data_prep.modalities.mp4 import check_index
from data_prep.reasons import Reject
from data_prep.spec import (
    Array,
    Audio,
    Candidate,
    Flow,
    Image,
    Modality,
    Spec,
    Text,
    Video,
)

# Imported when a modality is met: a video-only data set does not pay for torch's start-up.
EXTRACTORS = {
    Audio: "data_prep.modalities.audio",
    Video: "data_prep.modalities.video",
    Image: "data_prep.modalities.image",
    Flow: "data_prep.modalities.flow",
    Text: "data_prep.modalities.text",
    Array: "data_prep.modalities.array",
}

# FFmpeg's names of the containers that hold sound and pictures themselves.
FORMATS = (
    "mov", "mp4", "m4a", "3gp", "3g2", "mj2", "matroska", "webm", "avi", "flv", "live_flv", "mpeg",
    "mpegts", "mpegvideo", "m4v", "h264", "hevc", "asf", "ogg", "wav", "w64", "aiff", "au", "caf",
    "mp3", "aac", "ac3", "flac", "ivf", "mxf", "rm", "nut", "swf", "dv", "gif", "amr",
)  # fmt: skip
OPTIONS = {"protocol_whitelist": "file", "format_whitelist": ",".join(FORMATS)}

LFS_HEAD = b"version https://git-lfs"
LFS_SIZE = 200  # bytes; a pointer is about 130


@dataclass
class Extracted:
    """A stored modality: its content, and what the manifest says about it.

    `payload`: float16 [F, T] of a spectrogram; for frames a list of JPEG bytes or of uint8
    [H, W, 3]; for flow a list of images' bytes; for text [uint16 ids, uint8 segments], or the UTF-8
    of one or two texts; for an array [int32 (L, D), float32 values]. `duration_s`: seconds found in
    the file, 0 where there is no time. `n_frames`: frames, columns, tokens (words of a text that is
    stored itself) or vectors found, 0 where the modality was filled. `used`: which of several files
    it is from.
    """

    payload: np.ndarray | list
    flags: tuple[str, ...]
    duration_s: float
    n_frames: int
    used: int = 0


def is_lfs_pointer(path: Path) -> bool:
    """Whether the file is the small text that git-lfs leaves in place of a file not yet pulled."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode) or status.st_size >= LFS_SIZE:
            return False  # a pipe must not be opened: nobody may ever write to it
        return path.read_bytes().startswith(LFS_HEAD)
    except OSError:  # the decoder says what is wrong with it
        return False


def open_container(path: Path) -> av.container.InputContainer:
    """Opens a media file by its content; its name and its extension decide nothing.

    Raises `Reject`: "missing_file", "truncated" for an mp4 whose index (moov) is not there, as an
    interrupted download leaves it, or counts what the file cannot hold, else "unreadable".
    """
    check_index(path)
    try:
        # "file:" keeps a colon in a name from being read as a protocol, and the list of allowed
        # protocols keeps what poses as a video from reaching the network, the list of formats a
        # playlist from reading other files. Tags in other encodings than UTF-8 are common, and no
        # reason to refuse a clip.
        container = av.open(f"file:{path}", options=OPTIONS, metadata_errors="replace")
    except av.error.FileNotFoundError:
        raise Reject("missing_file", path.name) from None
    except av.error.FFmpegError as error:
        if not isinstance(error, OSError) and _lacks_moov(path):
            raise Reject("truncated", f"{path.name}: an mp4 without its index (moov)") from None
        raise Reject("unreadable", f"{path.name}: {error.strerror}") from None
    if not container.streams.video and not container.streams.audio:
        container.close()
        if _lacks_moov(path):
            raise Reject("truncated", f"{path.name}: an mp4 that ends within its index (moov)")
        raise Reject("unreadable", f"{path.name}: neither picture nor sound")
    return container


def demux(
    container: av.container.InputContainer, *streams: av.stream.Stream
) -> Iterator[av.Packet]:
    """The packets of the streams (all without any named); raises FFmpeg's errors where it stops."""
    try:
        yield from container.demux(*streams)
    except IndexError:
        # PyAV 18 raises it after the last packet when a damaged file has announced one more stream
        # while it was being read.
        return


def _lacks_moov(path: Path) -> bool:
    """Whether the file begins like an mp4 and holds no complete moov box at its top level."""
    size = path.stat().st_size
    with open(path, "rb") as handle:
        if handle.read(8)[4:] != b"ftyp":
            return False
        position = 0
        while position + 8 <= size:
            handle.seek(position)
            head = handle.read(16)
            length = int.from_bytes(head[:4], "big")
            if length == 1:  # the true length follows in 64 bits
                length = int.from_bytes(head[8:16], "big")
            if length < 8:  # 0: until the end of the file; less is no box
                return head[4:8] != b"moov"
            if head[4:8] == b"moov":
                return position + length > size
            position += length
    return True


def the_file(paths: Sequence[Path], absent: str) -> Path:
    """The one file of `paths`; raises `Reject` with the reason `absent` where there is none."""
    if not paths:
        raise Reject(absent, "no file holds this modality")
    (path,) = paths
    return path


def extract_sample(
    root: Path, candidate: Candidate, spec: Spec, assets: Path | None = None
) -> dict[str, Extracted]:
    """All modalities of a candidate, in the order of `spec`.

    `assets` is the folder that holds what belongs to the set as a whole: vocab.txt, by which texts
    become tokens.

    Raises `Reject`: "lfs_pointer" when any source is a pointer, whatever else could stand in for
    it; "unreadable" when one is no file, or every modality had to be filled; and what the decoders
    raise.
    """
    sources = {name: [root / path for path in candidate.sources.get(name, ())] for name in spec}
    for path in dict.fromkeys(path for paths in sources.values() for path in paths):
        if is_lfs_pointer(path):
            raise Reject("lfs_pointer", path.name)
        if path.exists() and not path.is_file() and not path.is_dir():
            raise Reject("unreadable", f"{path.name}: a pipe, socket or device, not a file")

    def extract(name: str, paths: Sequence[Path], modality: Modality) -> Extracted:
        read = importlib.import_module(EXTRACTORS[type(modality)]).extract
        if isinstance(modality, Text):
            return read(candidate.inline[name], modality, assets)
        if isinstance(modality, Array | Video):
            return read(paths, modality, candidate.inline.get(name))
        return read(paths, modality)

    sample: dict[str, Extracted] = {}
    for name, modality in spec.items():
        paths = sources[name]
        if name in sample:
            continue
        if len(paths) < 2 or _is_pair(modality, paths):
            sample[name] = extract(name, paths, modality)
        else:
            same = [m for m in spec if sources[m] == paths]
            sample |= _of_one_file({m: spec[m] for m in same}, paths, extract)
    if not any(part.n_frames for part in sample.values()):
        raise Reject("unreadable", "nothing decodes in any modality")
    return {name: sample[name] for name in spec}


def _is_pair(modality: Modality, paths: Sequence[Path]) -> bool:
    """Whether the paths are the folders of u and v of precomputed flow, which belong together."""
    if not isinstance(modality, Flow):
        return False
    return modality.algorithm == "precomputed" or bool(modality.of_folder and paths[0].is_dir())


def _of_one_file(
    spec: Spec, paths: Sequence[Path], extract: Callable[[str, Sequence[Path], Modality], Extracted]
) -> dict[str, Extracted]:
    """The modalities that the same files hold, of the first file that gives them all in full.

    Where none does, of the first that gives them all, if cut off; only then stand-ins for what is
    missing are allowed. Raises `Reject`: the reason of the first file, which is the one to repair,
    and the details of all.
    """
    failures = []
    for fill in (False, True):
        usable = []
        for number, path in enumerate(paths):
            try:
                found = {
                    name: extract(name, [path], m if fill else strict(m))
                    for name, m in spec.items()
                }
            except Reject as failure:
                failures.append(failure)
                continue
            more = (f"source={path.suffix[1:].lower()}",) if number else ()
            usable.append(
                {
                    name: replace(part, flags=part.flags + more, used=number)
                    for name, part in found.items()
                }
            )
            if not fill and not any("truncated" in part.flags for part in found.values()):
                return usable[-1]
        if usable and not fill:
            return usable[0]
        if usable:  # the one with the fewest stand-ins
            return max(usable, key=lambda found: sum(p.n_frames > 0 for p in found.values()))
        if not any(getattr(m, "missing", "") == "fill" for m in spec.values()):
            break
    details = [failure.detail or failure.reason for failure in failures[: len(paths)]]
    raise Reject(failures[0].reason, "; ".join(details))


def strict(modality: Modality) -> Modality:
    """The modality without stand-ins: what does not decode is rejected."""
    return replace(modality, missing="reject") if hasattr(modality, "missing") else modality
