"""`data:image/png;base64,...`."""

from __future__ import annotations

import base64
import binascii

from redserve.errors import InvalidArgument, PolicyViolation

_WHITESPACE = str.maketrans("", "", " \t\r\n")


def is_data_url(url: str) -> bool:
    """Whether the address carries its content."""
    return url[:5].lower() == "data:"


def decode_data_url(url: str, *, max_bytes: int, field: str) -> bytes:
    """The content of a data URL. Its media type is not looked at: the content tells.

    Raises:
        InvalidArgument: It is no base64 data URL.
        PolicyViolation: The content is larger than `max_bytes`.
    """
    head, comma, body = url[5:].partition(",")
    if not comma or not head.lower().endswith(";base64"):
        raise InvalidArgument(
            "the data URL must look like data:image/png;base64,<base64 of the file>", field=field
        )
    if len(body) * 3 // 4 - 2 > max_bytes:
        raise PolicyViolation(
            f"the image has more than {max_bytes} bytes: make it smaller", field=field
        )
    try:
        return base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError):
        pass  # perhaps wrapped lines, which encoders of mail produce
    try:
        return base64.b64decode(body.translate(_WHITESPACE), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidArgument(f"the data URL is not valid base64: {error}", field=field) from error
