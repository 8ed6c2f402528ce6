"""Sound: waves from files, their spectrograms, and odd or damaged files."""

import math
import struct
from fractions import Fraction

import av
import librosa
import numpy as np
import pytest
import soundfile
import torch
import torchaudio.functional
from clips import cut, extract, noise, refused, write_clip

from data_prep.modalities import sound
from data_prep.modalities.audio import Audio
from data_prep.modalities.base import Draw
from data_prep.modalities.video import Video

BANK = Audio("fbank", 16000, 10.255)  # 1,024 windows
RATE = 16000
SHORT = Audio("stft", sample_rate=RATE, seconds=2.0, n_fft=512, hop=256)
TONE = 0.4 * np.sin(2 * np.pi * 440 * np.arange(2 * RATE) / RATE)
PCM = (TONE * 32767).astype("<i2")


def spectrogram(audio, path):
    """The stored values, [F, T]."""
    return audio.to_input(extract(audio, path).payload, Draw())[0]


def written(path, wave, rate=44100, **more):
    soundfile.write(path, wave, rate, **more)
    return path


# --- spectrograms ---------------------------------------------------------------------------------


@pytest.mark.parametrize("rate,seconds,n_fft,hop,shape", [
    (22050, 3, 512, 353, (257, 188)), (16000, 10, 256, 128, (129, 1251)),
    (22050, 20, 512, 353, (257, 1250)),
])  # fmt: skip
def test_stft_agrees_with_librosa(rate, seconds, n_fft, hop, shape):
    wave = noise(seconds, 1, rate)[0]
    magnitude = np.abs(librosa.stft(wave, n_fft=n_fft, hop_length=hop))
    ours = sound.log_stft(torch.from_numpy(wave), n_fft, hop).numpy()
    assert ours.shape == shape and ours.dtype == np.float32
    assert np.abs(np.exp(ours) - 1e-7 - magnitude).max() < 1e-4
    assert np.abs(ours - np.log(magnitude + 1e-7)).max() < 1e-2


@pytest.mark.parametrize("source,target,slack", [
    (44100, 16000, 2e-3), (44099, 22050, 0.07),  # treated as a nearby rate: 22 us late after 1 s
])  # fmt: skip
def test_resampling_keeps_a_tone_in_little_memory(source, target, slack, monkeypatch):
    used, made = [], sound._resampler
    monkeypatch.setattr(sound, "_resampler", lambda *rates: used.append(rates) or made(*rates))
    tone, expected = (
        torch.sin(torch.arange(rate) * (2 * math.pi * 440 / rate)) for rate in (source, target)
    )
    found = sound.resample(tone, source, target)
    assert found.shape == (target,) and (found - expected)[500:-550].abs().max() < slack
    assert math.prod(used[0]) <= sound.LARGEST_FILTER < 44099 * 22050
    if source == 44100:
        assert torch.equal(found, torchaudio.functional.resample(tone, source, target))


def test_stft_tiles_and_clips_and_fbank_pads_with_zeros(tmp_path):
    wave = noise(0.75, 1, 16000)[0] * 20  # beyond [-1, 1]
    path, stft = written(tmp_path / "a.wav", wave, 16000, subtype="FLOAT"), Audio(sample_rate=16000)
    expected = sound.log_stft(torch.from_numpy(np.tile(wave, 4).clip(-1, 1)), 512, 353)
    found, values = extract(stft, path), spectrogram(stft, path)
    assert values.dtype == np.float16 and np.abs(values - expected.numpy()).max() < 0.01
    assert found.flags == ("clipped",) and found.duration_s == pytest.approx(0.75, abs=1e-4)
    values, bank = spectrogram(BANK, path), sound.fbank(torch.from_numpy(wave), 16000, 128, 1024)
    assert np.abs(values - bank.numpy()).max() < 0.01
    assert (values[:, 73:] == 0).all() and (values[:, :73] != 0).any(0).all()
    # The mean of the cut part is not subtracted: each window loses its own mean anyway.
    long = torch.from_numpy(noise(12, 1, 16000)[0])
    whole = sound.fbank(long, 16000, 128, 2000)
    assert torch.allclose(BANK.spectrogram(long), whole[:, :1024], atol=1e-3)


@pytest.mark.parametrize("samples", [1, 10, 100000])
@pytest.mark.parametrize("audio", [Audio(), BANK, Audio("stft", 16000, 10.0, 256, 128)])
def test_any_length_gives_the_same_shape(tmp_path, samples, audio):
    path = written(tmp_path / "a.wav", np.full(samples, 0.1), 11025)
    assert spectrogram(audio, path).shape == audio.shape


def test_a_window_of_the_columns_is_seen():
    stored = np.arange(257 * 188, dtype=np.float16).tobytes()
    values = Audio().to_input(stored, Draw())
    assert np.array_equal(Audio(window=100).to_input(stored, Draw()), values[:, :, 44:144])
    draws = [Draw(rng=np.random.default_rng(k)) for k in range(9)]
    assert len({Audio(window=100).to_input(stored, draw).tobytes() for draw in draws}) > 3


