"""Reads audio files as waves, and turns waves into log spectrograms.

Waves are float32 tensors, [channels, n] or mono [n].
"""

import contextlib
import functools
import re
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
import soundfile
import torch
import torchaudio.compliance.kaldi
import torchaudio.transforms

from data_prep.media import demux, open_container
from data_prep.reasons import Reject

LOG_FLOOR = 1e-7  # added before the logarithm, as public scripts do: silence is -16.118
SILENT_RMS = 1e-4  # our choice
SILENT_ZEROS = 0.99  # share of samples that are exactly zero; our choice
CANCELLED = 0.1  # power of the mix relative to that of independent channels; our choice
SHIFT = 0.1  # seconds; encoder priming and rounding are shorter
MOST_SHIFT = 60.0  # seconds; a larger offset in a header is treated as damage. Our choice
MOST_CHANNELS = 8
MOST_TRACKS = 8
PLACEHOLDER = 1_900_000_000  # bytes of audio, about 3 hours in CD quality; our choice
# libsndfile's remark if a WAV header declares more bytes of audio than the file has.
ANNOUNCED = re.compile(r"data : (\d+) \(should be (\d+)\)")
SAMPLE_BYTES = {
    "PCM_U8": 1, "PCM_S8": 1, "PCM_16": 2, "PCM_24": 3, "PCM_32": 4, "FLOAT": 4, "DOUBLE": 8,
    "ULAW": 1, "ALAW": 1,
}  # bytes per sample  # fmt: skip
RATES = range(1000, 768_001)  # Hz; other rates in a header are rejected. Our choice
LARGEST_FILTER = 1 << 24  # values; common rates need up to 14 million (22,254 Hz to 22,050)
WINDOW = 25  # window of the filter bank in milliseconds


class Sound(NamedTuple):
    """A decoded audio track."""

    wave: torch.Tensor  # float32 [channels, n]
    rate: int  # Hz
    complete: bool  # all of it decoded
    flags: tuple[str, ...] = ()


def read(path: Path, seconds: float) -> Sound:
    """The start of the file's first audio track that is not silent, with its rate and channels.

    Of a damaged file, returns what can be decoded. Raises `Reject`: "no_audio", "unreadable",
    "truncated" or "missing_file" if nothing can; "bad_values" if the wave is not finite.
    """
    sound = None
    if path.suffix.lower() in (".wav", ".flac"):
        sound = _read_soundfile(path, seconds)
    if sound is None or not sound.wave.shape[1]:
        # The file has the wrong extension, or its header gives no length.
        try:
            sound = _read_container(path, seconds)
        except Reject:
            if sound is None:
                raise
    if not sound.wave.shape[1]:
        reason = "no_audio" if sound.complete else "truncated"
        raise Reject(reason, f"{path.name}: the audio track has nothing that decodes")
    if not np.isfinite(sound.wave.numpy()).all():  # torch.isfinite takes 25 times as long
        raise Reject("bad_values", f"{path.name}: the wave is not finite")
    return sound


def _check_rate(path: Path, rate: int) -> None:
    if rate not in RATES:
        raise Reject("unreadable", f"{path.name}: implausible sample rate of {rate} Hz")


def _read_soundfile(path: Path, seconds: float) -> Sound | None:
    """Returns None if libsndfile does not recognize the content."""
    try:
        with soundfile.SoundFile(path) as file:
            _check_rate(path, file.samplerate)
            count = int(seconds * file.samplerate)
            samples = file.read(count, dtype="float32", always_2d=True)  # [n, channels]
            remark = ANNOUNCED.search(file.extra_info)
            announced, there = map(int, remark.groups()) if remark else (0, 0)
            frame = file.channels * SAMPLE_BYTES.get(file.subtype, 1)  # 1: compressed
            # Programs write lengths of about 2 or 4 GB if their output is a pipe.
            lacks = frame <= announced - there and announced < PLACEHOLDER
            complete = len(samples) == count or not lacks
            return Sound(torch.from_numpy(samples.T.copy()), file.samplerate, complete)
    except soundfile.SoundFileError:
        return None


def _read_container(path: Path, seconds: float) -> Sound:
    """The first track, or the loudest of the others if it is silent."""
    first, tracks = _read_track(path, 0, seconds)
    if tracks == 1 or not is_silent(first.wave.mean(0)):
        return first
    others = [first]
    for number in range(1, min(tracks, MOST_TRACKS)):
        with contextlib.suppress(Reject):
            sound = _read_track(path, number, seconds)[0]
            others.append(sound._replace(flags=(*sound.flags, "other_track")))
    loudest = max(others, key=lambda sound: float(sound.wave.mean(0).square().sum()))
    return first if is_silent(loudest.wave.mean(0)) else loudest


def _read_track(path: Path, number: int, seconds: float) -> tuple[Sound, int]:
    """Audio track `number` (zero-based), and the number of tracks."""
    with open_container(path) as container:
        tracks = container.streams.audio
        if not tracks:
            raise Reject("no_audio", f"{path.name}: no audio track")
        stream = tracks[number]
        if not stream.codec_context or not stream.codec_context.sample_rate:
            raise Reject("unreadable", f"{path.name}: no decoder for the audio track")
        stream.codec_context.thread_count = 1  # files are processed in parallel
        rate, late = stream.codec_context.sample_rate, 0.0
        _check_rate(path, rate)
        for video in container.streams.video[:1]:
            if None not in (video.start_time, stream.start_time, video.time_base):
                begin = stream.start_time * stream.time_base
                late = float(begin - video.start_time * video.time_base)
        late = late if SHIFT < abs(late) < MOST_SHIFT else 0.0  # seconds after the video
        parts, complete = _decode(container, stream, (seconds - min(0, late)) * rate)
        count = len(tracks)
    if len({part.shape[0] for part in parts}) > 1:  # the channel count changes midway
        parts = [part.mean(axis=0, keepdims=True) for part in parts]
    wave = np.concatenate(parts, axis=1) if parts else np.zeros((1, 0), np.float32)
    shift = round(late * rate)
    if shift and wave.shape[1]:
        wave = np.pad(wave, ((0, 0), (shift, 0))) if shift > 0 else wave[:, -shift:]
    wave = np.ascontiguousarray(wave[:, : int(seconds * rate)])
    return Sound(torch.from_numpy(wave), rate, complete, ("shifted",) * bool(shift)), count


