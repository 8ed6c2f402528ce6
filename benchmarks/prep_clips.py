"""Clips for `prep_throughput.py`, of the forms of Kinetics-Sounds and CREMA-D."""

from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

if __name__ == "__main__":
    raise SystemExit("the program is prep_throughput.py, which reads this file")

import av
import cv2
import numpy as np

from data_prep.digits import write_wav
from fixtures.media import write_video

FPS = 30
WAV_RATE = 16000  # Hz, of CREMA-D's wav files
TRACK_RATE = 44100  # Hz, of the mp4 files' sound
MP4 = {"gop250": 250, "gop60": 60}  # kind -> frames from keyframe to keyframe


class Clip(NamedTuple):
    """A clip's files, which are one and the same for mp4."""

    video: Path
    sound: Path


def make_frames(
    draw: np.random.Generator, count: int, size: tuple[int, int], grain: float
) -> np.ndarray:
    """uint8 [count, H, W, 3] for `size` (W, H): smooth noise that drifts, under fresh grain.

    `grain`: its standard deviation in grey levels, which decides how many bits the clips take.
    """
    width, height = size
    cells = draw.integers(0, 256, (2, 9, 12, 3)).astype(np.float32)
    far, near = (
        cv2.resize(c, (2 * width, 2 * height), interpolation=cv2.INTER_CUBIC) for c in cells
    )
    noise = draw.normal(0, grain, (height + 64, width + 64, 3)).astype(np.float32)
    frames = np.empty((count, height, width, 3), np.uint8)
    shifts = draw.integers(0, 64, (count, 2))
    for t, (down, right) in enumerate(shifts):
        x, y = (
            round(side / 2 * (1 + np.sin(t / 97 + phase)))
            for phase, side in ((0, width), (1, height))
        )
        picture = 0.6 * far[y : y + height, x : x + width]
        picture += 0.4 * near[height - y : 2 * height - y, width - x : 2 * width - x]
        picture += noise[down : down + height, right : right + width]
        np.clip(picture, 0, 255, out=picture)
        frames[t] = picture
    return frames


def make_wave(draw: np.random.Generator, seconds: float, rate: int, channels: int) -> np.ndarray:
    """Pink noise, float32 [channels, n]."""
    n = int(seconds * rate)
    spectrum = np.fft.rfft(draw.normal(size=(channels, n)))
    pink = np.fft.irfft(spectrum / np.sqrt(np.arange(spectrum.shape[1]) + 1), n)
    return (0.3 * pink / np.abs(pink).max()).astype(np.float32)


def write_mp4(path: Path, frames: np.ndarray, gop: int, sound: np.ndarray) -> None:
    """H.264 with a keyframe every `gop` frames and nowhere else, AAC stereo [2, n] at 44.1 kHz.

    The file's size differs from run to run by some thousandths: with this preset, at a width that
    is no multiple of 16, libx264 does not give the same bits twice.
    """
    options = {"preset": "veryfast", "crf": "21", "sc_threshold": "0"}
    with av.open(str(path), "w", options={"movflags": "+faststart"}) as out:
        video = out.add_stream("libx264", rate=FPS, options=options)
        video.height, video.width = frames.shape[1:3]
        video.pix_fmt, video.gop_size = "yuv420p", gop
        audio = out.add_stream("aac", rate=TRACK_RATE, layout="stereo")
        packets = []
        for pixels in frames:
            packets += video.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24"))
        packets += video.encode()
        whole = av.AudioFrame.from_ndarray(sound, format="fltp", layout="stereo")
        whole.sample_rate, whole.pts, whole.time_base = TRACK_RATE, 0, Fraction(1, TRACK_RATE)
        packets += audio.encode(whole) + audio.encode()
        for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
            out.mux(packet)


def make_clips(
    root: Path,
    count: int,
    seconds: float = 10.0,
    size: tuple[int, int] = (340, 256),
    small: tuple[int, int] = (480, 360),
) -> dict[str, list[Clip]]:
    """`count` clips of each kind: mp4 of `seconds` and `size`, flv of a quarter and `small`."""
    clips: dict[str, list[Clip]] = {kind: [] for kind in (*MP4, "flv")}
    for index in range(count):
        draw = np.random.default_rng(index)
        frames = make_frames(draw, int(seconds * FPS), size, 6)
        sound = make_wave(draw, seconds, TRACK_RATE, 2)
        for kind, gop in MP4.items():
            path = root / f"{kind}-{index}.mp4"
            write_mp4(path, frames, gop, sound)
            clips[kind].append(Clip(path, path))
        frames = make_frames(draw, int(seconds / 4 * FPS), small, 3)
        voice = make_wave(draw, seconds / 4, WAV_RATE, 1)[0]
        clip = Clip(root / f"flv-{index}.flv", root / f"flv-{index}.wav")
        write_video(clip.video, frames, FPS, "flv1", audio=voice, audio_rate=WAV_RATE)
        write_wav(clip.sound, voice, WAV_RATE)
        clips["flv"].append(clip)
    return clips
