"""Pictures from the web: every form and every damage ends in a JPEG or in a reason."""

import functools
import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import PIL.ImageFile
import PIL.ImageOps
import pytest
from clips import extract, refused, rejection
from conftest import ROOT

from data_prep.modalities.base import Draw
from data_prep.modalities.image import GREY, Image
from data_prep.modalities.pictures import Limits, from_jpeg, read_picture
from data_prep.reasons import Reject
from data_prep.sample import extract_sample
from data_prep.spec import Candidate
from fixtures.food_tree import zero_png

RED, WHITE, BLACK = (255, 0, 0), (255, 255, 255), (0, 0, 0)


def noise(height: int = 24, width: int = 40, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def photo(height: int = 240, width: int = 320) -> np.ndarray:
    """Smooth enough for a JPEG to keep it."""
    return cv2.resize(noise(6, 8), (width, height), interpolation=cv2.INTER_CUBIC)


def save(path: Path, image: np.ndarray, form: str = "PNG", **more) -> Path:
    PIL.Image.fromarray(image).save(path, form, **more)
    return path


def put(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def read(path: Path, short_side: int = 256) -> np.ndarray:
    """The picture before it becomes a JPEG."""
    return read_picture(path, Limits(short_side, 100_000_000))


def apart(a: np.ndarray, b) -> float:
    """The mean difference in levels."""
    return float(np.abs(a.astype(int) - b).mean())


def exif_of(orientation: int) -> bytes:
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes()


def chunk(kind: bytes, data: bytes) -> bytes:
    """A part of a PNG."""
    body = kind + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))


