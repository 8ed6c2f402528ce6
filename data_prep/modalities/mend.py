"""Repairs image files that fail to decode only because of data outside the image.

Large or damaged text chunks and colour profiles of a PNG, line ends before the file, and a missing
end marker of a JPEG. Called only for a file that did not decode as it is.
"""

import hashlib
import io
import zlib

import PIL.Image

PNG = b"\x89PNG\r\n\x1a\n"
NEEDED = (b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"eXIf")  # of a PNG's chunks
JPEG, END = b"\xff\xd8", b"\xff\xd9"
FILLING = (b"\x00" * 64, b"\x55" * 64)


def mended(data: bytes) -> bytes | None:
    """The file without what does not belong to the image; None if there is nothing to leave out."""
    bare = data.lstrip(b"\r\n\t ")
    if bare.startswith(PNG):
        whole = _without_extras(bare)
        return None if whole == data else whole
    if bare.startswith(JPEG):
        whole = bare if bare.rstrip(b"\0").endswith(END) else _with_end(bare)
        return None if whole == data else whole
    return None


def _without_extras(data: bytes) -> bytes:
    """A PNG's needed chunks; a transparency or orientation with a wrong checksum is left out."""
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
    """A JPEG with its end marker, if its last pixel was coded before the file ends.

    A decoder that reaches the end of the data reads on into whatever follows. So the file is
    decoded with two different fillings: if the pictures are equal, no pixel needed the filling.
    """
    pictures = []
    for filling in FILLING:
        try:
            with PIL.Image.open(io.BytesIO(data + filling + END), formats=("JPEG",)) as picture:
                pictures.append(hashlib.sha256(picture.tobytes()).digest())
        except MemoryError:  # it tells of this machine, not of the file
            raise
        except Exception:  # a decoder raises whatever hostile bytes lead it to
            return None
    return data + END if pictures[0] == pictures[1] else None
