"""Reads image files (decode, turn upright, put on white, scale down) and writes JPEGs.

The format is determined by content, not by name. The header's size is checked before decoding.
"""

import contextlib
import functools
import hashlib
import io
import os
import warnings
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np
import PIL.features
import PIL.Image
import PIL.ImageFile

from data_prep.reasons import Reject

# Pillow's names of the accepted formats; its other decoders are not exposed to web files.
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP")
MAX_BYTES = 1 << 29  # an uncompressed image of 100 million pixels with alpha has 400 MB
MENDED_BYTES = 1 << 26  # maximum size of a file that `mended` tries to repair
HEIC = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")
MAX_SIDE = 65500  # pixels per side, the limit of JPEG encoders
ORIENTATION = 0x0112  # the EXIF tag
PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8"  # signatures
NEEDED = (b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"eXIf")  # PNG chunks to keep
END = b"\xff\xd9"  # end marker of a JPEG
FILLING = (b"\x00" * 64, b"\x55" * 64)
DARK = 16  # of 255: a frame without higher values counts as black; our choice
WHOLE = 1 << 16, 1 << 24  # short side and pixels for an image that is not scaled


class TooLarge(Reject):
    """An image that is larger than allowed; no repair is tried."""


@contextlib.contextmanager
def _strictly(max_pixels: int) -> Iterator[None]:
    """Sets Pillow's process-wide switches for one image and silences warnings.

    A truncated file is an error, and so is twice `max_pixels`: a GIF can grow during reading.
    """
    before = PIL.Image.MAX_IMAGE_PIXELS, PIL.ImageFile.LOAD_TRUNCATED_IMAGES
    PIL.Image.MAX_IMAGE_PIXELS, PIL.ImageFile.LOAD_TRUNCATED_IMAGES = max_pixels, False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        PIL.Image.MAX_IMAGE_PIXELS, PIL.ImageFile.LOAD_TRUNCATED_IMAGES = before


def read_picture(path: Path, short_side: int, max_pixels: int) -> np.ndarray:
    """RGB uint8 [H, W, 3] of a file, upright, with its shorter side at most `short_side`.

    Raises `Reject`: "missing_file", "unreadable" (not an image), "bad_image" (an image that is
    truncated, damaged, or larger than `max_pixels`).
    """
    try:
        handle = open(path, "rb")
    except FileNotFoundError:
        raise Reject("missing_file", path.name) from None
    except OSError as error:
        raise Reject("unreadable", f"{path.name}: {error.strerror}") from None
    with handle, _strictly(max_pixels):
        size = os.fstat(handle.fileno()).st_size
        if size > MAX_BYTES:
            raise Reject("bad_image", f"{path.name}: {size} bytes, more than {MAX_BYTES}")
        try:
            return _decode(path.name, handle, short_side, max_pixels)
        except TooLarge:
            raise
        except Reject as reject:
            handle.seek(0)
            data = mended(handle.read(MENDED_BYTES)) if size <= MENDED_BYTES else None
            if data is None:
                raise
            try:
                return _decode(path.name, io.BytesIO(data), short_side, max_pixels)
            except Reject:
                raise reject from None


def _decode(name: str, handle: BinaryIO, short_side: int, max_pixels: int) -> np.ndarray:
    try:
        with PIL.Image.open(handle, formats=_formats()) as picture:
            # Check the header first: the image may be too large to decode or to store.
            width, height = picture.size
            short, long = sorted(picture.size)
            if not 0 < width * height <= max_pixels:
                what = f"{width} x {height}, more than {max_pixels} pixels"
                raise TooLarge("bad_image", f"{name}: {what}")
            if round(long * min(1.0, short_side / short)) > MAX_SIDE:
                raise TooLarge("bad_image", f"{name}: {width} x {height}, too elongated")
            picture.load()
            orientation = _orientation(picture)
            image = on_white(picture)
    except PIL.UnidentifiedImageError:  # its message contains the path
        handle.seek(4)
        head = handle.read(8)
        if head[:4] == b"ftyp" and head[4:] in HEIC:
            what = "a HEIC image: run `pip install pillow-heif` to read it"
        else:
            what = f"not in the formats {', '.join(_formats())}"
        raise Reject("unreadable", f"{name}: {what}") from None
    except (Reject, MemoryError):  # MemoryError is a problem of this machine, not of the file
        raise
    except Exception as error:  # hostile bytes can make a decoder raise anything
        raise Reject("bad_image", f"{name}: {type(error).__name__}: {error}"[:300]) from None
    image = shrink(image, short_side)
    if orientation in (5, 6, 7, 8):
        image = image.transpose(1, 0, 2)
    upside_down, mirrored = orientation in (3, 4, 7, 8), orientation in (2, 3, 6, 7)
    return np.ascontiguousarray(image[:: -1 if upside_down else 1, :: -1 if mirrored else 1])


