"""Measures preparation speed against the usual approach of published preparation scripts.

    python benchmarks/prep_throughput.py [--rounds 7] [--clips 4]

Each uses one process and one thread. *Usual*: OpenCV reads every frame, and every `step`-th one is
written as JPEG; ffmpeg (or PyAV, if ffmpeg is missing) extracts a 16 kHz wav file, which librosa
reads at 22,050 Hz; its log spectrogram is saved as .npy (CREMA-D includes wav files, so none is
extracted). *Ours*: what a worker of `python -m data_prep` does, from the file to the row of a
shard, for the same number and size of frames. The clips are synthetic: drifting smooth noise with
grain that changes in every frame.
"""

import shutil
import statistics
import subprocess
import sys
import tempfile
import wave
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "tests")]

import av  # noqa: E402
import cv2  # noqa: E402
import librosa  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402

from benchmarks.step_cost import in_turn  # noqa: E402
from common.options import Parser, number  # noqa: E402
from common.program import run as run_program  # noqa: E402
from data_prep.datasets import cremad, kinetics  # noqa: E402
from data_prep.digits import write_wav  # noqa: E402
from data_prep.modalities.video import Video  # noqa: E402
from data_prep.sample import extract_row, single_threaded  # noqa: E402
from data_prep.shards import schema, write_shard  # noqa: E402
from data_prep.spec import Candidate  # noqa: E402
from fixtures import media  # noqa: E402

FPS, WAV_RATE = 30, 16000
X264 = {"preset": "veryfast", "crf": "21", "sc_threshold": "0"}
MP4 = {f"GOP {gop}": X264 | {"g": str(gop)} for gop in (250, 60)}  # frames between keyframes
media.CODECS |= {kind: ("libx264", "mp4", "aac", None, options) for kind, options in MP4.items()}
READ_RATE = 22050  # Hz, to which librosa resamples the 16 kHz wav files
N_FFT, HOP, LOG_FLOOR = 512, 353, 1e-7  # OGM-GE's loader
QUALITY = 95  # JPEG quality: OpenCV's default and ours
SHORT_SIDE = 256  # of stored frames: ours for Kinetics-Sounds and CREMA-D


class Row(NamedTuple):
    """A comparison on clips of a `kind`; the usual way takes `k` frames, every `step`-th one."""

    title: str
    kind: str
    k: int
    step: int
    spec: dict[str, Any]  # stored by our way


