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
from clips import rejection
from conftest import ROOT

from data_prep.modalities.extracted import extract_sample
from data_prep.modalities.image import GREY, extract, read_picture
from data_prep.modalities.transforms import clip
from data_prep.reasons import Reject
from data_prep.spec import Candidate, Image, VideoView
from fixtures.pictures import zero_png

SPEC = Image()
# Row by row: what a picture must become, exactly.
RED, WHITE, BLACK = (255, 0, 0), (255, 255, 255), (0, 0, 0)


def noise(height: int = 24, width: int = 40, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def photo(height: int = 240, width: int = 320) -> np.ndarray:
    """Smooth enough for a JPEG to keep it."""
    return cv2.resize(noise(6, 8), (width, height), interpolation=cv2.INTER_CUBIC)


def save(path: Path, image: np.ndarray, form: str = "PNG", **more) -> Path:
    PIL.Image.fromarray(image).save(path, form, **more)
    return path


def exif_of(orientation: int) -> bytes:
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes()


def raw_png(width: int, height: int, depth: int, colour: int, rows: bytes) -> bytes:
    """A PNG from its rows, each with a filter number in front."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    parts = [
        struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def decode(stored: bytes) -> np.ndarray:
    return cv2.cvtColor(cv2.imdecode(np.frombuffer(stored, np.uint8), 1), cv2.COLOR_BGR2RGB)


# --- what is stored -------------------------------------------------------------------------------


def test_the_stored_jpeg_shows_the_picture(tmp_path):
    image = photo()
    found = extract([save(tmp_path / "a.png", image)], SPEC)
    (stored,) = found.payload
    assert stored[:2] == b"\xff\xd8" and (found.flags, found.duration_s, found.n_frames) == (
        (),
        0.0,
        1,
    )
    assert np.abs(decode(stored).astype(int) - image).mean() < 4


def test_the_shorter_side_shrinks_by_area_and_never_grows(tmp_path):
    image = noise(300, 450)
    path = save(tmp_path / "a.png", image)
    shrunk = read_picture(path, Image(short_side=100))
    assert np.array_equal(shrunk, cv2.resize(image, (150, 100), interpolation=cv2.INTER_AREA))
    assert np.array_equal(read_picture(path, Image(short_side=300)), image)
    assert np.array_equal(read_picture(path, Image(short_side=4000)), image)
    tall = read_picture(save(tmp_path / "b.png", noise(450, 300)), Image(short_side=100))
    assert tall.shape == (150, 100, 3)


def test_quality_is_the_specs(tmp_path):
    path = save(tmp_path / "a.png", noise(64, 64))
    low, high = (extract([path], Image(quality=q)).payload[0] for q in (50, 95))
    assert len(low) < len(high) / 2
    _, wanted = cv2.imencode(".jpg", noise(64, 64)[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])
    assert high == wanted.tobytes()


def test_the_loader_sees_red_as_red(tmp_path):
    path = save(tmp_path / "a.png", np.full((40, 60, 3), RED, np.uint8))
    stored = extract([path], SPEC).payload
    batch = clip(stored, SPEC, VideoView(1, "rotate_flip"), 32, None)
    assert batch.shape == (1, 3, 32, 32) and batch.dtype == np.uint8
    assert batch[0, 0].min() > 245 and batch[0, 1:].max() < 10
    turned = clip(stored, SPEC, VideoView(1, "rotate_flip"), 32, np.random.default_rng(0), True)
    assert turned.shape == batch.shape and not np.array_equal(turned, batch)


# --- forms ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["PNG", "WEBP", "BMP", "GIF"])
def test_the_content_decides_the_format(tmp_path, form):
    image = np.repeat(np.repeat(noise(3, 5), 8, 0), 8, 1)  # few colours: a GIF keeps them
    more = {"lossless": True} if form == "WEBP" else {}
    path = save(tmp_path / "named.jpg", image, form, **more)
    assert np.array_equal(read_picture(path, SPEC), image)


def test_a_phones_two_pictures_in_one_jpeg(tmp_path):
    first, second = (PIL.Image.fromarray(photo() // k) for k in (1, 4))
    first.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[second])
    assert np.abs(read_picture(tmp_path / "a.jpg", SPEC)[:240].astype(int) - photo()).mean() < 4


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_comes_upright(tmp_path, orientation):
    path = save(tmp_path / "a.png", noise(), exif=exif_of(orientation))
    with PIL.Image.open(path) as picture:
        wanted = np.asarray(PIL.ImageOps.exif_transpose(picture))
    assert np.array_equal(read_picture(path, SPEC), wanted)
    assert np.array_equal(wanted, noise()) == (orientation == 1)


def test_orientation_counts_after_shrinking_too(tmp_path):
    image, exif = noise(200, 300), exif_of(6)  # held upright: the first row is the right edge
    path = save(tmp_path / "a.jpg", image, "JPEG", exif=exif, quality=100, subsampling=0)
    turned = read_picture(path, Image(short_side=100))
    upright = cv2.resize(np.rot90(image, -1), (100, 150), interpolation=cv2.INTER_AREA)
    assert turned.shape == upright.shape and np.abs(turned.astype(int) - upright).max() < 20


@pytest.mark.parametrize("exif", [
    exif_of(0), exif_of(9), exif_of(65535), exif_of(6)[:14], b"Exif\0\0MM\0*",
    b"Exif\0\0" + b"\xff" * 99,
])  # fmt: skip
def test_an_orientation_that_is_none_turns_nothing(tmp_path, exif):
    path = save(tmp_path / "a.png", noise(), exif=exif)
    assert np.array_equal(read_picture(path, SPEC), noise())


def transparent(mode: str) -> tuple[PIL.Image.Image, dict]:
    """A picture of two pixels, the left one transparent black and the right one opaque black."""
    if mode in ("RGBA", "LA"):
        picture = PIL.Image.new(mode, (2, 1))
        picture.putpixel((1, 0), (*(0,) * (len(mode) - 1), 255))
        return picture, {}
    if mode == "P":
        picture = PIL.Image.new("P", (2, 1))
        picture.putpalette([0, 0, 0, 0, 0, 0])
        picture.putpixel((1, 0), 1)
        return picture, {"transparency": 0}
    values = {"L": (9, 0), "RGB": ((9, 9, 9), BLACK), "I;16": (9, 0)}[mode]
    picture = PIL.Image.new(mode, (2, 1))
    for x, value in enumerate(values):
        picture.putpixel((x, 0), value)
    return picture, {"transparency": values[0]}


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "L", "RGB", "I;16"])
def test_transparent_pixels_show_white(tmp_path, mode):
    picture, more = transparent(mode)
    picture.save(tmp_path / "a.jpg", "PNG", **more)
    with PIL.Image.open(tmp_path / "a.jpg") as written:
        assert written.mode == mode
    assert read_picture(tmp_path / "a.jpg", SPEC).tolist() == [[list(WHITE), list(BLACK)]]


def test_half_transparent_is_half_white(tmp_path):
    PIL.Image.new("RGBA", (1, 1), (200, 0, 100, 51)).save(tmp_path / "a.png")
    assert read_picture(tmp_path / "a.png", SPEC)[0, 0].tolist() == [244, 204, 224]


def test_a_gif_with_a_transparent_colour(tmp_path):
    picture, more = transparent("P")
    picture.save(tmp_path / "a.gif", "GIF", **more)
    assert read_picture(tmp_path / "a.gif", SPEC)[0, 0].tolist() == list(WHITE)


def test_cmyk_becomes_rgb(tmp_path):
    inks = {
        (0, 255, 255, 0): RED,
        (0, 0, 0, 0): WHITE,
        (0, 0, 0, 255): BLACK,
        (255, 0, 255, 0): (0, 255, 0),
    }
    for ink, colour in inks.items():
        PIL.Image.new("CMYK", (16, 16), ink).save(tmp_path / "a.jpg", "JPEG", quality=95)
        assert np.abs(read_picture(tmp_path / "a.jpg", SPEC).astype(int) - colour).max() < 6, ink


def test_16_bit_values_keep_their_high_byte(tmp_path):
    grey = np.random.default_rng(0).integers(0, 1 << 16, (30, 20)).astype(np.uint16)
    cv2.imwrite(str(tmp_path / "a.png"), grey)
    assert (read_picture(tmp_path / "a.png", SPEC) == (grey >> 8)[:, :, None]).all()
    colour = np.random.default_rng(1).integers(0, 1 << 16, (30, 20, 3)).astype(np.uint16)
    cv2.imwrite(str(tmp_path / "b.png"), colour[:, :, ::-1])
    assert np.array_equal(read_picture(tmp_path / "b.png", SPEC), (colour >> 8).astype(np.uint8))


def test_black_and_white_of_one_bit(tmp_path):
    (tmp_path / "a.png").write_bytes(raw_png(8, 1, 1, 0, b"\0\xa5"))
    assert read_picture(tmp_path / "a.png", SPEC)[0, :, 0].tolist() == [
        255,
        0,
        255,
        0,
        0,
        255,
        0,
        255,
    ]


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP"])
def test_of_an_animation_the_first_picture(tmp_path, form):
    first, *others = (PIL.Image.new("RGB", (20, 10), c) for c in (RED, WHITE, BLACK))
    more = {"lossless": True} if form == "WEBP" else {}
    first.save(tmp_path / "a.jpg", form, save_all=True, append_images=others, duration=50, **more)
    assert (read_picture(tmp_path / "a.jpg", SPEC) == RED).all()


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [
    b"", b"\0" * 500, b"<!DOCTYPE html><html><body>404 Not Found</body></html>" * 20, b"\xff\xd8",
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n", b"GIF89a", b"\x89PNG\r\n\x1a\n",
    b"P6 1 1 255 \0\0\0", raw_png(0, 5, 8, 2, b""),
], ids=["empty", "zeros", "html", "jpeg", "eps", "gif", "png", "ppm", "no width"])  # fmt: skip
def test_what_is_no_picture_is_unreadable(tmp_path, content):
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    with pytest.raises(Reject) as caught:
        extract([path], SPEC)
    assert caught.value.reason == "unreadable"
    assert caught.value.detail.startswith("a.jpg: ") and str(tmp_path) not in caught.value.detail


def test_a_tiff_is_no_format_that_is_read(tmp_path):
    assert rejection(read_picture, save(tmp_path / "a.jpg", noise(), "TIFF"), SPEC) == "unreadable"


@functools.cache
def written(form: str) -> bytes:
    buffer = io.BytesIO()
    PIL.Image.fromarray(photo(60, 80)).save(buffer, form)
    return buffer.getvalue()


FORMS = ["JPEG", "PNG", "GIF", "WEBP", "BMP"]


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("form", FORMS)
def test_a_picture_that_is_cut_off_is_refused(tmp_path, form, share, monkeypatch):
    monkeypatch.setattr(PIL.ImageFile, "LOAD_TRUNCATED_IMAGES", True)  # as other libraries set it
    path = tmp_path / "a.jpg"
    path.write_bytes(written(form)[: int(share * len(written(form)))])
    assert rejection(read_picture, path, SPEC) == "bad_image"
    assert PIL.ImageFile.LOAD_TRUNCATED_IMAGES is True  # and left as it was


@pytest.mark.parametrize("form", FORMS)
def test_damaged_bytes_end_in_a_picture_or_a_reason(tmp_path, form):
    rng, path, ends = np.random.default_rng(0), tmp_path / "a.jpg", set()
    for _ in range(600):
        content = np.frombuffer(written(form), np.uint8).copy()
        # Half of the damage falls on the header, where it leads astray.
        places = rng.integers(0, rng.choice([60, len(content)]), rng.integers(1, 12))
        content[places] = rng.integers(0, 256, len(places))
        path.write_bytes(content[: int(rng.integers(1, len(content) + 1))].tobytes())
        try:
            found = extract([path], Image(max_pixels=1_000_000))
            ends.add("kept")
            assert decode(found.payload[0]).ndim == 3
        except Reject as reject:
            ends.add(reject.reason)
    assert {"bad_image", "unreadable"} <= ends <= {"bad_image", "unreadable", "kept"}


def test_nothing_is_said_on_stderr(tmp_path, capfd, recwarn):
    exif = b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\x01\x12\0\x03\xff\xff\xff\xff" * 9
    extract([save(tmp_path / "a.jpg", noise(), "JPEG", exif=exif)], SPEC)
    path = tmp_path / "b.jpg"
    path.write_bytes(written("JPEG")[:600])
    assert rejection(extract, [path], SPEC) == "bad_image"
    assert capfd.readouterr() == ("", "") and not recwarn.list


def test_max_pixels_is_the_specs(tmp_path):
    path = save(tmp_path / "a.png", noise(20, 50))
    assert rejection(read_picture, path, Image(max_pixels=999)) == "bad_image"
    assert read_picture(path, Image(max_pixels=1000)).shape == (20, 50, 3)
    before = PIL.Image.MAX_IMAGE_PIXELS
    with pytest.raises(Reject, match="1000 pixels"):
        read_picture(path, Image(max_pixels=400))  # Pillow's own limit is met first
    assert before == PIL.Image.MAX_IMAGE_PIXELS


# Growth of the memory in use in MB, after a small picture, by the pictures that follow.
GROWTH = """
import sys
from pathlib import Path
from data_prep.modalities.image import extract
from data_prep.reasons import Reject
from data_prep.spec import Image
from tests.memory import peak

small, *others = sys.argv[1:]
extract([Path(small)], Image())
before = peak()
for name in others:
    try:
        extract([Path(name)], Image())
        print("kept")
    except Reject as reject:
        print(reject.reason, reject.detail)
print(int(peak() - before))
"""


def growth(small: Path, *others: Path) -> tuple[list[str], int]:
    done = subprocess.run(
        [sys.executable, "-c", GROWTH, small, *others],
        cwd=ROOT, capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    *lines, grown = done.stdout.splitlines()
    return lines, int(grown)


def test_a_bomb_is_refused_by_its_header_without_memory(tmp_path):
    with PIL.Image.open(io.BytesIO(zero_png(300, 250))) as whole:  # sound but for its size
        assert not np.asarray(whole).any() and whole.size == (300, 250)
    png, gif, bmp = (tmp_path / f"{form}.jpg" for form in ("png", "gif", "bmp"))
    png.write_bytes(zero_png(30_000, 30_000))
    assert png.stat().st_size < 120_000
    screen = struct.pack("<HHBBB", 65535, 65535, 0, 0, 0)
    frame = struct.pack("<HHHHB", 0, 0, 65535, 65535, 0)
    gif.write_bytes(b"GIF89a" + screen + b"," + frame + b"\x08\x01\0\0;")
    sizes = struct.pack("<IIIIiiHH", 54, 0, 54, 40, 50000, 50000, 1, 24)
    bmp.write_bytes(b"BM" + sizes + bytes(24))
    lines, grown = growth(save(tmp_path / "small.png", noise()), png, gif, bmp)
    assert [line.split()[0] for line in lines] == ["bad_image"] * 3, lines
    assert "900000000 pixels" in lines[0] and grown < 20


def test_a_webp_bomb_costs_no_memory_either(tmp_path):
    path = tmp_path / "a.jpg"
    content = bytearray(written("WEBP"))  # RIFF, size, WEBP, VP8, size, frame tag, start code
    assert content[23:26] == b"\x9d\x01\x2a"
    content[26:30] = struct.pack("<HH", 16383, 16383)  # the largest there is
    path.write_bytes(content)
    lines, grown = growth(save(tmp_path / "small.png", noise()), path)
    assert lines[0].startswith("bad_image") and "268402689 pixels" in lines[0] and grown < 20


def test_the_largest_pictures_take_a_bounded_memory(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(zero_png(9_000, 9_000))
    lines, grown = growth(save(tmp_path / "small.png", noise()), path)
    # 81 million pixels: 1 byte of each decoded, 4 as colours in Pillow, and 3 + 3 in its copy for
    # NumPy (the parts and their whole).
    assert lines == ["kept"] and grown < 81 * 12


def test_a_strip_too_long_for_a_jpeg_is_refused(tmp_path):
    path = save(tmp_path / "a.png", np.zeros((2, 65_501, 3), np.uint8))
    assert rejection(extract, [path], SPEC) == "bad_image"
    path = save(tmp_path / "b.png", np.zeros((512, 66_000, 3), np.uint8))
    assert decode(extract([path], SPEC).payload[0]).shape == (256, 33_000, 3)


def test_a_huge_file_is_not_read(tmp_path):
    path = save(tmp_path / "a.png", noise())
    with open(path, "r+b") as handle:
        handle.truncate((1 << 29) + 1)
    assert rejection(extract, [path], SPEC) == "bad_image"


# --- several paths, none, and a stand-in ----------------------------------------------------------


def test_the_second_path_stands_in_and_is_told(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"")
    second = save(tmp_path / "b.png", noise())
    candidate = Candidate("a", 0, {"image": ("a.jpg", second.name)})
    found = extract_sample(tmp_path, candidate, {"image": SPEC})["image"]
    assert (found.flags, found.used) == (("source=png",), 1)


def test_a_missing_file_is_told_as_missing(tmp_path):
    assert rejection(extract, [tmp_path / "a.jpg"], SPEC) == "missing_file"
    assert rejection(extract, [], SPEC) == "missing_file"
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    assert rejection(extract, [tmp_path / "loop.jpg"], SPEC) == "unreadable"


@pytest.mark.parametrize("content", [None, b"", b"<html>", written("JPEG")[:500]])
def test_filled_pictures_are_grey_and_flagged(tmp_path, content):
    path = tmp_path / "a.jpg"
    if content is not None:
        path.write_bytes(content)
    found = extract([path], Image(missing="fill"))
    assert (found.flags, found.n_frames) == (("missing_image",), 0)
    grey = decode(found.payload[0])
    assert grey.shape == (256, 256, 3) and np.abs(grey.astype(int) - GREY).max() <= 2
    sound = extract([save(tmp_path / "b.png", noise())], Image(missing="fill"))
    assert (sound.flags, sound.n_frames) == ((), 1)


def test_a_sample_of_nothing_but_a_stand_in_is_refused(tmp_path):
    candidate = Candidate("a", 0, {"image": ("a.jpg",)})
    spec = {"image": Image(missing="fill")}
    assert rejection(extract_sample, tmp_path, candidate, spec) == "unreadable"


def test_a_pointer_is_refused_even_where_pictures_are_filled(tmp_path):
    (tmp_path / "a.jpg").write_text("version https://git-lfs.github.com/spec/v1\nsize 1\n")
    candidate = Candidate("a", 0, {"image": ("a.jpg",)})
    spec = {"image": Image(missing="fill")}
    assert rejection(extract_sample, tmp_path, candidate, spec) == "lfs_pointer"