@functools.cache
def _formats() -> tuple[str, ...]:
    """The readable formats: AVIF if Pillow was built with it, HEIC with pillow-heif."""
    found = FORMATS + (("AVIF",) if PIL.features.check("avif") else ())
    try:
        from pillow_heif import register_heif_opener  # optional dependency
    except ImportError:
        return found
    register_heif_opener()
    return (*found, "HEIF")


def _orientation(picture: PIL.Image.Image) -> int:
    """The EXIF orientation, 1 if missing or damaged: bad EXIF data do not reject an image."""
    try:
        return int(picture.getexif().get(ORIENTATION, 1))
    except Exception:
        return 1


def mended(data: bytes) -> bytes | None:
    """Repairs a file that does not decode; None if there is nothing to repair.

    Removes leading line breaks, and large or damaged text chunks and colour profiles of a PNG; adds
    a missing end marker to a JPEG.
    """
    bare = data.lstrip(b"\r\n\t ")
    whole = None
    if bare.startswith(PNG):
        whole = _without_extras(bare)
    elif bare.startswith(JPEG):
        whole = bare if bare.rstrip(b"\0").endswith(END) else _with_end(bare)
    return None if whole == data else whole


def _without_extras(data: bytes) -> bytes:
    """The required chunks of a PNG; drops a transparency or orientation with a wrong checksum."""
    kept, at = [PNG], len(PNG)
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        kind, end = data[at + 4 : at + 8], at + 12 + length
        if end > len(data):
            break
        sound = zlib.crc32(data[at + 4 : end - 4]) == int.from_bytes(data[end - 4 : end], "big")
        if kind in NEEDED and (sound or kind.isupper()):
            kept.append(data[at:end])
        at = end
    return b"".join(kept)


def _with_end(data: bytes) -> bytes | None:
    """Adds the end marker to a JPEG if its last pixel was coded before the file ends.

    A decoder reads on into what follows: if two fillings give the same image, it needed neither.
    """
    pictures = []
    for filling in FILLING:
        try:
            with PIL.Image.open(io.BytesIO(data + filling + END), formats=("JPEG",)) as picture:
                pictures.append(hashlib.sha256(picture.tobytes()).digest())
        except MemoryError:  # a problem of this machine, not of the file
            raise
        except Exception:  # hostile bytes can make a decoder raise anything
            return None
    return data + END if pictures[0] == pictures[1] else None


def on_white(picture: PIL.Image.Image) -> np.ndarray:
    """RGB uint8 [H, W, 3] of a decoded image on white; 16-bit values keep their high byte.

    CMYK is converted without colour profiles, as torchvision's loaders do.
    """
    if picture.mode == "I;16":  # Pillow clips it; as for 16-bit colours, use the high byte
        values = np.asarray(picture)
        clear = values == picture.info.get("transparency", -1)
        grey = np.where(clear, np.uint8(255), (values >> 8).astype(np.uint8))
        return np.repeat(grey[:, :, None], 3, axis=2)
    if picture.has_transparency_data:
        white = PIL.Image.new("RGB", picture.size, "white")
        clear = picture if picture.mode == "RGBA" else picture.convert("RGBA")
        white.paste(clear, mask=clear)
        picture = white
    return np.asarray(picture if picture.mode == "RGB" else picture.convert("RGB"))


def shrink(image: np.ndarray, short_side: int) -> np.ndarray:
    """[H, W, 3] area-resized to `short_side`, keeping the aspect ratio; never enlarged."""
    height, width = image.shape[:2]
    factor = short_side / min(height, width)
    if factor >= 1:
        return image
    size = (round(width * factor), round(height * factor))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def looks(images: Sequence[np.ndarray]) -> tuple[str, ...]:
    """The flag of a clip's frames that are all "black", or all equal ("still")."""
    first = images[0]
    if all(image.max() <= DARK for image in images):
        return ("black",)
    is_still = len(images) > 1 and all(
        i.shape == first.shape and cv2.norm(i, first, cv2.NORM_L1) <= i.size for i in images
    )
    return ("still",) if is_still else ()


def is_plain_jpeg(data: bytes) -> bool:
    """Whether it is a JPEG with three channels, no orientation tag, and nothing after its end."""
    if not (data.startswith(b"\xff\xd8") and data.endswith(b"\xff\xd9")):
        return False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with PIL.Image.open(io.BytesIO(data), formats=("JPEG",)) as picture:
            return picture.mode == "RGB" and not 2 <= _orientation(picture) <= 8


def to_jpeg(image: np.ndarray, quality: int) -> bytes:
    """Encodes uint8 [H, W, 3] RGB or [H, W] grey as JPEG."""
    if image.ndim == 3:
        image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    done, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert done, image.shape
    return data.tobytes()


def from_jpeg(data: Any) -> np.ndarray:
    """Decodes a stored image to uint8 [H, W, 3] RGB."""
    image = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_COLOR)
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
