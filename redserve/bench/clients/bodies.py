"""Answers by HTTP that are no stream of events: what there is to say of them.

Bodies are read as they come, never decompressed, and no further than somebody wants to know.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from redserve.bench.clients.base import problem_of
from redserve.bench.clients.events import error_message
from redserve.slo import End
from redserve.telemetry.foreign import said

if TYPE_CHECKING:
    import httpx

    from redserve.bench.outcome import Problem

EVENT_STREAM: Final = "text/event-stream"
_REFUSED: Final = frozenset({400, 401, 403, 404, 405, 413, 415, 422})
_MAX_ERROR_BYTES: Final = 2**16
_MAX_WORD_LENGTH: Final = 100


async def refusal(response: httpx.Response) -> Problem:
    """Of an answer with another status than 200: what the server says went wrong."""
    body = b"" if coding_of(response) else await beginning(response, _MAX_ERROR_BYTES)
    try:
        message = error_message(json.loads(body))
    except (ValueError, RecursionError):
        message = body.decode(errors="replace")
    status = response.status_code
    end = End.REFUSED if status in _REFUSED else End.FAILED
    return problem_of(end, f"HTTP_{status}", said(message) or response.reason_phrase)


def no_stream(response: httpx.Response) -> Problem | None:
    """Of an answer without one event: whether it was ever meant as a stream of them.

    One that has events is read whatever it calls itself: some servers call theirs plain text.
    """
    named = response.headers.get("content-type", "")
    if named.partition(";")[0].strip().lower() == EVENT_STREAM:
        return None
    kind = f"content-type {said(named, _MAX_WORD_LENGTH)}" if named else "no content-type"
    return problem_of(End.FAILED, "NO_STREAM", f"the answer is no event stream ({kind})")


async def beginning(response: httpx.Response, num_bytes: int) -> bytes:
    """So much of a body, or all: what follows is not waited for, for it may have no end."""
    found = bytearray()
    async for data in response.aiter_raw():
        found += data
        if len(found) >= num_bytes:
            break
    return bytes(found[:num_bytes])


def coding_of(response: httpx.Response) -> str:
    """How the body is compressed; empty if it is not."""
    named = said(response.headers.get("content-encoding", ""), _MAX_WORD_LENGTH)
    return "" if named.lower() == "identity" else named