def _decode(container: Any, stream: av.AudioStream, limit: float) -> tuple[list[np.ndarray], bool]:
    """float32 chunks [channels, n] up to `limit` samples, and whether everything decoded."""
    parts: list[np.ndarray] = []
    rate, complete, count = stream.codec_context.sample_rate, True, 0
    packets = demux(container, stream)
    while count < limit:
        frames: Any = ()
        try:
            packet = next(packets, None)
            if packet is None:  # the end, or the container is truncated
                break
            frames = packet.decode()
        except av.error.FFmpegError:  # later packets may be intact
            complete = False
        for frame in frames:
            channels = frame.layout.nb_channels
            # A damaged header may declare more channels, and PyAV 18 then reads out of bounds.
            if frame.is_corrupt or frame.sample_rate != rate or channels > MOST_CHANNELS:
                complete = False
                continue
            values = frame.to_ndarray()
            if not frame.format.is_planar:  # [1, n * channels], interleaved
                values = values.reshape(-1, channels).T
            # Scaled to [-1, 1] here: FFmpeg's downmix of float stereo to mono is sqrt(2) too loud.
            if values.dtype == np.uint8:
                values = (values.astype(np.float32) - 128) / 128
            elif values.dtype.kind == "i":
                values = values / -float(np.iinfo(values.dtype).min)
            parts.append(values.astype(np.float32))
            count += frame.samples
    return parts, complete


def resample(wave: torch.Tensor, source: int, target: int) -> torch.Tensor:
    """[..., n] at `source` Hz -> [..., ceil(n * target / source)] at `target` Hz.

    The size of torchaudio's filter is the product of the two reduced rates: 8 GB for 44,099 to
    22,050 Hz. If that is too large, a similar ratio is used: here 2, which shifts the pitch by
    0.002 %.
    """
    ratio = Fraction(source, target)
    if ratio.numerator * ratio.denominator > LARGEST_FILTER:
        ratio = ratio.limit_denominator(int((LARGEST_FILTER / ratio) ** 0.5))
    return wave if ratio == 1 else _resampler(ratio.numerator, ratio.denominator)(wave)


@functools.lru_cache(4)
def _resampler(source: int, target: int) -> torchaudio.transforms.Resample:
    """Caches the filter of two rates; `dtype` makes it equal to that of `functional.resample`."""
    return torchaudio.transforms.Resample(source, target, dtype=torch.float32)


def log_stft(wave: torch.Tensor, n_fft: int, hop: int) -> torch.Tensor:
    """ln(|STFT| + 1e-7), float32 [n_fft // 2 + 1, n // hop + 1] of a wave [n].

    Periodic Hann window, centred, padded with zeros as in librosa >= 0.10 (torch pads by reflection
    by default).
    """
    window = torch.hann_window(n_fft, periodic=True)
    spectrum = torch.stft(
        wave, n_fft, hop, window=window, center=True, pad_mode="constant", return_complex=True
    )
    return torch.log(spectrum.abs() + LOG_FLOOR)


def fbank(wave: torch.Tensor, rate: int, mels: int, frames: int) -> torch.Tensor:
    """Kaldi log-mel energies, float32 [mels, frames] of a wave [n], as in the official release.

    Padding is stored as 0. The release normalises after padding, so the network sees padded frames
    as 0.438; the model's input layer reproduces that. A wave shorter than one 25 ms window is
    padded to one (our choice; the release raises an error).
    """
    wave = wave - wave.mean()
    wave = torch.nn.functional.pad(wave, (0, max(0, WINDOW * rate // 1000 - wave.shape[0])))
    bank = torchaudio.compliance.kaldi.fbank(
        wave[None], htk_compat=True, sample_frequency=rate, use_energy=False,
        window_type="hanning", num_mel_bins=mels, dither=0.0, frame_shift=10,
    )  # [windows, mels]  # fmt: skip
    bank = bank[:frames]
    return torch.nn.functional.pad(bank, (0, 0, 0, frames - bank.shape[0])).T.contiguous()


def cancels(wave: torch.Tensor, mix: torch.Tensor) -> bool:
    """Whether the channels [channels, n] cancel each other in their `mix` [n] (opposite phase).

    The power of a mix of C independent channels is the sum of their powers divided by C^2; with
    opposite phases, less than `CANCELLED` of that remains.
    """
    independent = wave.square().mean(1).sum() / len(wave) ** 2
    return len(wave) > 1 and bool(mix.square().mean() < CANCELLED * independent)


def is_silent(wave: torch.Tensor) -> bool:
    """Whether a wave is empty, close to zero, or exactly zero almost everywhere."""
    if not wave.shape[0]:
        return True
    rms = wave.square().mean().sqrt().item()
    return rms < SILENT_RMS or (wave == 0).float().mean().item() > SILENT_ZEROS
