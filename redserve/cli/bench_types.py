"""Values of the command line of `redserve bench`."""

from __future__ import annotations

import argparse
from typing import Final
from urllib.parse import urlsplit

from redserve.bench.numbers import IntRange
from redserve.bench.pictures import PictureSize

MAX_IMAGES: Final = 8
MAX_NUMBER: Final = 86_400.0


def base_url(text: str) -> str:
    """A type for argparse; an address without a path means /v1 below it."""
    # What was written is not repeated: it may hold a password.
    wrong = argparse.ArgumentTypeError("write http://HOST:PORT/v1")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise wrong from error
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise wrong
    if parts.query or parts.fragment or not text.isprintable() or " " in text:
        raise wrong
    return text.rstrip("/") + ("" if parts.path.strip("/") else "/v1")


def whole(text: str) -> int:
    """A type for argparse: 0, 1, 2, ..."""
    if not (text.isascii() and text.isdecimal() and len(text) <= 9):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number")
    return int(text)


def count(text: str) -> int:
    """A type for argparse: 1, 2, 3, ..."""
    number = whole(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


def not_negative(text: str) -> float:
    """A type for argparse: a number from 0."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number <= MAX_NUMBER:
        raise argparse.ArgumentTypeError(f"{text!r}: write a number from 0 to {MAX_NUMBER:g}")
    return number


def positive(text: str) -> float:
    """A type for argparse: a number above 0."""
    if not (number := not_negative(text)):
        raise argparse.ArgumentTypeError("must be above 0")
    return number


def _range(text: str) -> IntRange:
    try:
        return IntRange.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def images(text: str) -> IntRange:
    """A type for argparse: how many pictures."""
    if (found := _range(text)).most > MAX_IMAGES:
        raise argparse.ArgumentTypeError(f"{text!r}: {MAX_IMAGES} images at most")
    return found


def tokens(text: str) -> IntRange:
    """A type for argparse: how many output tokens."""
    if (found := _range(text)).least < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return found


def picture_size(text: str) -> PictureSize:
    """A type for argparse: "448" or "640x480"."""
    width, cross, height = text.partition("x")
    try:
        return PictureSize(whole(width), whole(height if cross else width))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