def raw_png(width: int, height: int, depth: int, colour: int, rows: bytes) -> bytes:
    """A PNG from its rows, each with a filter number in front."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


# --- what is stored -------------------------------------------------------------------------------


def test_the_stored_jpeg_shows_the_picture_in_the_quality_asked(tmp_path):
    path = save(tmp_path / "a.png", photo())
    found = extract(Image(), path)
    (stored,) = found.payload
    assert (found.flags, found.duration_s, found.n_frames) == ((), 0.0, 1)
    assert stored[:2] == b"\xff\xd8" and apart(from_jpeg(stored), photo()) < 4
    _, wanted = cv2.imencode(".jpg", photo()[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 50])
    assert extract(Image(quality=50), path).payload == [wanted.tobytes()]


def test_the_shorter_side_shrinks_by_area_and_never_grows(tmp_path):
    image = noise(300, 450)
    path = save(tmp_path / "a.png", image)
    small = cv2.resize(image, (150, 100), interpolation=cv2.INTER_AREA)
    assert np.array_equal(read(path, 100), small)
    assert np.array_equal(read(path, 300), image) and np.array_equal(read(path, 4000), image)
    assert read(save(tmp_path / "b.png", noise(450, 300)), 100).shape == (150, 100, 3)


def test_the_model_sees_red_as_red(tmp_path):
    stored = extract(Image(), save(tmp_path / "a.png", np.full((40, 60, 3), RED, np.uint8))).payload
    batch = Image().to_input(stored, Draw(32))
    assert batch.shape == (1, 3, 32, 32) and batch.dtype == np.uint8
    assert batch[0, 0].min() > 245 and batch[0, 1:].max() < 10
    turned = Image().to_input(stored, Draw(32, np.random.default_rng(0), True))
    assert turned.shape == batch.shape and not np.array_equal(turned, batch)


# --- forms ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["PNG", "WEBP", "BMP", "GIF"])
def test_the_content_decides_the_format(tmp_path, form):
    image = np.repeat(np.repeat(noise(3, 5), 8, 0), 8, 1)  # few colours: a GIF keeps them
    more = {"lossless": True} if form == "WEBP" else {}
    assert np.array_equal(read(save(tmp_path / "named.jpg", image, form, **more)), image)


def test_a_phones_two_pictures_in_one_jpeg(tmp_path):
    first, second = (PIL.Image.fromarray(photo() // k) for k in (1, 4))
    first.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[second])
    assert apart(read(tmp_path / "a.jpg"), photo()) < 4


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_comes_upright(tmp_path, orientation):
    path = save(tmp_path / "a.png", noise(), exif=exif_of(orientation))
    with PIL.Image.open(path) as picture:
        wanted = np.asarray(PIL.ImageOps.exif_transpose(picture))
    assert np.array_equal(read(path), wanted)
    assert np.array_equal(wanted, noise()) == (orientation == 1)
    small = cv2.resize(noise(), (20, 12), interpolation=cv2.INTER_AREA)  # before it is turned
    turned = read(path, 12)
    assert turned.shape[:2] == ((12, 20) if orientation < 5 else (20, 12))
    assert sorted(turned.ravel()) == sorted(small.ravel())


@pytest.mark.parametrize("exif", [
    exif_of(0), exif_of(9), exif_of(65535), exif_of(6)[:14], b"Exif\0\0MM\0*",
    b"Exif\0\0" + b"\xff" * 99,
])  # fmt: skip
def test_an_orientation_that_is_none_turns_nothing(tmp_path, exif):
    assert np.array_equal(read(save(tmp_path / "a.png", noise(), exif=exif)), noise())


def transparent(mode: str) -> tuple[PIL.Image.Image, dict]:
    """A picture of two pixels, the left one transparent black and the right one opaque black."""
    picture = PIL.Image.new(mode, (2, 1))
    if mode in ("RGBA", "LA"):
        picture.putpixel((1, 0), (*(0,) * (len(mode) - 1), 255))
        return picture, {}
    if mode == "P":
        picture.putpalette([0, 0, 0, 0, 0, 0])
        picture.putpixel((1, 0), 1)
        return picture, {"transparency": 0}
    values = {"L": (9, 0), "RGB": ((9, 9, 9), BLACK), "I;16": (9, 0)}[mode]
    for x, value in enumerate(values):
        picture.putpixel((x, 0), value)
    return picture, {"transparency": values[0]}


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "L", "RGB", "I;16", "GIF"])
def test_transparent_pixels_show_white(tmp_path, mode):
    picture, more = transparent("P" if mode == "GIF" else mode)
    picture.save(tmp_path / "a.jpg", "GIF" if mode == "GIF" else "PNG", **more)
    found = read(tmp_path / "a.jpg").tolist()
    assert found == [[list(WHITE), list(BLACK)]]


def test_half_transparent_is_half_white(tmp_path):
    PIL.Image.new("RGBA", (1, 1), (200, 0, 100, 51)).save(tmp_path / "a.png")
    assert read(tmp_path / "a.png")[0, 0].tolist() == [244, 204, 224]


@pytest.mark.parametrize("ink,colour", [
    ((0, 255, 255, 0), RED), ((0, 0, 0, 0), WHITE), ((0, 0, 0, 255), BLACK),
    ((255, 0, 255, 0), (0, 255, 0)),
])  # fmt: skip
def test_cmyk_becomes_rgb(tmp_path, ink, colour):
    PIL.Image.new("CMYK", (16, 16), ink).save(tmp_path / "a.jpg", "JPEG", quality=95)
    assert np.abs(read(tmp_path / "a.jpg").astype(int) - colour).max() < 6


def test_16_bits_keep_their_high_byte_and_one_bit_is_black_or_white(tmp_path):
    grey, colour = (
        np.random.default_rng(0).integers(0, 1 << 16, shape).astype(np.uint16)
        for shape in ((30, 20), (30, 20, 3))
    )
    cv2.imwrite(str(tmp_path / "a.png"), grey)
    assert (read(tmp_path / "a.png") == (grey >> 8)[:, :, None]).all()
    cv2.imwrite(str(tmp_path / "b.png"), colour[:, :, ::-1])
    assert np.array_equal(read(tmp_path / "b.png"), (colour >> 8).astype(np.uint8))
    row = read(put(tmp_path / "c.png", raw_png(8, 1, 1, 0, b"\0\xa5")))[0, :, 0] // 255
    assert row.tolist() == [1, 0, 1, 0, 0, 1, 0, 1]


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP"])
def test_of_an_animation_the_first_picture(tmp_path, form):
    first, *others = (PIL.Image.new("RGB", (20, 10), c) for c in (RED, WHITE, BLACK))
    more = {"lossless": True} if form == "WEBP" else {}
    first.save(tmp_path / "a.jpg", form, save_all=True, append_images=others, duration=50, **more)
    assert (read(tmp_path / "a.jpg") == RED).all()


def test_heic_and_avif_where_they_can_be_read(tmp_path):
    if PIL.features.check("avif"):
        assert read(save(tmp_path / "a.jpg", photo(60, 80), "AVIF")).shape == (60, 80, 3)
    head = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(400)
    with pytest.raises(Reject, match="bad_image|HEIC picture: `pip install pillow-heif` reads it"):
        read(put(tmp_path / "b.jpg", head))


# --- damage ---------------------------------------------------------------------------------------


@functools.cache
def written(form: str, **more) -> bytes:
    buffer = io.BytesIO()
    PIL.Image.fromarray(photo(60, 80)).save(buffer, form, **more)
    return buffer.getvalue()


FORMS = ["JPEG", "PNG", "GIF", "WEBP", "BMP"]
TIFF = written("TIFF")


@pytest.mark.parametrize("content", [
    b"", b"\0" * 500, b"<!DOCTYPE html><html><body>404 Not Found</body></html>" * 20, b"\xff\xd8",
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n", b"GIF89a", b"\x89PNG\r\n\x1a\n",
    b"P6 1 1 255 \0\0\0", raw_png(0, 5, 8, 2, b""), TIFF,
], ids=["empty", "zeros", "html", "jpeg", "eps", "gif", "png", "ppm", "no width", "tiff"])  # fmt: skip
def test_what_is_no_picture_is_unreadable(tmp_path, content):
    with pytest.raises(Reject) as caught:
        extract(Image(), put(tmp_path / "a.jpg", content))
    assert caught.value.reason == "unreadable"
    assert caught.value.detail.startswith("a.jpg: ") and str(tmp_path) not in caught.value.detail


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("form", FORMS)
def test_a_picture_that_is_cut_off_is_refused(tmp_path, form, share, monkeypatch):
    monkeypatch.setattr(PIL.ImageFile, "LOAD_TRUNCATED_IMAGES", True)  # as other libraries set it
    path = put(tmp_path / "a.jpg", written(form)[: int(share * len(written(form)))])
    assert refused(Image(), path) == "bad_image"
    assert PIL.ImageFile.LOAD_TRUNCATED_IMAGES is True  # and left as it was


@pytest.mark.parametrize("form", FORMS)
def test_damaged_bytes_end_in_a_picture_or_a_reason(tmp_path, form):
    rng, ends = np.random.default_rng(0), set()
    for _ in range(600):
        content = np.frombuffer(written(form), np.uint8).copy()
        # Half of the damage falls on the header, where it leads astray.
        places = rng.integers(0, rng.choice([60, len(content)]), rng.integers(1, 12))
        content[places] = rng.integers(0, 256, len(places))
        cut = content[: int(rng.integers(1, len(content) + 1))].tobytes()
        try:
            found = extract(Image(max_pixels=1_000_000), put(tmp_path / "a.jpg", cut))
            ends.add("kept")
            assert from_jpeg(found.payload[0]).ndim == 3
        except Reject as reject:
            ends.add(reject.reason)
    assert {"bad_image", "unreadable"} <= ends <= {"bad_image", "unreadable", "kept"}


def test_nothing_is_said_on_stderr(tmp_path, capfd, recwarn):
    exif = b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\x01\x12\0\x03\xff\xff\xff\xff" * 9
    extract(Image(), save(tmp_path / "a.jpg", noise(), "JPEG", exif=exif))
    assert refused(Image(), put(tmp_path / "b.jpg", written("JPEG")[:600])) == "bad_image"
    assert capfd.readouterr() == ("", "") and not recwarn.list


def with_chunk(extra: bytes) -> bytes:
    return PNG[:33] + extra + PNG[33:]


PNG, JPEG = written("PNG"), written("JPEG", quality=90)
PROGRESSIVE = written("JPEG", quality=90, progressive=True)
BAD_SUM = with_chunk(chunk(b"tEXt", b"k\0v")[:-4] + bytes(4))
WHOLE = {
    "text_2mb": (with_chunk(chunk(b"zTXt", b"k\0\0" + zlib.compress(b"a" * (2 << 20)))), PNG),
    "icc_2mb": (with_chunk(chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(2 << 20)))), PNG),
    "bad_sum": (BAD_SUM, PNG),
    "no_end": (JPEG[:-2], JPEG),
    "no_end_progressive": (PROGRESSIVE[:-2], PROGRESSIVE),
    "line_end_before": (b"\r\n" + JPEG, JPEG),
}


@pytest.mark.parametrize("name", WHOLE)
def test_what_is_no_picture_costs_no_picture(tmp_path, name):
    first, second = (read(put(tmp_path / "a", data)) for data in WHOLE[name])
    assert np.array_equal(first, second)


@pytest.mark.parametrize("lost", [3, 10, 20, 200])
@pytest.mark.parametrize("data", [JPEG, PROGRESSIVE], ids=["baseline", "progressive"])
def test_a_jpeg_that_lacks_more_than_its_end_is_no_picture(tmp_path, data, lost):
    path = put(tmp_path / "a.jpg", data[:-lost])
    try:
        found = read(path)
    except Reject as reject:
        assert reject.reason == "bad_image"
    else:  # the last bits of a code may be filling
        assert lost == 3 and np.array_equal(found, read(put(tmp_path / "b.jpg", data)))


@pytest.mark.parametrize("place", [65, 220])
def test_a_png_whose_picture_is_damaged_is_refused(tmp_path, place):
    data = bytearray(BAD_SUM)
    data[place] ^= 255
    assert refused(Image(), put(tmp_path / "a.png", bytes(data))) == "bad_image"


# --- limits ---------------------------------------------------------------------------------------


def test_max_pixels_is_the_specs(tmp_path):
    path, before = save(tmp_path / "a.png", noise(20, 50)), PIL.Image.MAX_IMAGE_PIXELS
    assert extract(Image(max_pixels=1000), path).flags == ()
    for most in (999, 400):  # Pillow's own limit of twice the number is met first
        assert refused(Image(max_pixels=most), path) == "bad_image"
    assert before == PIL.Image.MAX_IMAGE_PIXELS


# Growth of the memory in use in MB, after a small picture, by the pictures that follow.
GROWTH = """
import sys
from pathlib import Path
from data_prep.modalities.image import Image
from data_prep.reasons import Reject
from tests.memory import peak

