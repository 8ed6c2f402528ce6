"""Audio: the log spectrogram of an audio track.

There are two features, both from public code: "stft" is the natural logarithm of the magnitude of a
short-time Fourier transform (OGM-GE, ARL, LFM), "fbank" a Kaldi log-mel filter bank (the official
MIDAS release, and the script that made BalanceBenchmark's Kinetics-Sounds files).
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data_prep.modalities.base import Draw, Extracted, Modality, the_file, view
from data_prep.reasons import Reject

if TYPE_CHECKING:  # torch takes 1.5 s to import, so only extraction imports it
    import torch

CLIPPED = 0.01  # share of samples beyond full scale, as in floats in 16-bit units; our choice
MARGIN = 0.25  # extra seconds decoded for the width of the resampling filter


@dataclass(frozen=True)
class Audio(Modality):
    """A stored log spectrogram, float16 [F, T], frequency first, time last.

    "stft": mono wave, tiled and cut to `seconds`, clipped to [-1, 1]; periodic Hann window of
    `n_fft`, centred, zero padding; ln(|S| + 1e-7).
    "fbank": Kaldi log-mel filter bank of the first `seconds`, mean removed, 25 ms windows every
    10 ms, zero-padded or cut to `frames` (before any normalisation, as in the official release).

    The model sees `window` columns of it (None: all), at a random start in training and at the
    centre in evaluation.
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
    window: int | None = view(None)
    normalise: str | tuple[float, float] = view("none")

    @property
    def shape(self) -> tuple[int, int]:
        """(F, T) of the stored array."""
        if self.feature == "fbank":
            return self.mels, self.frames
        return self.n_fft // 2 + 1, int(self.seconds * self.sample_rate) // self.hop + 1

    def column(self) -> tuple[Any, dict[str, str]]:
        import pyarrow as pa

        rows, columns = self.shape
        about = {"shape": json.dumps([rows, columns]), "dtype": "float16"}
        return pa.binary(2 * rows * columns), about

    def extract(self, paths: Sequence[Path], inline: Any, folder: Path | None) -> Extracted:
        """The spectrogram, float16 [F, T] = `shape`, of the one file in `paths`.

        Flags: "truncated" (parts do not decode), "silent", "one_channel" (only the loudest channel
        is used because the channels cancel out), "other_track" (the first track is silent),
        "shifted" (the track starts over 0.1 s before or after the video, so it is cut or padded
        with silence), "cut" (it is at least 0.25 s longer), "clipped" (more than 1 % of the samples
        exceed full scale), "no_audio" (silence replaces a missing track). `duration_s` is at most
        `seconds`. Raises `Reject`: "silent" (with `drop_silent`), and the reasons of `sound.read`.
        """
        import torch

        from data_prep.modalities import sound as sounds

        try:
            sound = sounds.read(the_file(paths, "no_audio"), self.seconds + MARGIN)
            seconds = min(sound.wave.shape[1] / sound.rate, self.seconds)
        except Reject:
            if self.missing != "fill":
                raise
            silence = torch.zeros(1, round(self.seconds * self.sample_rate))
            sound = sounds.Sound(silence, self.sample_rate, True, ("no_audio",))
            seconds = 0.0
        wave = sound.wave.mean(0)
        cancelled = sounds.cancels(sound.wave, wave)
        if cancelled:
            wave = sound.wave[sound.wave.square().sum(1).argmax()]
        silent = sounds.is_silent(wave)
        if silent and self.drop_silent:
            raise Reject("silent", ", ".join(path.name for path in paths))
        low, high = wave.aminmax()
        beyond = max(-low, high) > 1  # rare, and cheaper to check than the share of samples
        found = {
            "truncated": not sound.complete,
            "cut": sound.wave.shape[1] >= int((self.seconds + MARGIN) * sound.rate),
            "one_channel": cancelled,
            "clipped": beyond and (wave.abs() > 1).float().mean() > CLIPPED,
            "silent": silent,
        }
        flags = (*sound.flags, *(flag for flag, is_set in found.items() if is_set))
        values = self.spectrogram(sounds.resample(wave, sound.rate, self.sample_rate)).half()
        if not torch.isfinite(values).all():
            raise Reject("bad_values", "the spectrogram is not finite")
        return Extracted(values.numpy().tobytes(), flags, seconds, 0, seconds > 0)

    def spectrogram(self, wave: "torch.Tensor") -> "torch.Tensor":
        """float32 [F, T] of a mono wave [n] at `sample_rate`.

        A short wave is tiled for "stft"; for "fbank" the features are padded instead.
        """
        from data_prep.modalities import sound as sounds

        samples = round(self.seconds * self.sample_rate)
        if self.feature == "fbank":
            return sounds.fbank(wave[:samples], self.sample_rate, self.mels, self.frames)
        wave = wave.repeat(-(-samples // len(wave)))[:samples].clamp(-1, 1)
        return sounds.log_stft(wave, self.n_fft, self.hop)

    def to_input(self, stored: Any, draw: Draw) -> np.ndarray:
        """float16 [1, F, T]: the full spectrogram, or `window` columns of it."""
        values = np.frombuffer(stored, dtype=np.float16).reshape(1, *self.shape)
        start = self.start(draw)
        return values[:, :, start : start + (self.window or values.shape[2])]

    def start(self, draw: Draw) -> int:
        """The first column that the model sees."""
        spare = max(0, self.shape[1] - (self.window or self.shape[1]))
        if not spare:
            return 0
        return int(draw.rng.integers(spare + 1)) if draw.rng else spare // 2

    def on_device(self, stored: Iterable, draw: Draw, device: "torch.device") -> Any:
        from data_prep.modalities.on_device import whole

        kept = whole(replace(self, window=None), stored, draw, device)
        if self.window and self.window < self.shape[1]:
            kept.modality, kept.window = self, self.window
        return kept

    def stream(self) -> dict[str, Any]:
        return {"kind": "audio", "channels": 1}

    def values(self, batch: "torch.Tensor") -> "tuple[torch.Tensor, tuple[int, ...], int]":
        """[B, 1, F, T]: one mean."""
        return batch, (0, 1, 2, 3), 1