def rows(seconds: float) -> list[Row]:
    """mp4 clips of `seconds`: 3 frames, or 1 per second; flv clips of a quarter: 2 per second."""
    count, k, settings = int(seconds * FPS), int(seconds), kinetics.Settings(audio_feature="stft")
    spec = kinetics.spec(settings)
    listed = []
    for kind in MP4:
        few = spec | {"video": Video(positions=3)}
        listed.append(Row(f"mp4, {kind}, k = 3", kind, 3, count // 3, few))
        listed.append(Row(f"mp4, {kind}, k = {k}", kind, k, FPS, spec))
    flv: dict[str, Any] = cremad.spec(cremad.Settings(audio_feature="stft"))
    flv["video"] = replace(flv["video"], min_frames=1)  # do not repeat frames
    return [*listed, Row(f"flv + wav, k = {k // 2}", "flv1", k // 2, FPS // 2, flv)]


def write_clips(folder: Path, row: Row, count: int, seconds: float) -> list[Path]:
    """Writes clips of drifting noise with grain, and a wav file for each flv."""
    mp4, paths = row.kind in MP4, [folder / f"{k}.{row.title[:3]}" for k in range(count)]
    (width, height), seconds = ((340, 256), seconds) if mp4 else ((480, 360), seconds / 4)
    for k, path in enumerate(paths):
        draw = np.random.default_rng(k)
        large = draw.integers(0, 256, (9, 12, 3)).astype(np.float32)
        far = cv2.resize(large, (2 * width, 2 * height), interpolation=cv2.INTER_CUBIC)
        grain = draw.normal(0, 6 if mp4 else 3, (height + 64, width + 64, 3)).astype(np.float32)
        frames = np.empty((int(seconds * FPS), height, width, 3), np.uint8)
        for t, (down, right) in enumerate(draw.integers(0, 64, (len(frames), 2))):
            x, y = (round(side / 2 * (1 + np.sin(t / 97 + side))) for side in (width, height))
            picture = far[y : y + height, x : x + width]
            picture = picture + grain[down : down + height, right : right + width]
            frames[t] = np.clip(picture, 0, 255)
        sound = 0.3 * draw.normal(size=int(seconds * WAV_RATE)).clip(-3, 3) / 3
        media.write_video(path, frames, FPS, row.kind, audio=sound, audio_rate=WAV_RATE)
        if not mp4:
            write_wav(path.with_suffix(".wav"), sound, WAV_RATE)
    return paths


def wav_of(path: Path, target: Path) -> Path:
    """Extracts the sound as a mono wav file at 16 kHz."""
    ffmpeg = shutil.which("ffmpeg")
    if ffmpeg:
        to = ["-vn", "-ac", "1", "-ar", str(WAV_RATE), "-threads", "1", str(target)]
        command = [ffmpeg, "-v", "error", "-nostdin", "-y", "-threads", "1", "-i", str(path), *to]
        subprocess.run(command, check=True)
        return target
    resampler = av.AudioResampler("s16", "mono", WAV_RATE)
    with av.open(str(path)) as container, wave.open(str(target), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(WAV_RATE)
        container.streams.audio[0].codec_context.thread_count = 1
        for frame in container.decode(audio=0):
            for part in resampler.resample(frame):
                out.writeframes(part.to_ndarray().tobytes())
    return target


def usual(clips: list[Path], out: Path, row: Row) -> None:
    """The usual way; writes a folder of files per clip under `out`."""
    for clip in clips:
        folder, count = out / clip.stem, 0
        folder.mkdir(parents=True, exist_ok=True)
        capture = cv2.VideoCapture(str(clip), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
        success, image = capture.read()
        while success:
            if count % row.step == 0:
                side = min(image.shape[:2])
                if side > SHORT_SIDE:
                    size = [round(n * SHORT_SIDE / side) for n in image.shape[1::-1]]
                    image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
                name = str(folder / f"{count:05d}.jpg")
                cv2.imwrite(name, image, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
            count += 1
            success, image = capture.read()
        capture.release()
        wav = clip.with_suffix(".wav")
        sound = wav if wav.exists() else wav_of(clip, folder / "sound.wav")
        values, rate = librosa.load(sound, sr=READ_RATE)
        length = int(row.spec["audio"].seconds * rate)
        values = np.clip(np.tile(values, -(-length // len(values)))[:length], -1, 1)
        spectrum = librosa.stft(values, n_fft=N_FFT, hop_length=HOP)
        np.save(folder / "sound.npy", np.log(np.abs(spectrum) + LOG_FLOOR))


def ours(clips: list[Path], path: Path, spec: dict[str, Any]) -> None:
    """Our way; writes the rows to the shard `path`."""

    def row(clip: Path) -> Any:
        wav = clip.with_suffix(".wav")
        sources: dict[str, tuple[str, ...]] = {"video": (clip.name,)}
        sources["audio"] = (wav.name,) if wav.exists() else (clip.name,)
        made = extract_row(clip.parent, spec, None, Candidate(clip.stem, 0, sources))
        assert isinstance(made, dict), made
        return made

    write_shard(path, schema("benchmark", spec), map(row, clips))


def main(argv: Sequence[str]) -> int:
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", default="7")
    parser.add_argument("--clips", default="4", help="distinct clips of each kind")
    parser.add_argument("--seconds", default="10", help="length of an mp4 clip")
    args = parser.parse_strictly(list(argv))
    rounds, count = (number(n, getattr(args, n), int, 1) for n in ("rounds", "clips"))
    seconds = number("seconds", args.seconds, float, 4)
    single_threaded()
    print(f"{rounds} rounds of {count} distinct clips, milliseconds per clip\n")
    print("| clips | usual | ours | usual / ours |\n|---|---|---|---|")
    for row in rows(seconds):
        with tempfile.TemporaryDirectory() as name:
            clips = write_clips(Path(name), row, count, seconds)
            work = {
                "usual": partial(usual, clips, Path(name, "usual"), row),
                "ours": partial(ours, clips, Path(name, "ours.arrow"), row.spec),
            }
            times = in_turn(work, rounds, torch.device("cpu"))
            ratio = [a / b for a, b in zip(times["usual"], times["ours"])]
            cells = [f"{1e3 * statistics.median(t) / count:.1f}" for t in times.values()]
            spread = f"{statistics.median(ratio):.2f} ({min(ratio):.2f} to {max(ratio):.2f})"
            print(f"| {row.title} | {' | '.join(cells)} | {spread} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(run_program(main))
