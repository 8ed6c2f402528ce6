"""Pictures from the web: every format and every damage ends in a JPEG or in a reason."""

import io
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import PIL.ImageFile
import PIL.ImageOps
import pytest
from clips import extract, refused, rejection
from conftest import program
from PIL.features import check

from data_prep.modalities import pictures
from data_prep.modalities.base import Draw
from data_prep.modalities.image import GREY, Image
from data_prep.modalities.pictures import from_jpeg, read_picture
from data_prep.reasons import Reject
from data_prep.sample import extract_sample
from data_prep.spec import Candidate
from fixtures.pictures import zero_png

RED, WHITE, BLACK = (255, 0, 0), (255, 255, 255), (0, 0, 0)
FILL = Image(missing="fill")


def noise(height: int = 24, width: int = 40) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def photo(height: int = 60, width: int = 80) -> np.ndarray:
    """Smooth enough to survive JPEG."""
    return cv2.resize(noise(6, 8), (width, height), interpolation=cv2.INTER_CUBIC)


def coded(picture, form: str = "PNG", **more) -> bytes:
    """A picture file from an array or a Pillow image."""
    picture = PIL.Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture
    buffer = io.BytesIO()
    picture.save(buffer, form, **more)
    return buffer.getvalue()


def put(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def read(path: Path, content: bytes, short_side: int = 256) -> np.ndarray:
    """The picture in a file, before it becomes a JPEG."""
    return read_picture(put(path, content), short_side, 100_000_000)


def chunk(kind: bytes, data: bytes) -> bytes:
    """A PNG chunk."""
    body = kind + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))


