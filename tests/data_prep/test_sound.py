"""Sound: waves as they are in the files, and the field's spectrograms of them."""

import math

import librosa
import numpy as np
import pytest
import soundfile
import torch
import torchaudio.compliance.kaldi
from clips import cut, noise, rejection, write_clip

from data_prep.modalities import audio, video
from data_prep.modalities.extracted import extract_sample
from data_prep.spec import Audio, Candidate, Video

SILENCE = math.log(1e-7)
BANK = Audio("fbank", 16000, 10.255)  # 1,024 windows


# --- spectrograms ---------------------------------------------------------------------------------


@pytest.mark.parametrize("n,n_fft,hop,shape", [
    (22050 * 3, 512, 353, (257, 188)), (22050 * 20, 512, 353, (257, 1250)),
    (16000 * 5, 256, 128, (129, 626)), (44100 * 10, 512, 440, (257, 1003)),
    (16000 * 10, 256, 128, (129, 1251)),
])  # fmt: skip
def test_stft_shape_and_silence(n, n_fft, hop, shape):
    values = audio.log_stft(torch.zeros(n), n_fft, hop)
    assert tuple(values.shape) == shape and values.dtype == torch.float32
    assert torch.allclose(values, torch.full_like(values, SILENCE), atol=1e-6)


@pytest.mark.parametrize("rate,seconds,n_fft,hop", [(22050, 3, 512, 353), (16000, 10, 256, 128)])
def test_stft_agrees_with_librosa(rate, seconds, n_fft, hop):
    wave = noise(seconds, 1, rate)[0]
    magnitude = np.abs(librosa.stft(wave, n_fft=n_fft, hop_length=hop))
    ours = audio.log_stft(torch.from_numpy(wave), n_fft, hop).numpy()
    assert np.abs(np.exp(ours) - 1e-7 - magnitude).max() < 1e-4
    assert np.abs(ours - np.log(magnitude + 1e-7)).max() < 1e-2


def test_fbank_is_padded_before_normalisation():
    wave = torch.from_numpy(noise(10, 1, 16000))[0] + 0.1
    bank = audio.fbank(wave, 16000, 128, 1024)
    assert tuple(bank.shape) == (128, 1024)
    assert (bank[:, 998:] == 0).all() and (bank[:, 997] != 0).any()
    assert (0 + 4.503877) / 10.282552 == pytest.approx(0.438, abs=1e-3)
    oracle = torchaudio.compliance.kaldi.fbank(
        (wave - wave.mean())[None], htk_compat=True, sample_frequency=16000, use_energy=False,
        window_type="hanning", num_mel_bins=128, dither=0.0, frame_shift=10,
    )  # fmt: skip
    assert torch.equal(bank[:, :998], oracle.T)
    assert torch.equal(audio.fbank(wave, 16000, 128, 500), oracle.T[:, :500])


def test_tile_or_cut():
    wave = torch.tensor([1.0, 2, 3])
    assert audio.tile_or_cut(wave, 7).tolist() == [1, 2, 3, 1, 2, 3, 1]
    assert audio.tile_or_cut(wave, 2).tolist() == [1, 2]


def test_resample_keeps_a_tone():
    times = np.arange(44100) / 44100
    tone = torch.from_numpy(np.sin(2 * np.pi * 440 * times).astype(np.float32))
    out = audio.resample(tone, 44100, 16000)
    expected = np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)
    assert out.shape == (16000,) and np.abs(out.numpy() - expected)[200:-200].max() < 2e-3


# --- sound files ----------------------------------------------------------------------------------


@pytest.mark.parametrize("subtype,tolerance", [("PCM_16", 4e-5), ("PCM_24", 1e-6), ("FLOAT", 0)])
def test_wav_is_native(tmp_path, subtype, tolerance):
    wave = noise(0.5, 2, 8000)
    soundfile.write(tmp_path / "a.wav", wave.T, 8000, subtype=subtype)
    decoded, rate, *_ = audio.read(tmp_path / "a.wav")
    assert rate == 8000 and np.abs(decoded.numpy() - wave).max() <= tolerance


