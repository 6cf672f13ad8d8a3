"""Encoded image bytes to a PIL image, with limits checked before decoding. No torch."""

from __future__ import annotations

import io
import struct
import zlib

from PIL import Image, ImageOps, UnidentifiedImageError

from redserve.errors import InvalidArgument, PolicyViolation

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
"""Decoders that foreign bytes may reach; every further one is attack surface."""

DEFAULT_MAX_PIXELS = 64 * 1024 * 1024


def decode_image(
    data: bytes, *, max_pixels: int = DEFAULT_MAX_PIXELS, field: str = "image"
) -> Image.Image:
    """The first frame as an upright RGB image.

    Orientation follows EXIF. Alpha is dropped as `convert("RGB")` does, which is what transformers
    does with the same file.

    Args:
        data: The bytes of a file in one of `FORMATS`.
        max_pixels: Width times height that may be decoded; read from the header beforehand.
        field: Name of the request field for error messages.

    Raises:
        InvalidArgument: The bytes are no such image, or are truncated or corrupt.
        PolicyViolation: The image has more than `max_pixels` pixels.
    """
    width, height = image_size(data, max_pixels=max_pixels, field=field)
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            upright = ImageOps.exif_transpose(image)
            if upright.mode == "P" and "transparency" in upright.info:
                upright = upright.convert("RGBA")  # same colours; Pillow warns of the direct way
            return upright.convert("RGB")
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error) as error:
        raise InvalidArgument(
            f"the {width}x{height} image is truncated or corrupt: {error}", field=field
        ) from error


def image_size(
    data: bytes, *, max_pixels: int = DEFAULT_MAX_PIXELS, field: str = "image"
) -> tuple[int, int]:
    """(width, height) as stored in the header, before EXIF orientation; decodes no pixel.

    Raises:
        InvalidArgument: The bytes are no image in one of `FORMATS`.
        PolicyViolation: The image has more than `max_pixels` pixels.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
    except Image.DecompressionBombError as error:
        raise PolicyViolation(f"the image is too large: {error}", field=field) from error
    except UnidentifiedImageError as error:
        names = ", ".join(FORMATS)
        raise InvalidArgument(
            f"{len(data)} bytes are no image in one of {names}", field=field
        ) from error
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error) as error:
        raise InvalidArgument(f"the image header is corrupt: {error}", field=field) from error
    if width * height > max_pixels:
        raise PolicyViolation(
            f"the image has {width}x{height} = {width * height} pixels, "
            f"more than the limit of {max_pixels}",
            field=field,
        )
    return width, height
