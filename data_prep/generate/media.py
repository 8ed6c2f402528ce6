"""What every generator needs: media files of set quality, whole folders, worker processes.

Encoders run single-threaded with an explicit quality: the same frames give the same file, and no
rate control starves the later frames of a clip (an encoder left to its default does just that).
"""

import contextlib
import functools
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import soundfile
from tqdm import tqdm

from common.files import locked, sync_folder
from common.options import UsageError
from common.program import cores
from data_prep.workers import DONE, Crew

# codec -> (PyAV video encoder, container, audio encoder, quantiser, encoder options)
CODECS = {
    "mpeg4": ("mpeg4", "avi", None, 3, {}),
    "flv1": ("flv", "flv", "libmp3lame", 3, {}),
    "h264": ("libx264", "mp4", "aac", None, {"preset": "ultrafast", "crf": "30"}),
}
TRACK_RATE = 44100  # Hz of every muxed audio track: flv with mp3 takes this, its half or quarter
CHUNK = 8  # clips handed to a worker at once: less waiting on the pipe


def write_wav(path: Path, wave: np.ndarray, rate: int) -> None:
    """Mono 16-bit PCM; `wave` is float [n], clipped to [-1, 1]."""
    soundfile.write(path, np.clip(wave, -1.0, 1.0), rate, subtype="PCM_16")


def write_video(
    path: Path,
    frames: np.ndarray,
    fps: int,
    codec: str,
    *,
    audio: np.ndarray | None = None,
    audio_rate: int = 16000,
    faststart: bool = True,
    container: str | None = None,
    fps_tag: int | None = None,
) -> None:
    """A video file of `frames`, uint8 [T, H, W, 3] RGB, shown `fps` a second; H and W even.

    `audio`, float [n] at `audio_rate` Hz, becomes a mono track of 44.1 kHz. `container` overrides
    the codec's own (the name of the file decides nothing). `faststart` puts the index of an mp4 in
    front of the media data. `fps_tag` is a frame rate written into the header in place of the true
    one; the presentation times stay true (flv and Matroska carry such a tag, mp4 and avi do not).
    """
    encoder, home, audio_encoder, quantiser, options = CODECS[codec]
    container = container or home
    extra = {"fflags": "+bitexact"}  # no random ids in the header
    if container == "mp4" and faststart:
        extra["movflags"] = "+faststart"
    with av.open(str(path), "w", format=container, options=extra) as out:
        video = out.add_stream(encoder, rate=fps_tag or fps, options=dict(options))
        video.height, video.width = frames.shape[1:3]
        video.pix_fmt = "yuv420p"
        video.codec_context.thread_count = 1
        if quantiser is not None:
            video.codec_context.qmin = video.codec_context.qmax = quantiser
        track = None
        if audio is not None:
            track = out.add_stream(audio_encoder, rate=TRACK_RATE, layout="mono")
        packets = _video_packets(video, frames, fps)
        if track is not None:
            packets += _audio_packets(track, audio, audio_rate)
        # In the order of time, so that a cut file loses the end of both tracks alike.
        packets.sort(key=lambda packet: packet.dts * packet.time_base)
        for packet in packets:
            out.mux(packet)


def _video_packets(stream: Any, frames: np.ndarray, fps: int) -> list:
    packets = []
    base = Fraction(1, fps) if stream.average_rate == fps else Fraction(1, 1000)
    for k, pixels in enumerate(frames):
        frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
        frame.pts, frame.time_base = round(Fraction(k, fps) / base), base
        packets += stream.encode(frame)
    return packets + stream.encode()


def _audio_packets(stream: Any, wave: np.ndarray, rate: int) -> list:
    samples = np.ascontiguousarray(np.clip(wave, -1.0, 1.0), dtype=np.float32)[None]  # [1, n]
    frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
    return stream.encode(frame) + stream.encode()


def refuse_used(root: Path) -> None:
    """Raises `UsageError` unless `root` is free: absent or an empty folder."""
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise UsageError(f"{root} exists and is not empty: name a new folder, or remove it first")


@contextlib.contextmanager
def whole_folder(root: Path, truth_path: Path) -> Iterator[Path]:
    """A hidden folder beside `root` to write into; it becomes `root` at the end, or goes away.

    So a stopped or killed generation never looks finished. Raises `UsageError` when `root` is in
    use or would hold `truth_path`, and `common.files.Busy` while another process generates it.
    """
    root, truth_path = root.absolute(), truth_path.absolute()
    if truth_path.is_relative_to(root):
        raise UsageError(f"the truth {truth_path} must lie outside the raw root {root}")
    refuse_used(root)
    busy = f"another process is writing {root}; wait for it"
    part = root.with_name(f".{root.name}.part")
    # Not a name that a caller might lock around this: a second lock would wait for the first.
    with locked(part.with_name(f"{part.name}.lock"), busy):
        refuse_used(root)  # another process may have finished it just now
        shutil.rmtree(part, ignore_errors=True)  # what a killed generation left; we hold the lock
        part.mkdir()
        try:
            yield part
            os.replace(part, root)
            sync_folder(root.parent)
        finally:
            shutil.rmtree(part, ignore_errors=True)


def _run_chunk(work: Callable, chunk: Sequence) -> list:
    return [work(job) for job in chunk]


def run_jobs(work: Callable, jobs: Sequence, workers: int | None, what: str) -> list:
    """`[work(job) for job in jobs]`, in `workers` processes (None: one a core), with a bar.

    One worker means this very process. A job that fails ends the whole with a `RuntimeError`.
    """
    workers = cores() if workers is None else workers
    results = []
    with tqdm(total=len(jobs), desc=what, unit="clip") as bar:
        if workers <= 1:
            for job in jobs:
                results.append(work(job))
                bar.update()
            return results
        chunks = [jobs[k : k + CHUNK] for k in range(0, len(jobs), CHUNK)]
        with Crew(functools.partial(_run_chunk, work), workers, prepare=_one_thread) as crew:
            for state, result in crew.map(chunks):
                if state != DONE:
                    raise RuntimeError(f"{what}: a clip could not be written: {result}")
                results += result
                bar.update(len(result))
    return results


def _one_thread() -> None:
    """The processes are the parallelism: one core each."""
    import cv2

    cv2.setNumThreads(0)