small, *others = sys.argv[1:]
Image().extract([Path(small)], None, None)
before = peak()
for name in others:
    try:
        Image().extract([Path(name)], None, None)
        print("kept")
    except Reject as reject:
        print(reject.reason, reject.detail)
print(int(peak() - before))
"""


def growth(*paths: Path) -> tuple[list[str], int]:
    done = subprocess.run(
        [sys.executable, "-c", GROWTH, *paths],
        cwd=ROOT, capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    *lines, grown = done.stdout.splitlines()
    return lines, int(grown)


def test_a_bomb_is_refused_by_its_header_without_memory(tmp_path):
    with PIL.Image.open(io.BytesIO(zero_png(300, 250))) as whole:  # sound but for its size
        assert not np.asarray(whole).any() and whole.size == (300, 250)
    screen = struct.pack("<HHBBB", 65535, 65535, 0, 0, 0)
    frame = struct.pack("<HHHHB", 0, 0, 65535, 65535, 0)
    sizes = struct.pack("<IIIIiiHH", 54, 0, 54, 40, 50000, 50000, 1, 24)
    webp = bytearray(written("WEBP"))  # RIFF, size, WEBP, VP8, size, frame tag, start code
    assert webp[23:26] == b"\x9d\x01\x2a"
    webp[26:30] = struct.pack("<HH", 16383, 16383)  # the largest there is
    bombs = (
        zero_png(30_000, 30_000), b"GIF89a" + screen + b"," + frame + b"\x08\x01\0\0;",
        b"BM" + sizes + bytes(24), webp,
    )  # fmt: skip
    paths = [put(tmp_path / f"{k}.jpg", bomb) for k, bomb in enumerate(bombs)]
    assert paths[0].stat().st_size < 120_000
    lines, grown = growth(save(tmp_path / "small.png", noise()), *paths)
    assert [line.split()[0] for line in lines] == ["bad_image"] * 4, lines
    assert "30000 x 30000" in lines[0] and "16383 x 16383" in lines[3] and grown < 20


def test_the_largest_pictures_take_a_bounded_memory(tmp_path):
    path = put(tmp_path / "a.png", zero_png(9_000, 9_000))
    lines, grown = growth(save(tmp_path / "small.png", noise()), path)
    # 81 million pixels: 1 byte of each decoded, 4 as colours in Pillow, and 3 + 3 in its copy for
    # NumPy (the parts and their whole).
    assert lines == ["kept"] and grown < 81 * 12


def test_a_strip_too_long_for_a_jpeg_and_a_huge_file_are_refused(tmp_path):
    path = save(tmp_path / "a.png", np.zeros((2, 65_501, 3), np.uint8))
    assert refused(Image(), path) == "bad_image"
    path = save(tmp_path / "b.png", np.zeros((512, 66_000, 3), np.uint8))
    assert from_jpeg(extract(Image(), path).payload[0]).shape == (256, 33_000, 3)
    with open(path, "r+b") as handle:
        handle.truncate((1 << 29) + 1)
    assert refused(Image(), path) == "bad_image"


# --- no file, and a stand-in ----------------------------------------------------------------------


def test_a_missing_file_has_its_own_reason(tmp_path):
    assert refused(Image(), tmp_path / "a.jpg") == refused(Image()) == "missing_file"
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    assert refused(Image(), tmp_path / "loop.jpg") == "unreadable"


FILL = Image(missing="fill")


@pytest.mark.parametrize("content", [None, b"", b"<html>", JPEG[:500]])
def test_filled_pictures_are_grey_and_flagged(tmp_path, content):
    path = tmp_path / "a.jpg"
    if content is not None:
        put(path, content)
    found = extract(FILL, path)
    assert (found.flags, found.n_frames) == (("missing_image",), 0)
    grey = from_jpeg(found.payload[0])
    assert grey.shape == (256, 256, 3) and np.abs(grey.astype(int) - GREY).max() <= 2
    assert extract(FILL, save(tmp_path / "b.png", noise())).flags == ()


@pytest.mark.parametrize("content,reason", [
    (b"", "unreadable"), (b"version https://git-lfs.github.com/spec/v1\nsize 1\n", "lfs_pointer"),
])  # fmt: skip
def test_a_sample_of_nothing_but_a_stand_in_is_refused(tmp_path, content, reason):
    put(tmp_path / "a.jpg", content)
    candidate = Candidate("a", 0, {"image": ("a.jpg",)})
    assert rejection(extract_sample, tmp_path, {"image": FILL}, None, candidate) == reason