def raw_png(width: int, height: int, depth: int, colour: int, rows: bytes) -> bytes:
    """A PNG from its rows, each preceded by a filter number."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


# --- what is stored -------------------------------------------------------------------------------


def test_the_stored_jpeg_shows_the_picture_in_the_requested_quality(tmp_path):
    path = put(tmp_path / "a.png", coded(photo()))
    found = extract(Image(), path)
    assert (found.flags, found.duration_s, found.n_frames) == ((), 0.0, 1)
    assert np.abs(from_jpeg(found.payload[0]).astype(int) - photo()).mean() < 4
    _, wanted = cv2.imencode(".jpg", photo()[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 50])
    assert extract(Image(quality=50), path).payload == [wanted.tobytes()]


def test_the_model_sees_red_as_red(tmp_path):
    path = put(tmp_path / "a.png", coded(np.full((40, 60, 3), RED, np.uint8)))
    stored = extract(Image(), path).payload
    batch = Image().to_input(stored, Draw(32))
    assert batch.shape == (1, 3, 32, 32) and batch.dtype == np.uint8
    assert batch[0, 0].min() > 245 and batch[0, 1:].max() < 10
    turned = Image().to_input(stored, Draw(32, np.random.default_rng(0), True))
    assert turned.shape == batch.shape and not np.array_equal(turned, batch)


@pytest.mark.parametrize("short_side,size", [(100, (150, 100)), (300, (450, 300)), (4000, None)])
def test_the_shorter_side_shrinks_by_area_and_never_grows(tmp_path, short_side, size):
    image = noise(300, 450)
    wanted = cv2.resize(image, size, interpolation=cv2.INTER_AREA) if size else image
    assert np.array_equal(read(tmp_path / "a", coded(image), short_side), wanted)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_is_turned_upright(tmp_path, orientation):
    content = coded(noise(), exif=exif_of(orientation))
    wanted = np.asarray(PIL.ImageOps.exif_transpose(PIL.Image.open(io.BytesIO(content))))
    assert np.array_equal(read(tmp_path / "a", content), wanted)
    small = read(tmp_path / "a", content, 12)
    assert small.shape[:2] == ((12, 20) if orientation < 5 else (20, 12))


def exif_of(orientation: int) -> bytes:
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes()


def transparent(mode: str) -> bytes:
    """A picture of two pixels, the left one transparent black and the right one opaque black."""
    picture, more = PIL.Image.new(mode, (2, 1)), {}
    if mode in ("RGBA", "LA"):
        picture.putpixel((1, 0), (*(0,) * (len(mode) - 1), 255))
    elif mode == "P":
        picture.putpalette([0, 0, 0, 0, 0, 0])
        picture.putpixel((1, 0), 1)
        more = {"transparency": 0}
    else:
        clear = (9, 9, 9) if mode == "RGB" else 9
        picture.putpixel((0, 0), clear)
        more = {"transparency": clear}
    content = coded(picture, **more)
    assert PIL.Image.open(io.BytesIO(content)).mode == mode
    return content


BLOCKS = np.repeat(np.repeat(noise(3, 5), 8, 0), 8, 1)  # few colours: a GIF keeps them
LOSSLESS = {"PNG": {}, "WEBP": {"lossless": True}, "BMP": {}, "GIF": {}}
FRAMES = [PIL.Image.new("RGB", (20, 10), colour) for colour in (RED, WHITE, BLACK)]
MOVING = {"save_all": True, "append_images": FRAMES[1:], "duration": 50}
GREY16, COLOUR16 = (
    np.random.default_rng(0).integers(0, 1 << 16, shape).astype(np.uint16)
    for shape in ((30, 20), (30, 20, 3))
)
INKS = {(0, 255, 255, 0): RED, (0, 0, 0, 0): WHITE, (0, 0, 0, 255): BLACK}
AVIF = {"AVIF": (coded(photo(), "AVIF", quality=95), photo(), 40)} if check("avif") else {}
LOOKS = AVIF | {  # name -> (file, picture, most levels apart)
    **{form: (coded(BLOCKS, form, **more), BLOCKS, 0) for form, more in LOSSLESS.items()},
    **{f"{m} clear": (transparent(m), [[WHITE, BLACK]], 0)
       for m in ("RGBA", "LA", "P", "L", "RGB", "I;16")},
    "half clear": (coded(PIL.Image.new("RGBA", (1, 1), (200, 0, 100, 51))), [[(244, 204, 224)]], 0),
    **{f"{ink}": (coded(PIL.Image.new("CMYK", (16, 16), ink), "JPEG", quality=95), colour, 6)
       for ink, colour in INKS.items()},
    "16 bits": (cv2.imencode(".png", GREY16)[1].tobytes(), (GREY16 >> 8)[:, :, None], 0),
    "48 bits": (cv2.imencode(".png", COLOUR16[:, :, ::-1])[1].tobytes(), COLOUR16 >> 8, 0),
    "1 bit": (raw_png(4, 1, 1, 0, b"\0\xa0"), [[WHITE, BLACK, WHITE, BLACK]], 0),
    **{f"moving {f}": (coded(FRAMES[0], f, **MOVING, **LOSSLESS[f]), RED, 0)
       for f in ("GIF", "PNG", "WEBP")},
    "phone's two": (coded(photo(), "MPO", save_all=True, append_images=FRAMES[:1]), photo(), 40),
    # Invalid orientations are ignored.
    **{f"exif {k}": (coded(noise(), exif=exif), noise(), 0) for k, exif in enumerate((
        exif_of(0), exif_of(9), exif_of(65535), exif_of(6)[:14], b"Exif\0\0MM\0*",
        b"Exif\0\0" + b"\xff" * 99,
    ))},
}  # fmt: skip


@pytest.mark.parametrize("name", LOOKS)
def test_every_format_is_read_as_it_looks_whatever_its_name(tmp_path, name):
    content, wanted, slack = LOOKS[name]
    found = read(tmp_path / "named.jpg", content).astype(int)
    assert np.abs(found - np.asarray(wanted)).max() <= slack


# --- damage ---------------------------------------------------------------------------------------

FORMS = {form: coded(photo(), form) for form in ("JPEG", "PNG", "GIF", "WEBP", "BMP")}
PNG, JPEG = FORMS["PNG"], coded(photo(), "JPEG", quality=90)
PROGRESSIVE = coded(photo(), "JPEG", quality=90, progressive=True)
BAD_SUM = PNG[:33] + chunk(b"tEXt", b"k\0v")[:-4] + bytes(4) + PNG[33:]
HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(400)


@pytest.mark.parametrize("content", [
    b"", b"\0" * 500, b"<!DOCTYPE html><html><body>404 Not Found</body></html>" * 20, b"\xff\xd8",
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n", b"GIF89a", b"\x89PNG\r\n\x1a\n",
    b"P6 1 1 255 \0\0\0", raw_png(0, 5, 8, 2, b""), coded(photo(), "TIFF"), HEIC,
], ids="empty zeros html jpeg eps gif png ppm no_width tiff heic".split())  # fmt: skip
def test_files_that_are_not_pictures_are_unreadable(tmp_path, content):
    with pytest.raises(Reject) as caught:
        extract(Image(), put(tmp_path / "a.jpg", content))
    heif = content == HEIC and "HEIF" in pictures._formats()
    assert caught.value.reason == ("bad_image" if heif else "unreadable")
    assert caught.value.detail.startswith("a.jpg: ") and str(tmp_path) not in caught.value.detail
    assert ("pip install pillow-heif" in caught.value.detail) == (content == HEIC and not heif)


@pytest.mark.parametrize("form", FORMS)
def test_a_picture_that_is_cut_off_is_refused_without_output(
    tmp_path, form, monkeypatch, capfd, recwarn
):
    monkeypatch.setattr(PIL.ImageFile, "LOAD_TRUNCATED_IMAGES", True)  # as other libraries set it
    for share in (0.3, 0.6, 0.9):
        path = put(tmp_path / "a.jpg", FORMS[form][: int(share * len(FORMS[form]))])
        assert refused(Image(), path) == "bad_image"
    assert PIL.ImageFile.LOAD_TRUNCATED_IMAGES is True  # and left as it was
    assert capfd.readouterr() == ("", "") and not recwarn.list


@pytest.mark.parametrize("content,same", [
    (PNG[:33] + chunk(b"zTXt", b"k\0\0" + zlib.compress(b"a" * (2 << 20))) + PNG[33:], PNG),
    (PNG[:33] + chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(2 << 20))) + PNG[33:], PNG),
    (BAD_SUM, PNG), (JPEG[:-2], JPEG), (PROGRESSIVE[:-2], PROGRESSIVE), (b"\r\n" + JPEG, JPEG),
], ids="text profile bad_sum no_end progressive line_end".split())  # fmt: skip
def test_damage_outside_the_pixels_loses_no_picture(tmp_path, content, same):
    assert np.array_equal(read(tmp_path / "a", content), read(tmp_path / "b", same))


@pytest.mark.parametrize("content", [
    *[data[:-lost] for data in (JPEG, PROGRESSIVE) for lost in (10, 20, 200)],
    *[BAD_SUM[:at] + bytes([BAD_SUM[at] ^ 255]) + BAD_SUM[at + 1 :] for at in (65, 220)],
])  # fmt: skip
def test_damage_to_the_pixels_is_refused(tmp_path, content):
    assert refused(Image(), put(tmp_path / "a", content)) in ("bad_image", "unreadable")


# --- limits ---------------------------------------------------------------------------------------


def test_max_pixels_comes_from_the_spec(tmp_path):
    path = put(tmp_path / "a.png", coded(noise(20, 50)))
    assert extract(Image(max_pixels=1000), path).flags == ()
    for most in (999, 400):  # Pillow's own limit, twice this number, applies first
        assert refused(Image(max_pixels=most), path) == "bad_image"


# Growth of the memory in use in MB by the pictures that follow a small one.
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
        print(reject.reason)
print(int(peak() - before))
"""


