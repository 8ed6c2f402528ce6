"""How fast clips are prepared, against the way of the field's scripts and against decoding alone.

    python benchmarks/prep_throughput.py [--rounds 7] [--clips 4] [--sound auto] [--check]

One process, one thread each. *Peers*: OpenCV reads every frame, `count % step` picks those that are
written as JPEG files; the sound goes to a 16 kHz wav by the ffmpeg program, is read by librosa at
22,050 Hz, becomes a log spectrogram and a .npy (CREMA-D comes with wav files: none is made there).
*Ours*: what a worker of `python -m data_prep` does, from the file to the row of a shard, for as
many pictures of the same size; a shard is closed, and waited for, every `--clips` rows in place of
256. *Limit*: one pass over the file's packets in which only those are decoded that the wanted
frames and the sound need; no picture is converted, nothing is kept.

Where there is no ffmpeg program (or with `--sound pyav`) PyAV makes the peers' wav: a favour, as
it spares them the start of a process for each clip. The table says which it was.

The clips are made here: smooth noise that drifts, under grain that changes with each frame. With
300 frames and a keyframe every 250, the last of three positions is frame 250, itself a keyframe:
the column "decoded" says how many of a clip's frames the limit decodes.
"""

import shutil
import statistics
import subprocess
import sys
import tempfile
import wave
from collections.abc import Callable
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "tests")]

import av  # noqa: E402
import cv2  # noqa: E402
import librosa  # noqa: E402
import numpy as np  # noqa: E402
import soundfile  # noqa: E402
import torch  # noqa: E402

from benchmarks.prep_clips import FPS, MP4, WAV_RATE, Clip, make_clips  # noqa: E402
from benchmarks.step_cost import in_turn  # noqa: E402
from common.options import Parser, UsageError  # noqa: E402
from common.program import run as run_program  # noqa: E402
from data_prep.datasets import cremad, kinetics  # noqa: E402
from data_prep.modalities.video import Video  # noqa: E402
from data_prep.sample import extract_row, single_threaded  # noqa: E402
from data_prep.shards import Shard, schema, write_shard  # noqa: E402
from data_prep.spec import Candidate, Rejection, Spec  # noqa: E402

READ_RATE = 22050  # Hz, as librosa reads the peers' wav files of 16 kHz
N_FFT, HOP, LOG_FLOOR = 512, 353, 1e-7  # OGM-GE's loader
QUALITY = 95  # of the JPEG files: OpenCV's default and ours
FASTER, MOST = 2.2, 1.25  # the targets: peers / ours at k = 3, and ours / limit
FEW = 3


class Row(NamedTuple):
    """A comparison: clips of a `kind`, of which the peers take `k` frames, each `step`-th."""

    title: str
    kind: str
    k: int
    step: int
    specs: dict[str, Spec]  # form of the sound -> what our way stores


