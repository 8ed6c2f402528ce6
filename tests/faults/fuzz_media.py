"""Fuzzer targets: pictures, sound and video, for the decoders of a worker process."""

import io
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import soundfile
from clips import noise, texture, write_clip
from fuzz_targets import Read, Target

from data_prep.digits import write_wav
from data_prep.modalities import Modality
from data_prep.modalities.audio import Audio
from data_prep.modalities.flow import Flow
from data_prep.modalities.image import Image
from data_prep.modalities.video import Video
from data_prep.reasons import Reject
from fixtures.media import write_video

PNG = b"\x89PNG\r\n\x1a\n"
SOUND = Audio(sample_rate=16000, seconds=0.5, n_fft=256, hop=128)
BANK = Audio("fbank", sample_rate=16000, seconds=0.5, frames=50)
PICTURES = {  # format -> modes
    "png": ("RGB", "RGBA", "P", "L", "I;16"), "jpeg": ("RGB", "L", "CMYK"), "gif": ("P",),
    "webp": ("RGB", "RGBA"), "bmp": ("RGB", "P", "1"),
}  # fmt: skip
# name -> (codec, container, an index in front)
CLIPS = {
    "avi": ("mpeg4", None, True), "flv": ("flv1", None, True), "mp4": ("h264", None, True),
    "mkv": ("h264", "matroska", True), "mp4.end": ("h264", None, False),
}  # fmt: skip


def frames(count: int = 10) -> np.ndarray:
    """A moving texture: uint8 [count, 24, 32, 3]."""
    still = np.repeat(texture(24, 32)[..., None], 3, axis=2)
    return np.stack([np.roll(still, (k, 2 * k), (0, 1)) for k in range(count)])


def picture(kind: str, mode: str = "RGB") -> bytes:
    """A picture of 32 x 24 pixels."""
    out = io.BytesIO()
    PIL.Image.fromarray(frames(1)[0]).convert(mode).save(out, kind, quality=90)
    return out.getvalue()


def _pictures(kind: str) -> Callable[[Path], list[bytes]]:
    return lambda folder: [picture(kind, mode) for mode in PICTURES[kind]]


def _clip(kind: str) -> Callable[[Path], list[bytes]]:
    def seeds(folder: Path) -> list[bytes]:
        codec, container, front = CLIPS[kind]
        wave = None if kind == "avi" else np.sin(np.arange(8000) / 20)
        write_video(
            folder / "a", frames(), 10, codec, audio=wave, container=container, faststart=front
        )
        return [(folder / "a").read_bytes()]

    return seeds


def _waves(folder: Path) -> list[bytes]:
    wave = np.sin(np.arange(4000) / 20).astype(np.float32)
    write_wav(folder / "a.wav", wave, 16000)
    soundfile.write(folder / "b.wav", np.stack([wave, -wave], 1), 8000, subtype="FLOAT")
    soundfile.write(folder / "c.wav", wave, 44100, subtype="PCM_24", format="WAVEX")
    soundfile.write(folder / "d.flac", wave, 22050)
    return [(folder / name).read_bytes() for name in ("a.wav", "b.wav", "c.wav", "d.flac")]


def _tracks(folder: Path) -> list[bytes]:
    kinds = {"a.m4a": "aac", "a.mp3": "libmp3lame", "a.ogg": "libvorbis", "a.avi": "pcm_s16le"}
    made = []
    for name, codec in kinds.items():
        try:
            made.append(write_clip(folder / name, 0, wave=noise(0.3), sound=codec).read_bytes())
        except ValueError:  # an FFmpeg without this encoder
            continue
    return made


def with_checksums(data: bytes) -> bytes:
    """A PNG with corrected chunk checksums, so that decoders read further."""
    if not data.startswith(PNG):
        return data
    out, at = bytearray(PNG), len(PNG)
    while at + 12 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4], "big")
        if end + 4 > len(data):
            break
        out += data[at:end] + zlib.crc32(data[at + 4 : end]).to_bytes(4, "big")
        at = end + 4
    return bytes(out + data[at:])


def decoder(
    name: str, modalities: Sequence[Modality], mend: Callable[[bytes], bytes] = bytes
) -> Callable[[Path], Read]:
    """Sets up several decoders of one file; the last error counts."""

    def reader(folder: Path) -> Read:
        path = folder / name

        def feed(data: bytes) -> None:
            path.write_bytes(mend(data))
            failure = None
            for modality in modalities:
                try:
                    modality.extract([path], None, None)
                except Reject as reject:
                    failure = reject
            if failure:
                raise failure

        return feed

    return reader


def _in_folders(kind: str) -> Callable[[Path], Read]:
    """A picture in a folder of frames, or in two folders of precomputed flow."""

    def reader(folder: Path) -> Read:
        places = [folder / "u", folder / "v"]
        for place in places:
            place.mkdir(exist_ok=True)
            for k in (1, 2, 3):
                (place / f"frame{k:05d}.jpg").write_bytes(picture("jpeg", "L"))

        def feed(data: bytes) -> Any:
            (places[0] / "frame00002.jpg").write_bytes(data)
            if kind == "frames":
                return Video(fps=1.0, of_folder=5).extract(places[:1], None, None)
            return Flow(positions=3, of_folder=5).extract(places, None, None)

        return feed

    return reader


MOVING = (
    Video(positions=3),
    Video(fps=2.0, missing="fill"),
    Audio("fbank", seconds=0.5, frames=50, missing="fill"),
)
FLOWS = (Flow("farneback", positions=2), Flow("dis", positions=1))
HEARD = (SOUND, BANK)
PICTURE = (Image(),)

TARGETS = {
    "sound.wav": Target(_waves, decoder("a.wav", HEARD), 8, True),
    "sound.track": Target(_tracks, decoder("a.bin", HEARD), 8, True),
    **{
        f"image.{kind}": Target(_pictures(kind), decoder("a.jpg", PICTURE, with_checksums), 5, True)
        for kind in PICTURES
    },
    **{f"video.{kind}": Target(_clip(kind), decoder("a.mp4", MOVING), 6, True) for kind in CLIPS},
    **{f"flow.{kind}": Target(_clip(kind), decoder("a.mp4", FLOWS), 4, True) for kind in CLIPS},
    "image.frames": Target(_pictures("jpeg"), _in_folders("frames"), 3, True),
    "image.flow": Target(_pictures("jpeg"), _in_folders("flow"), 3, True),
}