def test_a_bomb_is_refused_by_its_header_and_the_largest_picture_takes_a_bounded_memory(tmp_path):
    screen = struct.pack("<HHBBB", 65535, 65535, 0, 0, 0)
    frame = struct.pack("<HHHHB", 0, 0, 65535, 65535, 0)
    sizes = struct.pack("<IIIIiiHH", 54, 0, 54, 40, 50000, 50000, 1, 24)
    webp = bytearray(FORMS["WEBP"])  # RIFF, size, WEBP, VP8, size, frame tag, start code
    assert webp[23:26] == b"\x9d\x01\x2a"
    webp[26:30] = struct.pack("<HH", 16383, 16383)  # the largest there is
    bombs = (
        zero_png(30_000, 30_000), b"GIF89a" + screen + b"," + frame + b"\x08\x01\0\0;",
        b"BM" + sizes + bytes(24), webp,
    )  # fmt: skip
    paths = [put(tmp_path / f"{k}.jpg", bomb) for k, bomb in enumerate(bombs)]
    small = put(tmp_path / "small.png", PNG)
    *reasons, grown = program("-c", GROWTH, small, *paths).stdout.split()
    assert reasons == ["bad_image"] * 4 and int(grown) < 20
    # 81 million pixels: 1 byte of each decoded, 4 as colours in Pillow, and 3 + 3 in its copy for
    # NumPy (the parts and their whole).
    large = put(tmp_path / "a.png", zero_png(9_000, 9_000))
    state, grown = program("-c", GROWTH, small, large).stdout.split()
    assert state == "kept" and int(grown) < 81 * 12


def test_a_strip_too_long_for_a_jpeg_and_a_huge_file_are_refused(tmp_path):
    path = put(tmp_path / "a.png", coded(np.zeros((2, 65_501, 3), np.uint8)))
    assert refused(Image(), path) == "bad_image"
    path = put(tmp_path / "b.png", coded(np.zeros((512, 66_000, 3), np.uint8)))
    assert from_jpeg(extract(Image(), path).payload[0]).shape == (256, 33_000, 3)
    with open(path, "r+b") as handle:
        handle.truncate((1 << 29) + 1)
    assert refused(Image(), path) == "bad_image"


# --- no file, and a stand-in ----------------------------------------------------------------------


def test_a_missing_file_has_its_own_reason(tmp_path):
    assert refused(Image(), tmp_path / "a.jpg") == refused(Image()) == "missing_file"
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    assert refused(Image(), tmp_path / "loop.jpg") == "unreadable"


@pytest.mark.parametrize("content", [None, b"<html>", JPEG[:500]])
def test_filled_pictures_are_grey_and_flagged(tmp_path, content):
    path = tmp_path / "a.jpg"
    if content is not None:
        put(path, content)
    found = extract(FILL, path)
    assert (found.flags, found.n_frames) == (("missing_image",), 0)
    grey = from_jpeg(found.payload[0])
    assert grey.shape == (256, 256, 3) and np.abs(grey.astype(int) - GREY).max() <= 2


def test_a_sample_of_nothing_but_a_stand_in_is_refused(tmp_path):
    candidate = Candidate("a", 0, {"image": ("a.jpg",)})
    pointer = b"version https://git-lfs.github.com/spec/v1\nsize 1\n"
    for content, reason in ((b"", "unreadable"), (pointer, "lfs_pointer")):
        put(tmp_path / "a.jpg", content)
        assert rejection(extract_sample, tmp_path, {"image": FILL}, None, candidate) == reason