@pytest.mark.parametrize("sound,tolerance", [
    ("pcm_s16le", 4e-5), ("pcm_u8", 1e-2), ("pcm_f32le", 0),
])  # fmt: skip
def test_container_sample_formats_and_mean_of_channels(tmp_path, sound, tolerance):
    wave = noise(0.5)
    decoded, rate, *_ = audio.read(write_clip(tmp_path / "a.mkv", 5, wave=wave, sound=sound))
    assert rate == 44100 and decoded.shape == wave.shape
    assert np.abs(decoded.numpy() - wave).max() <= tolerance
    # FFmpeg's own mix of float channels would be louder by sqrt(2).
    assert np.abs(audio.mono(decoded).numpy() - wave.mean(axis=0)).max() <= tolerance + 1e-7


@pytest.mark.parametrize("name,sound", [("a.mp4", "aac"), ("a.flv", "libmp3lame")])
def test_lossy_sound_keeps_its_loudness(tmp_path, name, sound):
    times = np.arange(44100) / 44100
    wave = np.stack([0.1 * np.sin(2 * np.pi * f * times) for f in (440, 1000)]).astype(np.float32)
    codec = "flv" if name.endswith("flv") else "libx264"
    path = write_clip(tmp_path / name, 10, codec=codec, wave=wave, sound=sound)
    decoded, rate, *_ = audio.read(path)
    middle = audio.mono(decoded)[rate // 4 : rate // 2]
    assert middle.square().mean().sqrt() == pytest.approx(0.05, rel=0.06)


def test_decoding_stops_early(tmp_path):
    soundfile.write(tmp_path / "a.wav", noise(2).T, 44100)
    path = write_clip(tmp_path / "a.mkv", 20, wave=noise(2), sound="pcm_s16le")
    for file in (tmp_path / "a.wav", path):
        assert audio.read(file, 0.5)[0].shape == (2, 22050)


def test_content_counts_not_the_extension(tmp_path):
    path = write_clip(tmp_path / "a.mp4", 10, wave=noise(1))
    path.rename(tmp_path / "a.wav")
    assert audio.read(tmp_path / "a.wav")[1] == 44100


@pytest.mark.parametrize("content,reason", [
    (b"", "unreadable"), (b"<!DOCTYPE html><html><body>404</body></html>" * 20, "unreadable"),
    (b"\0" * 5000, "unreadable"), (b"\0\0\0\x18ftypisom" + b"\0" * 4000, "truncated"),
])  # fmt: skip
@pytest.mark.parametrize("name", ["a.mp4", "a.wav", "-a:b.mp4"])
def test_files_that_do_not_open(tmp_path, content, reason, name):
    (tmp_path / name).write_bytes(content)
    assert rejection(audio.read, tmp_path / name) == reason
    assert rejection(video.extract, [tmp_path / name], Video(fps=1.0)) == reason


def test_missing_and_empty_sound(tmp_path):
    assert rejection(audio.read, tmp_path / "a.wav") == "missing_file"
    assert rejection(audio.read, write_clip(tmp_path / "a.mp4")) == "no_audio"
    soundfile.write(tmp_path / "b.wav", np.zeros((0, 1)), 16000)
    assert rejection(audio.read, tmp_path / "b.wav") == "no_audio"


def test_extract_stft_tiles_and_clips(tmp_path):
    wave = noise(0.75, 1, 22050)[0] * 20  # beyond [-1, 1]
    soundfile.write(tmp_path / "a.wav", wave, 22050, subtype="FLOAT")
    found = audio.extract([tmp_path / "a.wav"], Audio())
    expected = audio.log_stft(torch.from_numpy(np.tile(wave, 5)[:66150].clip(-1, 1)), 512, 353)
    assert found.payload.shape == (257, 188) and found.payload.dtype == np.float16
    assert np.abs(found.payload - expected.numpy()).max() < 0.01
    assert (found.flags, found.n_frames) == (("clipped",), 47)
    assert found.duration_s == pytest.approx(0.75, abs=1e-4)


@pytest.mark.parametrize("samples", [1, 10, 100000])
@pytest.mark.parametrize("spec", [
    Audio(), BANK, Audio("stft", 16000, 10.0, 256, 128),
])  # fmt: skip
def test_extract_of_any_length(tmp_path, samples, spec):
    soundfile.write(tmp_path / "a.wav", np.full(samples, 0.1), 11025)
    assert audio.extract([tmp_path / "a.wav"], spec).payload.shape == spec.shape


def test_extract_fbank_pads_with_zeros_and_neither_tiles_nor_clips(tmp_path):
    wave = noise(0.75, 1, 16000)[0] * 20  # beyond [-1, 1]
    soundfile.write(tmp_path / "a.wav", wave, 16000, subtype="FLOAT")
    found = audio.extract([tmp_path / "a.wav"], BANK)
    expected = audio.fbank(torch.from_numpy(wave), 16000, 128, 1024)
    assert np.abs(found.payload - expected.numpy()).max() < 0.01
    assert (found.payload[:, 73:] == 0).all() and (found.payload[:, :73] != 0).any(0).all()
    assert (found.n_frames, found.duration_s) == (75, 0.75)


def test_of_a_long_wave_the_first_1024_windows_are_kept(tmp_path):
    wave = torch.from_numpy(noise(12, 1, 16000)[0])
    whole = audio.fbank(wave, 16000, 128, 2000)
    # The mean of what is cut off is not taken off: each window loses its own in any case.
    assert torch.allclose(audio.feature(wave, BANK), whole[:, :1024], atol=1e-3)


def test_silence(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(16000), 16000)
    found = audio.extract([tmp_path / "a.wav"], Audio())
    assert found.flags == ("silent",) and np.allclose(found.payload, SILENCE, atol=0.01)
    assert rejection(audio.extract, [tmp_path / "a.wav"], Audio(drop_silent=True)) == "silent"
    click = np.zeros(16000)
    click[:100] = 0.5
    soundfile.write(tmp_path / "b.wav", click, 16000)
    assert audio.extract([tmp_path / "b.wav"], Audio()).flags == ("silent",)


def test_sources_in_order(tmp_path):
    def candidate(*names):
        return Candidate("a", 0, {"audio": names})

    spec = {"audio": Audio()}
    (tmp_path / "a.wav").write_bytes(b"")
    flv = write_clip(tmp_path / "a.flv", codec="flv", wave=noise(3), sound="libmp3lame")
    found = extract_sample(tmp_path, candidate("a.wav", flv.name), spec)["audio"]
    assert (found.flags, found.used) == (("source=flv",), 1)
    write_clip(tmp_path / "b.flv", codec="flv")
    assert rejection(extract_sample, tmp_path, candidate("a.wav", "b.flv"), spec) == "unreadable"
    assert rejection(audio.extract, [], Audio()) == "no_audio"


def test_missing_sound_is_filled_when_asked(tmp_path):
    path = write_clip(tmp_path / "a.mp4")
    found = audio.extract([path], Audio(missing="fill"))
    assert found.flags == ("no_audio", "silent") and found.n_frames == 0
    assert np.allclose(found.payload, SILENCE, atol=0.01)
    bank = audio.extract([path], Audio("fbank", 16000, 10.255, missing="fill"))
    assert bank.payload.shape == (128, 1024) and (bank.payload < -15).all()
    assert rejection(audio.extract, [path], Audio(missing="fill", drop_silent=True)) == "silent"


def test_values_that_are_not_finite(tmp_path):
    wave = noise(1, 1)[0]
    wave[100] = np.nan
    soundfile.write(tmp_path / "a.wav", wave, 44100, subtype="FLOAT")
    assert rejection(audio.extract, [tmp_path / "a.wav"], Audio()) == "bad_values"


def test_cut_sound_gives_what_decodes(tmp_path):
    soundfile.write(tmp_path / "a.wav", noise(1, 1)[0], 44100)
    assert audio.read(cut(tmp_path / "a.wav", 0.5))[0].shape[1] == pytest.approx(22050, abs=50)
    path = write_clip(tmp_path / "a.mp4", wave=noise(3), container={"movflags": "faststart"})
    found = audio.extract([cut(path, 0.6)], Audio())
    assert 1 < found.duration_s < 2.5
