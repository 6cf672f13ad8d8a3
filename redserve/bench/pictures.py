"""Pictures that no cache has seen: coloured tiles, drawn from a seed."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from random import Random
from typing import Final

NUM_TILES: Final = 8
"""Along each side; 64 random colours make every picture one of its own."""
MAX_SIDE_PX: Final = 16_384
_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_TYPES: Final = (
    (_SIGNATURE, "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
    (b"BM", "image/bmp"),
    (b"II*\x00", "image/tiff"),
    (b"MM\x00*", "image/tiff"),
)


@dataclass(frozen=True, slots=True)
class PictureSize:
    """Pixels.

    Raises:
        ValueError: A side is below 1 or above `MAX_SIDE_PX`.
    """

    width: int
    height: int

    def __post_init__(self) -> None:
        if not (0 < self.width <= MAX_SIDE_PX and 0 < self.height <= MAX_SIDE_PX):
            raise ValueError(f"a picture has 1 to {MAX_SIDE_PX} pixels along each side")

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"


def draw_png(size: PictureSize, seed: str) -> bytes:
    """A PNG that is a function of `size` and `seed` alone.

    It is small for its pixels, so that a client need not spend its time on packing; the service
    decodes, resizes and encodes as many pixels as of any other picture.
    """
    colours = Random(seed).randbytes(3 * NUM_TILES * NUM_TILES)
    columns = [x * NUM_TILES // size.width for x in range(size.width)]
    rows = [y * NUM_TILES // size.height for y in range(size.height)]
    packer = zlib.compressobj(1)
    packed = []
    for row in range(NUM_TILES):
        tiles = [colours[3 * (row * NUM_TILES + n) :][:3] for n in range(NUM_TILES)]
        # A line begins with its filter: 0 is none.
        line = b"\x00" + b"".join(tiles[column] for column in columns)
        # Large pieces: packing them lets other threads run.
        packed.append(packer.compress(line * rows.count(row)))
    packed.append(packer.flush())
    header = struct.pack(">IIBBBBB", size.width, size.height, 8, 2, 0, 0, 0)
    chunks = _chunk(b"IHDR", header) + _chunk(b"IDAT", b"".join(packed)) + _chunk(b"IEND", b"")
    return _SIGNATURE + chunks


def media_type(picture: bytes) -> str | None:
    """The MIME type of an encoded picture; None when it is of no known format."""
    if picture[:4] == b"RIFF" and picture[8:12] == b"WEBP":
        return "image/webp"
    return next((name for start, name in _TYPES if picture.startswith(start)), None)


def _chunk(kind: bytes, data: bytes) -> bytes:
    checksum = zlib.crc32(data, zlib.crc32(kind))
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)
