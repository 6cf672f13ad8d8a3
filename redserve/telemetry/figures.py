"""Numbers as people read them, on the terminal and in reports."""

from __future__ import annotations

from typing import Final

NOTHING: Final = "-"


def duration(seconds: float | None) -> str:
    """Three digits that matter: "1.23 ms", "2.5 s"."""
    if seconds is None:
        return NOTHING
    return f"{seconds * 1000:.3g} ms" if seconds < 0.9995 else f"{seconds:.4g} s"


def percent(share: float | None, digits: int = 3) -> str:
    """As much as there is to say: 99, 99.9, 99.987; never 100 for what is less."""
    if share is None:
        return NOTHING
    text = f"{share * 100:.{digits}f}"
    if share < 1 and float(text) == 100:
        return "<100 %"
    return (text.rstrip("0").rstrip(".") if "." in text else text) + " %"


def rate(per_s: float | None, of: str) -> str:
    """For example "1.88 requests/s"."""
    if per_s is None:
        return NOTHING
    return f"{per_s:.3g} {of}/s" if per_s < 999.5 else f"{per_s:.0f} {of}/s"
