"""What the header of a picture tells, without decoding a pixel."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass

from PIL import ExifTags, Image, UnidentifiedImageError

from redserve.errors import InvalidArgument, PolicyViolation
from redserve.modeling.images import FORMATS

_SIDEWAYS = (5, 6, 7, 8)
"""EXIF orientations that exchange height and width."""

_CORRUPT = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error)
"""What Pillow's parsers raise on foreign bytes."""

_PNG_LATE_METADATA = (b"eXIf", b"tEXt", b"zTXt", b"iTXt")


@dataclass(frozen=True, slots=True)
class Header:
    """What is known before decoding.

    Attributes:
        format: Pillow's name of the format, found by content.
        upright_size: (height, width) in pixels after EXIF orientation, as the encoder will see it;
            None if only decoding can tell (a PNG with metadata behind its pixels).
    """

    format: str
    upright_size: tuple[int, int] | None


def read_header(data: bytes, *, max_pixels: int, field: str) -> Header:
    """Format and size of an encoded picture.

    Raises:
        InvalidArgument: There are no bytes, they are no picture in one of the formats, or the
            header is truncated or corrupt.
        PolicyViolation: The picture has more than `max_pixels` pixels.
    """
    if not data:
        raise InvalidArgument("the image is empty (0 bytes)", field=field)
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
            _check_pixels(width, height, max_pixels, field)
            return Header(str(image.format), _upright(image, data, height, width))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise PolicyViolation(f"the image is too large: {error}", field=field) from error
    except UnidentifiedImageError as error:
        raise InvalidArgument(
            f"{len(data)} bytes are no image in one of {', '.join(FORMATS)}, "
            "or its header is truncated",
            field=field,
        ) from error
    except _CORRUPT as error:
        raise InvalidArgument(
            f"the image header is truncated or corrupt: {error}", field=field
        ) from error


def _check_pixels(width: int, height: int, max_pixels: int, field: str) -> None:
    if width * height > max_pixels:
        raise PolicyViolation(
            f"the image has {width}x{height} = {width * height} pixels, "
            f"more than the limit of {max_pixels}: make it smaller",
            field=field,
        )


def _upright(image: Image.Image, data: bytes, height: int, width: int) -> tuple[int, int] | None:
    if image.format == "TIFF":
        return height, width  # Pillow has applied the tag to the size it reports
    if image.format == "PNG" and _has_metadata_behind_pixels(data):
        return None
    # Not PngImageFile.getexif, which decodes the whole picture to look behind its pixels.
    exif = Image.Image.getexif(image)
    sideways = exif.get(ExifTags.Base.Orientation, 1) in _SIDEWAYS
    return (width, height) if sideways else (height, width)


def _has_metadata_behind_pixels(data: bytes) -> bool:
    """Whether a PNG has chunks after its pixels that may hold an EXIF orientation."""
    offset, seen_pixels = 8, False
    while offset + 8 <= len(data):
        (length,) = struct.unpack_from(">I", data, offset)
        kind = data[offset + 4 : offset + 8]
        if kind == b"IDAT":
            seen_pixels = True
        elif seen_pixels and kind in _PNG_LATE_METADATA:
            return True
        offset += 12 + length
    return False
