"""Picture files in every form and with every damage that collections from the web have."""

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import PIL.Image

from data_prep.generate.corrupt import damage_file

FORMS = (  # unusual, and whole
    "cmyk_jpg", "rgba_png", "palette_png", "grey16_png", "animated_gif", "exif_6",
)  # fmt: skip
BOMB = 12_000  # pixels of a side: 144 million, above the 100 million that are allowed, in 18 kB


def write_picture(path: Path, image: np.ndarray, kind: str = "") -> None:
    """The file of a picture, a JPEG of quality 90 unless `kind` asks for another form or damage."""
    picture = PIL.Image.fromarray(image)
    if kind == "bomb_png":
        path.write_bytes(zero_png(BOMB, BOMB))
    elif kind == "cmyk_jpg":
        picture.convert("CMYK").save(path, "JPEG", quality=90)
    elif kind == "rgba_png":
        alpha = PIL.Image.linear_gradient("L").resize(picture.size)
        picture.putalpha(alpha)
        picture.save(path, "PNG")
    elif kind == "palette_png":
        picture.quantize(64).save(path, "PNG", transparency=0)
    elif kind == "grey16_png":
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.uint16) * 257
        PIL.Image.fromarray(grey).save(path, "PNG")
    elif kind == "animated_gif":
        later = PIL.Image.new("RGB", picture.size, "red")
        picture.save(path, "GIF", save_all=True, append_images=[later], duration=100)
    elif kind == "exif_6":  # stored on its side, and the tag says so
        exif = PIL.Image.Exif()
        exif[0x0112] = 6
        picture.transpose(PIL.Image.Transpose.ROTATE_90).save(path, "JPEG", quality=90, exif=exif)
    else:
        picture.save(path, "JPEG", quality=90)
        if kind == "cut_jpg":
            damage_file("cut_60", path)
        else:
            damage_file(kind, path)


def zero_png(width: int, height: int) -> bytes:
    """A whole black PNG of 1 bit a pixel: 30,000 x 30,000 pixels take 110 kB."""
    squeeze, packed = zlib.compressobj(9), []
    rows = bytes((1 + (width + 7) // 8) * 100)  # each with its filter's number in front
    for _ in range(height // 100):
        packed.append(squeeze.compress(rows))
    packed.append(squeeze.compress(rows[: len(rows) // 100 * (height % 100)]))
    packed.append(squeeze.flush())
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", b"".join(packed)), (b"IEND", b""))
    parts = [
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)
