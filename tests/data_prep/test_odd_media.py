"""Media that players play and loaders stumble over: headers, channels, tracks, extras, cuts."""

import io
import struct
import zlib
from fractions import Fraction

import av
import numpy as np
import PIL.Image
import pytest
import soundfile
from clips import noise, write_clip

from data_prep.modalities import audio, image, video
from data_prep.reasons import Reject
from data_prep.spec import Audio, Image, Video

RATE = 16000
SPEC = Audio("stft", sample_rate=RATE, seconds=2.0, n_fft=512, hop=256)
TONE = 0.4 * np.sin(2 * np.pi * 440 * np.arange(2 * RATE) / RATE)
PCM = (TONE * 32767).astype("<i2")


# --- sound ----------------------------------------------------------------------------------------


def wav(path, payload, size=None, channels=1, tag=1, bits=16):
    """A WAV file whose header announces `size` bytes of sound."""
    block = channels * bits // 8
    fmt = struct.pack("<HHIIHH", tag, channels, RATE, RATE * block, block, bits)
    size = len(payload) if size is None else size
    body = b"WAVEfmt " + struct.pack("<I", len(fmt)) + fmt + b"data" + struct.pack("<I", size)
    path.write_bytes(b"RIFF" + struct.pack("<I", min(len(body) + size, 2**32 - 1)) + body + payload)
    return path


def extract(path):
    return audio.extract([path], SPEC)


@pytest.fixture
def plain(tmp_path):
    return extract(wav(tmp_path / "plain.wav", PCM.tobytes())).payload


@pytest.mark.parametrize(("size", "flags"), [
    (0, ()), (0xFFFFFFFF, ()), (2_000_000_000, ()), (2 * len(PCM) + 4000, ("truncated",)),
])  # fmt: skip
def test_a_length_that_the_header_has_wrong(tmp_path, plain, size, flags):
    found = extract(wav(tmp_path / "a.wav", PCM.tobytes(), size))
    assert found.flags == flags and np.array_equal(found.payload, plain)


def test_a_wav_without_any_sound_stays_one_without_sound(tmp_path):
    with pytest.raises(Reject) as reject:
        extract(wav(tmp_path / "a.wav", b""))
    assert reject.value.reason == "no_audio"


@pytest.mark.parametrize(("subtype", "endian"), [
    ("PCM_16", "LITTLE"), ("PCM_16", "BIG"), ("MS_ADPCM", "LITTLE"), ("IMA_ADPCM", "LITTLE"),
])  # fmt: skip
@pytest.mark.parametrize("share", [1.0, 0.6])
def test_wav_of_every_form_is_known_to_be_cut(tmp_path, subtype, endian, share):
    whole = tmp_path / "whole.wav"
    soundfile.write(whole, PCM, RATE, subtype, endian, "WAV")
    content = whole.read_bytes()
    (tmp_path / "a.wav").write_bytes(content[: int(share * len(content))])
    assert extract(tmp_path / "a.wav").flags == (() if share == 1 else ("truncated",))


def test_channels_of_opposite_phase_are_not_silent(tmp_path, plain):
    both = np.stack([PCM, -PCM], 1)
    found = extract(wav(tmp_path / "a.wav", both.tobytes(), channels=2))
    assert found.flags == ("one_channel",) and np.array_equal(found.payload, plain)


@pytest.mark.parametrize("second", [
    lambda x: -0.98 * x, lambda x: -np.roll(x, 1), lambda x: hiss(x, 100) - x,
])  # fmt: skip
def test_channels_that_nearly_cancel_give_way_to_the_loudest(tmp_path, plain, second):
    """As two microphones, or a lossy codec, leave them: what remains of the mix is no sound."""
    both = np.stack([PCM, second(PCM).clip(-32768, 32767).astype("<i2")], 1)
    found = extract(wav(tmp_path / "a.wav", both.tobytes(), channels=2))
    assert found.flags == ("one_channel",)
    assert np.corrcoef(found.payload.ravel(), plain.ravel())[0, 1] > 0.9


