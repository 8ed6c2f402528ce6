"""Media files for the tests, in which every frame and every sample is known."""

from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from data_prep.modalities.base import Extracted, Modality
from data_prep.reasons import Reject

STEP, FIRST = 5, 20  # grey level of frame i: FIRST + STEP * i, at most 47 frames


def write_clip(
    path: Path, times: list[int] | int = 30, *, codec="libx264", gop=10, size=(64, 48), rate=10,
    options=None, container=None, image=None, turn=None, wave=None, sound="aac",
) -> Path:  # fmt: skip
    """A clip whose frame i is grey FIRST + STEP * i at `times[i]` ms, or all of them at `rate`.

    `image` [H, W, 3] or [N, H, W, 3] instead of grey; `turn` in degrees counter-clockwise; `wave`
    float32 [channels, n] at 44,100 Hz.
    """
    count, unit = times if isinstance(times, int) else len(times), Fraction(1, 1000)
    with av.open(str(path), "w", options=container or {}) as out:
        picture = out.add_stream(codec, rate=rate, options=options or {}) if count else None
        if picture:
            picture.width, picture.height = size
            picture.pix_fmt, picture.gop_size = "yuv420p", gop
            if not isinstance(times, int):
                picture.codec_context.time_base = unit
            if codec != "libx264":  # quantisation fine enough to separate neighbouring grey levels
                picture.options = {"qmin": "1", "qmax": "2", **(options or {})}
            if turn is not None:
                picture.set_display_rotation(turn)
        voice = None
        if wave is not None:
            layout = "stereo" if wave.shape[0] == 2 else "mono"
            voice = out.add_stream(sound, rate=44100, layout=layout)
        for i in range(count):
            level = np.full((size[1], size[0], 3), (FIRST + STEP * i) % 256, np.uint8)
            if image is not None:
                level = image[i] if image.ndim == 4 else image
            frame = av.VideoFrame.from_ndarray(level, "rgb24")
            if not isinstance(times, int):
                frame.pts, frame.time_base = times[i], unit
            out.mux(picture.encode(frame))
        if picture:
            out.mux(picture.encode(None))
        if voice:
            write_wave(out, voice, wave)
    return path


def texture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Grey [H, W] in 0..255 with detail of about four pixels."""
    draw = np.random.default_rng(seed).standard_normal((height, width)).astype(np.float32)
    blurred = cv2.GaussianBlur(draw, (0, 0), 2)
    return np.clip(128 + 45 * blurred / blurred.std(), 0, 255).astype(np.uint8)


def pack(path: Path, count: int) -> Path:
    """An avi whose B-frames share a packet with the previous frame, as DivX and XviD write them.

    Frame k is grey FIRST + STEP * k in its upper part. A frame that is not coded replaces each one
    that moved, and user data signal this to the decoder.
    """
    coder = av.CodecContext.create("mpeg4", "w")
    coder.width, coder.height, coder.pix_fmt, coder.gop_size = 64, 48, "yuv420p", 12
    coder.time_base, coder.framerate = Fraction(1, 25), Fraction(25)
    coder.options, coder.qmin, coder.qmax = {"bf": "1"}, 2, 2
    still = np.repeat(texture(48, 64)[..., None], 3, axis=2) // 2
    packets = []
    for k in range(count):
        still[:16] = FIRST + STEP * k
        frame = av.VideoFrame.from_ndarray(still, "rgb24")
        frame.pts, frame.time_base = k, coder.time_base
        packets += coder.encode(frame)
    coded, start = [bytes(p) for p in packets + coder.encode(None)], b"\0\0\1\xb6"
    kinds = ["IPBS"[data[data.index(start) + 4] >> 6] for data in coded]
    with av.open(str(path), "w", format="avi") as out:
        stream = out.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        written = []
        for data, kind in zip(coded, kinds):
            if kind == "B":
                written[-1] += data
                data = start + b"\x50\x4f"
            elif kind == "I":
                place = data.index(start)
                data = data[:place] + b"\0\0\1\xb2DivX503b1393p" + data[place:]
            written.append(data)
        for k, data in enumerate(written):
            packet = av.Packet(data)
            packet.stream, packet.pts, packet.dts, packet.time_base = stream, k, k, Fraction(1, 25)
            packet.is_keyframe = b"DivX" in data
            out.mux(packet)
    assert kinds.count("B") > count // 3
    return path


def write_wave(out, stream, wave: np.ndarray) -> None:
    """Encodes `wave` in the sample format of the codec."""
    formats = {"pcm_s16le": "s16", "pcm_u8": "u8", "pcm_f32le": "flt"}
    kind = formats.get(stream.codec_context.name, "fltp")
    values = {"s16": wave * 32768, "u8": wave * 128 + 128}.get(kind, wave)
    values = values.astype({"s16": np.int16, "u8": np.uint8}.get(kind, np.float32))
    for k in range(0, wave.shape[1], 1024):
        chunk = values[:, k : k + 1024]
        chunk = chunk if kind == "fltp" else chunk.T.reshape(1, -1)  # interleaved
        layout = stream.codec_context.layout.name
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(chunk), kind, layout)
        frame.sample_rate, frame.pts, frame.time_base = 44100, k, Fraction(1, 44100)
        out.mux(stream.encode(frame))
    out.mux(stream.encode(None))


def noise(seconds: float, channels: int = 2, rate: int = 44100) -> np.ndarray:
    values = np.random.default_rng(0).normal(0, 0.1, (channels, int(seconds * rate)))
    return values.astype(np.float32)


def index_of(image: np.ndarray) -> int:
    return round((float(image.mean()) - FIRST) / STEP)


def rejection(call, *args) -> str:
    """The reason why a call rejects a sample."""
    with pytest.raises(Reject) as caught:
        call(*args)
    return caught.value.reason


def extract(modality: Modality, *paths: Path, inline=None, folder=None) -> Extracted:
    return modality.extract(paths, inline, folder)


def refused(modality: Modality, *paths: Path, inline=None) -> str:
    return rejection(modality.extract, paths, inline, None)


def images(video: Modality, path: Path) -> list[np.ndarray]:
    """The stored frames of a file, uint8 [H, W, 3] each."""
    return [video.unpack(stored) for stored in extract(video, path).payload]


def hidden_start(whole: Path, path: Path, seconds: float) -> Path:
    """A copy of an mp4 whose edit list hides the first `seconds`."""
    with av.open(str(whole)) as source, av.open(str(path), "w") as out:
        stream = source.streams.video[0]
        copy, shift = out.add_stream_from_template(stream), int(seconds / stream.time_base)
        for packet in source.demux(stream):
            if packet.size:
                packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, copy
                out.mux(packet)
    return path


def cut(path: Path, share: float) -> Path:
    data = path.read_bytes()
    short = path.with_name(f"cut-{path.name}")
    short.write_bytes(data[: int(len(data) * share)])
    return short
