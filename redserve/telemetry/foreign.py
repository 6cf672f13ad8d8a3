"""What others say, made safe to show and to count with.

A server, or whoever answers in its place, may say anything: everything that it says and a person
will see passes through here before it is kept.
"""

from __future__ import annotations

from typing import Final

MAX_SAID: Final = 500
"""Characters of what somebody else says that are shown, at most."""
MAX_COUNT: Final = 10**9
"""No answer has more tokens."""
_REPLACEMENT: Final = "\ufffd"
_CUT: Final = "…"


def printable(text: str) -> str:
    """Without control characters and lone surrogates; lines and tabs stay.

    What a model says must not move the terminal's cursor, and UTF-8 can write it.
    """
    return "".join(c if c.isprintable() or c in "\n\t" else _REPLACEMENT for c in text)


def said(text: str, most: int = MAX_SAID) -> str:
    """One printable line of `most` characters at most; the last one tells if it was cut."""
    line = " ".join(text.split())
    return printable(line if len(line) <= most else line[: most - 1] + _CUT)


def count(value: object) -> int | None:
    """A number of tokens, 0 to `MAX_COUNT`; None, "not told", for all else."""
    # JSON's true is a whole number in Python.
    if not isinstance(value, int) or isinstance(value, bool):
        return None
    return value if 0 <= value <= MAX_COUNT else None