def rows(seconds: float) -> list[Row]:
    """The comparisons for mp4 clips of `seconds`: few positions, then 1 frame a second; and flv."""
    listed, count, k = [], int(seconds * FPS), int(seconds)
    specs = {f: kinetics.spec(kinetics.Settings(audio_feature=f)) for f in ("fbank", "stft")}
    few = {form: spec | {"video": Video(positions=FEW)} for form, spec in specs.items()}
    for kind, gop in MP4.items():
        listed.append(Row(f"mp4, GOP {gop}, k = {FEW}", kind, FEW, count // FEW, few))
        listed.append(Row(f"mp4, GOP {gop}, k = {k}", kind, k, FPS, specs))
    k = int(seconds / 2)  # 2 a second of a quarter of the seconds
    flv = {"stft": cremad.spec(cremad.Settings(audio_feature="stft"))}
    flv["stft"]["video"] = replace(flv["stft"]["video"], min_frames=1)  # none is repeated
    return [*listed, Row(f"flv + wav, k = {k}", "flv", k, FPS // 2, flv)]


def peer_frames(path: Path, folder: Path, step: int, short_side: int) -> None:
    """Every frame is decoded and converted; each `step`-th becomes a file, no larger than ours."""
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    count = 0
    success, image = capture.read()
    while success:
        if count % step == 0:
            side = min(image.shape[:2])
            if side > short_side:
                size = tuple(round(n * short_side / side) for n in image.shape[1::-1])
                image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
            cv2.imwrite(
                str(folder / f"{count:05d}.jpg"), image, [cv2.IMWRITE_JPEG_QUALITY, QUALITY]
            )
        count += 1
        success, image = capture.read()
    capture.release()


def peer_wav(path: Path, target: Path, ffmpeg: str | None) -> None:
    """The sound as a mono wav at 16 kHz, by the program `ffmpeg`, or by PyAV where it is None."""
    if ffmpeg:
        to = ["-vn", "-ac", "1", "-ar", str(WAV_RATE), "-threads", "1", str(target)]
        command = [ffmpeg, "-v", "error", "-nostdin", "-y", "-threads", "1", "-i", str(path), *to]
        subprocess.run(command, check=True)
        return
    resampler = av.AudioResampler("s16", "mono", WAV_RATE)
    with av.open(str(path)) as container, wave.open(str(target), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(WAV_RATE)
        container.streams.audio[0].codec_context.thread_count = 1
        for frame in container.decode(audio=0):
            for part in resampler.resample(frame):
                out.writeframes(part.to_ndarray().tobytes())


def peers(clips: list[Clip], out: Path, row: Row, ffmpeg: str | None) -> None:
    """The field's way for all clips; each gets a folder of files under `out`."""
    spec = row.specs["stft"]
    for clip in clips:
        folder = out / clip.video.stem
        folder.mkdir(parents=True, exist_ok=True)
        peer_frames(clip.video, folder, row.step, spec["video"].short_side)
        sound = clip.sound
        if sound == clip.video:
            sound = folder / "sound.wav"
            peer_wav(clip.video, sound, ffmpeg)
        values, rate = librosa.load(sound, sr=READ_RATE)
        length = int(spec["audio"].seconds * rate)
        values = np.clip(np.tile(values, -(-length // len(values)))[:length], -1, 1)
        spectrum = librosa.stft(values, n_fft=N_FFT, hop_length=HOP)
        np.save(folder / "sound.npy", np.log(np.abs(spectrum) + LOG_FLOOR))


def ours(clips: list[Clip], path: Path, spec: Spec) -> None:
    """Our way for all clips, which share a folder; the rows become the shard `path`."""
    root = clips[0].video.parent
    rows = []
    for clip in clips:
        sources = {"audio": (clip.sound.name,), "video": (clip.video.name,)}
        row = extract_row(root, spec, None, Candidate(clip.video.stem, 0, sources))
        if isinstance(row, Rejection):
            raise RuntimeError(f"{clip.video.name} was rejected: {row.reason} {row.detail}")
        rows.append(row)
    write_shard(path, schema("benchmark", spec), rows)


def needed(path: Path, k: int) -> list[range]:
    """The video packets to decode for the middles of `k` equal parts: a range from each keyframe.

    Found without our own planning, which the benchmark is to judge.
    """
    runs = []
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        context.thread_count = 1  # more of them hold frames back
        packets = [packet for packet in container.demux(video=0) if packet.size]
        times = sorted(packet.pts for packet in packets)
        times = [times[(2 * j + 1) * len(times) // (2 * k)] for j in range(k)]
        keys = [n for n, packet in enumerate(packets) if packet.is_keyframe]
        before = {time: max(n for n in keys if packets[n].pts <= time) for time in times}
        for start, group in groupby(times, before.get):
            *_, last = group
            end = start
            while all(frame.pts != last for frame in context.decode(packets[end])):
                end += 1
            runs.append(range(start, end + 1))
            context.flush_buffers()
    return runs


def limit(clips: list[Clip], plans: list[list[range]]) -> None:
    """Decodes the `plans`' video packets and all of the sound, in one pass over each file."""
    for clip, runs in zip(clips, plans):
        chosen = {n for run in runs for n in run}
        if clip.sound != clip.video:
            soundfile.read(clip.sound, dtype="float32")
        with av.open(str(clip.video)) as container:
            streams = [container.streams.video[0]]
            if clip.sound == clip.video:
                streams.append(container.streams.audio[0])
            for stream in streams:
                stream.codec_context.thread_count = 1
            number = -1
            for packet in container.demux(streams):
                if packet.stream_index != streams[0].index:
                    packet.decode()
                    continue
                number += 1
                if number in chosen:
                    if number and number - 1 not in chosen:
                        streams[0].codec_context.flush_buffers()
                    packet.decode()


def peer_pictures(out: Path, clips: list[Clip]) -> list[list[tuple[int, int]]]:
    """(H, W) of the pictures that the peers' way left for each clip."""
    folders = [out / clip.video.stem for clip in clips]
    return [[cv2.imread(str(f)).shape[:2] for f in sorted(d.glob("*.jpg"))] for d in folders]


def our_pictures(path: Path) -> list[list[tuple[int, int]]]:
    """(H, W) of the pictures in each row of the shard `path`."""
    shard = Shard(path)
    frames = [shard.value(row, "video") for row in range(len(shard))]
    return [[cv2.imdecode(np.frombuffer(f, np.uint8), 1).shape[:2] for f in fs] for fs in frames]


def compare(
    row: Row, clips: list[Clip], out: Path, rounds: int, ffmpeg: str | None
) -> tuple[dict[str, list[float]], float]:
    """Milliseconds a clip of each way and round, and how many frames a clip the limit decodes."""
    folder = out / "peers" / row.title.replace(" ", "")
    plans = [needed(clip.video, row.k) for clip in clips]
    work: dict[str, Callable[[], None]] = {
        "peers": lambda: peers(clips, folder, row, ffmpeg),
        "limit": lambda: limit(clips, plans),
    }
    for form, spec in row.specs.items():
        work[form] = lambda form=form, spec=spec: ours(clips, out / f"{form}.arrow", spec)
    times = in_turn(work, rounds, torch.device("cpu"))
    theirs = peer_pictures(folder, clips)
    for form in row.specs:
        if our_pictures(out / f"{form}.arrow") != theirs:
            raise RuntimeError(f"{row.title}, {form}: not as many pictures of the same size")
    decoded = sum(len(run) for runs in plans for run in runs) / len(clips)
    return {name: [1e3 * t / len(clips) for t in spent] for name, spent in times.items()}, decoded


class Ratio(NamedTuple):
    """A ratio of two ways within the same rounds: its median and its range."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f} to {self.high:.2f})"


def paired(above: list[float], below: list[float]) -> Ratio:
    """The ratio of two ways' times, round by round."""
    values = [a / b for a, b in zip(above, below)]
    return Ratio(statistics.median(values), min(values), max(values))


class Line(NamedTuple):
    """A line of the table: our way with one form of sound, against the two others."""

    title: str
    ms: tuple[float, float, float]  # peers, ours, limit
    gain: Ratio  # peers / ours
    excess: Ratio  # ours / limit
    decoded: float  # frames a clip, of the limit

    def __str__(self) -> str:
        cells = (self.title, *(f"{ms:.1f}" for ms in self.ms), self.gain, self.excess)
        return f"| {' | '.join(map(str, cells))} | {self.decoded:.0f} |"


def lines(row: Row, times: dict[str, list[float]], decoded: float) -> list[Line]:
    """One for each form of the sound."""
    made = []
    for form in row.specs:
        ways = times["peers"], times[form], times["limit"]
        gain, excess = paired(ways[0], ways[1]), paired(ways[1], ways[2])
        ms = tuple(statistics.median(way) for way in ways)
        made.append(Line(f"{row.title}, {form}", ms, gain, excess, decoded))
    return made


def verdict(table: list[Line]) -> tuple[list[str], bool]:
    """What to say of each target, and whether both are met."""
    few = [line for line in table if f"k = {FEW}," in line.title]
    slow = [f"{line.title}: {line.gain.median:.2f}" for line in few if line.gain.median < FASTER]
    far = [f"{line.title}: {line.excess.median:.2f}" for line in table if line.excess.median > MOST]
    said = [
        f"{claim}: {'not met by ' + '; '.join(missed) if missed else 'met'}"
        for claim, missed in (
            (f"peers / ours at least {FASTER} at k = {FEW}", slow),
            (f"ours / limit at most {MOST}", far),
        )
    ]
    return said, not slow and not far


def heading(clips: dict[str, list[Clip]], rounds: int, maker: str) -> str:
    """What was measured, and the head of the table."""
    size = {kind: sum(c.video.stat().st_size for c in some) for kind, some in clips.items()}
    kilobytes = {kind: f"{total / 1e3 / len(clips[kind]):.0f} kB" for kind, total in size.items()}
    titles = ("clips, form of sound", "peers", "ours", "limit", "peers / ours", "ours / limit")
    return (
        f"{rounds} rounds of {len(clips['flv'])} distinct clips, milliseconds a clip; peers' wav by"
        f" {maker}; a clip has {', '.join(f'{k} {v}' for k, v in kilobytes.items())}\n\n"
        f"| {' | '.join(titles)} | decoded |\n|{'---|' * (len(titles) + 1)}"
    )


def main(argv: list[str]) -> int:
    """The program."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--clips", type=int, default=4, help="distinct clips of each kind")
    parser.add_argument(
        "--sound", default="auto", choices=("auto", "ffmpeg", "pyav"),
        help="what makes the peers' wav; auto: ffmpeg where it is found",
    )  # fmt: skip
    parser.add_argument("--check", action="store_true", help="exit status 1 if a target is missed")
    args = parser.parse_strictly(argv)
    ffmpeg = None if args.sound == "pyav" else shutil.which("ffmpeg")
    if args.sound == "ffmpeg" and not ffmpeg:
        raise UsageError("--sound ffmpeg: there is no program ffmpeg on the path")
    single_threaded()
    seconds, table = 10.0, []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clips = make_clips(folder, args.clips, seconds)
        print(heading(clips, args.rounds, "the ffmpeg program" if ffmpeg else "PyAV"), flush=True)
        for row in rows(seconds):
            times, decoded = compare(row, clips[row.kind], folder, args.rounds, ffmpeg)
            table += lines(row, times, decoded)
            print(*table[-len(row.specs) :], sep="\n", flush=True)
    said, met = verdict(table)
    print("", *said, sep="\n")
    return int(args.check and not met)


if __name__ == "__main__":
    sys.exit(run_program(main))