# --- files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind,tolerance", [
    ("PCM_16", 4e-5), ("PCM_24", 1e-6), ("FLOAT", 0), ("pcm_s16le", 4e-5), ("pcm_u8", 1e-2),
    ("pcm_f32le", 0),
])  # fmt: skip
def test_sample_formats_and_mean_of_channels(tmp_path, kind, tolerance):
    wave = noise(0.5)
    if kind.startswith("pcm"):
        path = write_clip(tmp_path / "a.mkv", 5, wave=wave, sound=kind)
        path.rename(path := tmp_path / "a.wav")  # the content decides
    else:
        path = written(tmp_path / "a.wav", wave.T, subtype=kind)
    decoded, rate, *_ = sound.read(path, 9)
    assert rate == 44100 and decoded.shape == wave.shape
    assert np.abs(decoded.numpy() - wave).max() <= tolerance


@pytest.mark.parametrize("name,codec,kind", [
    ("a.mp4", "libx264", "aac"), ("a.flv", "flv", "libmp3lame"),
])  # fmt: skip
def test_lossy_sound_keeps_its_loudness(tmp_path, name, codec, kind):
    waves = [0.1 * np.sin(2 * np.pi * f * np.arange(44100) / 44100) for f in (440, 1000)]
    wave, path = np.stack(waves).astype(np.float32), tmp_path / name
    found = sound.read(write_clip(path, 10, codec=codec, wave=wave, sound=kind), 9).wave
    # FFmpeg's own mix of float channels would be louder by sqrt(2).
    middle = found.mean(0)[11025:22050]
    assert middle.square().mean().sqrt() == pytest.approx(0.05, rel=0.06)


def test_decoding_stops_early_and_what_is_left_is_flagged(tmp_path):
    first = written(tmp_path / "a.wav", noise(5).T)
    second = write_clip(tmp_path / "a.mkv", 20, wave=noise(5), sound="pcm_s16le")
    for file in (first, second):
        assert sound.read(file, 0.5).wave.shape == (2, 22050)
        assert extract(Audio(), file).flags == ("cut",)


@pytest.mark.parametrize("content,reason", [
    (b"", "unreadable"), (b"<!DOCTYPE html><html><body>404</body></html>" * 20, "unreadable"),
    (b"\0" * 5000, "unreadable"), (b"\0\0\0\x18ftypisom" + b"\0" * 4000, "truncated"),
])  # fmt: skip
@pytest.mark.parametrize("name", ["a.mp4", "a.wav", "-a:b.mp4"])
def test_files_that_do_not_open(tmp_path, content, reason, name):
    (tmp_path / name).write_bytes(content)
    assert refused(Audio(), tmp_path / name) == reason
    assert refused(Video(fps=1.0), tmp_path / name) == reason


def test_missing_empty_and_silent_sound(tmp_path):
    assert refused(Audio()) == "no_audio"
    assert refused(Audio(), tmp_path / "a.wav") == "missing_file"
    assert refused(Audio(), written(tmp_path / "b.wav", np.zeros((0, 1)), 16000)) == "no_audio"
    clip, silence = write_clip(tmp_path / "a.mp4"), math.log(1e-7)
    assert refused(Audio(), clip) == "no_audio"
    for audio in (Audio(missing="fill"), Audio("fbank", 16000, 10.255, missing="fill")):
        found = extract(audio, clip)
        assert found.flags == ("no_audio", "silent") and not found.found
        assert (spectrogram(audio, clip) < -15).all()
    assert refused(Audio(missing="fill", drop_silent=True), clip) == "silent"
    path = written(tmp_path / "c.wav", np.zeros(16000), 16000)
    assert extract(Audio(), path).flags == ("silent",)
    assert np.allclose(spectrogram(Audio(), path), silence, atol=0.01)
    click = np.concatenate([np.full(100, 0.5), np.zeros(15900)])
    assert extract(Audio(), written(path, click, 16000)).flags == ("silent",)


# --- damage and oddities --------------------------------------------------------------------------


def test_sound_that_is_not_finite_is_refused(tmp_path):
    wave = noise(1, 1)[0]
    wave[100] = np.nan
    assert refused(Audio(), written(tmp_path / "b.wav", wave, subtype="FLOAT")) == "bad_values"


def wav(path, payload, size=None, channels=1):
    """A 16-bit WAV file whose header claims `size` bytes of sound."""
    block = channels * 2
    fmt = struct.pack("<HHIIHH", 1, channels, RATE, RATE * block, block, 16)
    size = len(payload) if size is None else size
    body = b"WAVEfmt " + struct.pack("<I", len(fmt)) + fmt + b"data" + struct.pack("<I", size)
    path.write_bytes(b"RIFF" + struct.pack("<I", min(len(body) + size, 2**32 - 1)) + body + payload)
    return path


