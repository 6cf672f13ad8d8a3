"""The size of a picture as it will be seen, from its header where that is possible.

Embedding rows are a function of the size, and EXIF orientation may swap its edges. Most formats
tell the orientation in the header; of TIFF Pillow tells the size as it will be seen anyway. PNG may
tell the orientation behind the pixels, and Pillow decodes them all to find out; files without such
a chunk, nearly all, need not pay for that.
"""

from __future__ import annotations

import io
import struct

from PIL import ExifTags, Image

from redserve.modeling.images import FORMATS, decode_image, image_size

_PNG_ORIENTATION_MARKS = (b"eXIf", b"Raw profile type", b"XML:com.adobe.xmp")
_SWAPPED = frozenset({5, 6, 7, 8})


def upright_size(data: bytes, *, max_pixels: int) -> tuple[int, int]:
    """(height, width) of the picture that `decode_image` makes of `data`.

    Raises:
        InvalidArgument: The bytes are no picture.
        PolicyViolation: The picture has more than `max_pixels` pixels.
    """
    width, height = image_size(data, max_pixels=max_pixels, field="picture")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if image.format == "TIFF":
                return height, width
            if image.format == "PNG" and not any(mark in data for mark in _PNG_ORIENTATION_MARKS):
                return height, width
            if image.format != "PNG":
                orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
                return (width, height) if orientation in _SWAPPED else (height, width)
    except (OSError, SyntaxError, ValueError, EOFError, KeyError, TypeError, struct.error):
        # A header that breaks here breaks decoding too, and that tells the client why.
        pass
    upright = decode_image(data, max_pixels=max_pixels, field="picture")
    return upright.height, upright.width
