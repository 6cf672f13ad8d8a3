"""Paths of fields as the log may have them: a client may name a field as it likes."""

from __future__ import annotations

import re
from typing import Final

from redserve_router.http.schemas import (
    ChatCompletionBody,
    MessageBody,
    RedServeOptions,
    StreamOptions,
)
from redserve_router.http.unsupported import REFUSED

UNKNOWN: Final = "unknown field"
_IN_PARTS: Final = frozenset({"type", "text", "image_url"})
_KNOWN: Final = REFUSED.union(
    _IN_PARTS,
    *(
        body.model_fields
        for body in (ChatCompletionBody, MessageBody, RedServeOptions, StreamOptions)
    ),
)
_STEP: Final = re.compile(r"([a-z_]+)(?:\[[0-9]{1,9}\])*")


def field_to_show(path: str | None) -> str | None:
    """The path if every step of it is a field of this API."""
    if path is None:
        return None
    steps = [_STEP.fullmatch(step) for step in path.split(".")]
    return path if all(step and step[1] in _KNOWN for step in steps) else UNKNOWN