@pytest.mark.parametrize(("size", "flags"), [
    (0, ()), (0xFFFFFFFF, ()), (2_000_000_000, ()), (2 * len(PCM) + 4000, ("truncated",)),
])  # fmt: skip
def test_a_wrong_length_in_the_header(tmp_path, size, flags):
    found = extract(SHORT, wav(tmp_path / "a.wav", PCM.tobytes(), size))
    plain = extract(SHORT, wav(tmp_path / "b.wav", PCM.tobytes()))
    assert found.flags == flags and found.payload == plain.payload


@pytest.mark.parametrize(("subtype", "endian"), [
    ("PCM_16", "LITTLE"), ("PCM_16", "BIG"), ("MS_ADPCM", "LITTLE"), ("IMA_ADPCM", "LITTLE"),
])  # fmt: skip
@pytest.mark.parametrize(("share", "flags"), [(1.0, ()), (0.6, ("truncated",))])
def test_a_cut_wav_is_recognised_in_every_format(tmp_path, subtype, endian, share, flags):
    path = written(tmp_path / "a.wav", PCM, RATE, subtype=subtype, endian=endian, format="WAV")
    assert extract(SHORT, cut(path, share)).flags == flags


def hiss(level):
    return np.random.default_rng(0).normal(0, level, len(PCM))


@pytest.mark.parametrize(("second", "flags"), [
    (-PCM, ("one_channel",)),
    # As two microphones or a lossy codec leave them: the mix is practically silent.
    (-0.98 * PCM, ("one_channel",)), (-np.roll(PCM, 1), ("one_channel",)),
    (hiss(100) - PCM, ("one_channel",)), (0 * PCM, ()), (PCM, ()), (hiss(8000), ()),
])  # fmt: skip
def test_the_loudest_channel_replaces_channels_that_cancel(tmp_path, second, flags):
    both = np.stack([PCM, np.clip(second, -32768, 32767)], 1).astype("<i2")
    path = wav(tmp_path / "a.wav", both.tobytes(), channels=2)
    assert extract(SHORT, path).flags == flags
    if flags:
        plain = spectrogram(SHORT, wav(tmp_path / "b.wav", PCM.tobytes()))
        assert np.corrcoef(spectrogram(SHORT, path).ravel(), plain.ravel())[0, 1] > 0.9


def tracks(path, *waves, start=0.0, picture=False):
    """An mkv with AAC tracks that begin at `start` seconds and a picture from 0 on."""
    with av.open(str(path), "w") as out:
        shown = out.add_stream("libx264", rate=10, pix_fmt="yuv420p") if picture else None
        streams = [out.add_stream("aac", rate=RATE, layout="mono") for _ in waves]
        grey = [np.full((480, 640, 3), k, np.uint8) for k in range(20)]
        frames = [av.VideoFrame.from_ndarray(image) for image in grey]
        for frame in [*frames, None] if picture else []:
            out.mux(shown.encode(frame))
        for stream, wave in zip(streams, waves):
            values = np.ascontiguousarray(wave[None].astype(np.float32))
            frame = av.AudioFrame.from_ndarray(values, "fltp", "mono")
            frame.sample_rate, frame.time_base = RATE, Fraction(1, RATE)
            frame.pts = int(start * RATE)
            out.mux(stream.encode(frame) + stream.encode(None))
    return path


def test_a_silent_first_track_gives_way_to_one_with_sound(tmp_path):
    found = sound.read(tracks(tmp_path / "a.mkv", 0 * TONE, TONE), 2.0)
    assert found.flags == ("other_track",) and float(found.wave.abs().max()) > 0.3
    assert sound.read(tracks(tmp_path / "b.mkv", TONE, 0 * TONE), 2.0).flags == ()
    assert extract(SHORT, tracks(tmp_path / "c.mkv", 0 * TONE, 0 * TONE)).flags == ("silent",)


@pytest.mark.parametrize("start,flags", [(0.0, ()), (0.05, ()), (0.5, ("shifted",))])
def test_a_track_that_begins_after_the_picture_is_shifted(tmp_path, start, flags):
    found = sound.read(tracks(tmp_path / "a.mkv", TONE, start=start, picture=True), 9)
    first = float(np.flatnonzero(found.wave[0].abs().numpy() > 0.05)[0]) / RATE
    assert found.flags == flags and first == pytest.approx(start if flags else 0, abs=0.1)


@pytest.mark.parametrize("name", ["a.wav", "a.avi"])
@pytest.mark.parametrize("rate,kept", [
    (999, False), (1000, True), (44099, True), (768_000, True), (768_001, False), (2**31 - 1, False)
])  # fmt: skip
def test_sample_rates_that_a_header_may_have(tmp_path, name, rate, kept):
    path = write_clip(tmp_path / name, 0, wave=noise(0.5), sound="pcm_s16le")
    old, new = ((r * 4).to_bytes(4, "little") for r in (44100, rate % 2**30))
    data = path.read_bytes().replace((44100).to_bytes(4, "little"), rate.to_bytes(4, "little"))
    path.write_bytes(data.replace(old, new))
    if kept:
        assert spectrogram(Audio(), path).shape == Audio().shape
    else:
        assert refused(Audio(), path) == "unreadable"