@pytest.mark.parametrize("second", [lambda x: 0 * x, lambda x: x, lambda x: hiss(x, 8000)])
def test_other_channels_are_mixed(tmp_path, second):
    both = np.stack([PCM, second(PCM).astype("<i2")], 1)
    found = extract(wav(tmp_path / "a.wav", both.tobytes(), channels=2))
    assert found.flags == ()


def hiss(wave, level):
    return np.random.default_rng(0).normal(0, level, len(wave))


def test_floats_in_16_bit_units_are_flagged(tmp_path):
    payload = PCM.astype("<f4").tobytes()
    found = extract(wav(tmp_path / "a.wav", payload, tag=3, bits=32))
    assert found.flags == ("clipped",)
    loud = extract(wav(tmp_path / "b.wav", (TONE / 0.4).astype("<f4").tobytes(), tag=3, bits=32))
    assert loud.flags == ()


def tracks(path, *waves, starts=(0.0, 0.0), picture=False):
    """An mkv of AAC tracks that begin at `starts` seconds, beside a picture from 0 on."""
    with av.open(str(path), "w") as out:
        shown = out.add_stream("libx264", rate=10) if picture else None
        if shown:
            shown.width, shown.height, shown.pix_fmt = 64, 48, "yuv420p"
        streams = [out.add_stream("aac", rate=RATE, layout="mono") for _ in waves]
        if shown:
            for k in range(20):
                level = np.full((48, 64, 3), 10 * k, np.uint8)
                frame = av.VideoFrame.from_ndarray(level, "rgb24")
                out.mux(shown.encode(frame))
            out.mux(shown.encode(None))
        for stream, wave, start in zip(streams, waves, starts):
            for k in range(0, len(wave), 1024):
                chunk = np.ascontiguousarray(wave[None, k : k + 1024].astype(np.float32))
                frame = av.AudioFrame.from_ndarray(chunk, "fltp", "mono")
                frame.sample_rate, frame.time_base = RATE, Fraction(1, RATE)
                frame.pts = k + round(start * RATE)
                out.mux(stream.encode(frame))
            out.mux(stream.encode(None))
    return path


def test_a_silent_first_track_gives_way_to_one_with_sound(tmp_path):
    path = tracks(tmp_path / "a.mkv", np.zeros_like(TONE), TONE)
    sound = audio.read(path, 2.0)
    assert sound.flags == ("other_track",) and float(sound.wave.abs().max()) > 0.3
    assert audio.read(tracks(tmp_path / "b.mkv", TONE, np.zeros_like(TONE))).flags == ()
    assert extract(tracks(tmp_path / "c.mkv", *[np.zeros_like(TONE)] * 2)).flags == ("silent",)


@pytest.mark.parametrize("start", [0.0, 0.05, 0.5])
def test_a_track_that_begins_after_the_picture_is_shifted(tmp_path, start):
    sound = audio.read(tracks(tmp_path / "a.mkv", TONE, starts=(start,), picture=True))
    first = float(np.flatnonzero(sound.wave[0].abs().numpy() > 0.05)[0]) / RATE
    if start > 0.1:
        assert sound.flags == ("shifted",) and first == pytest.approx(start, abs=0.1)
    else:
        assert sound.flags == () and first < 0.1


def test_what_is_longer_than_what_is_stored_is_flagged(tmp_path):
    long = np.tile(PCM, 2)
    assert extract(wav(tmp_path / "a.wav", long.tobytes())).flags == ("cut",)
    clip = write_clip(tmp_path / "a.mp4", 47, rate=10)
    assert "cut" in video.extract([clip], Video(fps=1.0, max_frames=3)).flags
    assert "cut" not in video.extract([clip], Video(fps=1.0, max_frames=5)).flags


# --- pictures that move ---------------------------------------------------------------------------


def test_black_and_still_videos_are_flagged(tmp_path):
    spec = Video(fps=2.0, max_frames=4)
    for name, picture, flags in (
        ("black.mp4", np.zeros((48, 64, 3), np.uint8), ("black",)),
        ("still.mp4", np.full((48, 64, 3), 90, np.uint8), ("still",)),
        ("moving.mp4", None, ()),
    ):
        path = write_clip(tmp_path / name, 20, image=picture, wave=noise(2))
        assert video.extract([path], spec).flags == flags


# --- pictures -------------------------------------------------------------------------------------


DRAW = np.random.default_rng(0)
PICTURE = PIL.Image.fromarray(
    np.clip(np.add.outer(np.arange(60), np.arange(80))[..., None] * [1.5, 1, 0.5]
            + DRAW.normal(0, 8, (60, 80, 3)), 0, 255).astype(np.uint8)
)  # fmt: skip


def coded(form, **settings):
    data = io.BytesIO()
    PICTURE.save(data, form, **settings)
    return data.getvalue()


def chunk(kind, data):
    whole = kind + data
    return struct.pack(">I", len(data)) + whole + struct.pack(">I", zlib.crc32(whole))


def with_chunk(data, extra):
    return data[:33] + extra + data[33:]


PNG, JPEG = coded("PNG"), coded("JPEG", quality=90)
PROGRESSIVE = coded("JPEG", quality=90, progressive=True)
WHOLE = {
    "text_2mb": (with_chunk(PNG, chunk(b"zTXt", b"k\0\0" + zlib.compress(b"a" * (2 << 20)))), PNG),
    "icc_2mb": (with_chunk(PNG, chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(2 << 20)))), PNG),
    "bad_sum": (with_chunk(PNG, chunk(b"tEXt", b"k\0v")[:-4] + bytes(4)), PNG),
    "no_end": (JPEG[:-2], JPEG),
    "no_end_progressive": (PROGRESSIVE[:-2], PROGRESSIVE),
    "line_end_before": (b"\r\n" + JPEG, JPEG),
}


@pytest.mark.parametrize("name", WHOLE)
def test_what_is_no_picture_costs_no_picture(tmp_path, name):
    data, same = WHOLE[name]
    (tmp_path / "a").write_bytes(data)
    (tmp_path / "b").write_bytes(same)
    first, second = (image.read_picture(tmp_path / place, Image()) for place in "ab")
    assert np.array_equal(first, second)


@pytest.mark.parametrize("lost", [3, 10, 20, 200])
@pytest.mark.parametrize("data", [JPEG, PROGRESSIVE])
def test_a_jpeg_that_lacks_more_than_its_end_is_no_picture(tmp_path, data, lost):
    (tmp_path / "a.jpg").write_bytes(data[:-lost])
    try:
        found = image.read_picture(tmp_path / "a.jpg", Image())
    except Reject as reject:
        assert reject.reason == "bad_image"
    else:  # the last bits of a code may be filling
        (tmp_path / "b.jpg").write_bytes(data)
        assert lost == 3 and np.array_equal(found, image.read_picture(tmp_path / "b.jpg", Image()))


@pytest.mark.parametrize("place", [45, 200])
def test_a_png_whose_picture_is_damaged_is_refused(tmp_path, place):
    data = bytearray(with_chunk(PNG, chunk(b"tEXt", b"k\0v")[:-4] + bytes(4)))
    data[place + 20] ^= 255
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(Reject):
        image.read_picture(tmp_path / "a.png", Image())


def test_heic_and_avif_where_they_can_be_read(tmp_path):
    if PIL.features.check("avif"):
        (tmp_path / "a.jpg").write_bytes(coded("AVIF", quality=90))
        assert image.read_picture(tmp_path / "a.jpg", Image()).shape == (60, 80, 3)
    (tmp_path / "b.jpg").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(400))
    with pytest.raises(Reject) as reject:
        image.read_picture(tmp_path / "b.jpg", Image())
    assert reject.value.reason in ("unreadable", "bad_image")
    if "HEIF" not in image._formats():
        assert "a HEIC picture: `pip install pillow-heif` reads it" in reject.value.detail
