"""Where the time of one request went: bars of every process on one time axis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

ENCODE = "encode"
"""Name of the bars during which an encoder computed."""
PREFILL = "prefill"
"""Name of the bars during which an LLM replica computed prompt tokens."""


@dataclass(frozen=True, slots=True)
class Bar:
    """What a process did for a request, and when.

    Attributes:
        lane: Which process, for example "encoder-0".
        name: "preprocess", "queue", "encode", "transfer", "prefill", "decode", ...
        start_ns: Nanoseconds since the Unix epoch.
        end_ns: Nanoseconds since the Unix epoch; not before start_ns.
        item_index: The item it was about, if any.
        num_tokens: Tokens or rows handled.
        detail: Anything else worth reading, for example "cache hit". Never request content.
    """

    lane: str
    name: str
    start_ns: int
    end_ns: int
    item_index: int | None = None
    num_tokens: int = 0
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Timeline:
    """One request.

    Attributes:
        request_id: Its id.
        bars: By start.
        overlap_ratio: See `overlap_ratio`.
        received_ns: When the router got it, nanoseconds since the Unix epoch.
        first_token_ns: When the first token left; 0 before that.
        finished_ns: When it ended; 0 before that.
    """

    request_id: str
    bars: tuple[Bar, ...]
    overlap_ratio: float | None = None
    received_ns: int = 0
    first_token_ns: int = 0
    finished_ns: int = 0


def overlap_ratio(bars: Iterable[Bar]) -> float | None:
    """Share of the encode time during which prefill ran too.

        |union(encode) ∩ union(prefill)| / |union(encode)|

    Unions, so that encoders which work side by side do not count twice.

    Returns:
        A number in [0, 1]; None when nothing was encoded (or in no time at all).
    """
    kept = tuple(bars)
    encode = _union((bar.start_ns, bar.end_ns) for bar in kept if bar.name == ENCODE)
    prefill = _union((bar.start_ns, bar.end_ns) for bar in kept if bar.name == PREFILL)
    total = _length(encode)
    return _length(_intersection(encode, prefill)) / total if total else None


def _union(intervals: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Disjoint intervals in order that cover the same points; empty ones vanish."""
    merged: list[tuple[int, int]] = []
    for start, end in sorted(interval for interval in intervals if interval[0] < interval[1]):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def _intersection(
    left: list[tuple[int, int]], right: list[tuple[int, int]]
) -> list[tuple[int, int]]:
    """Common points of two unions, in one walk over both."""
    common: list[tuple[int, int]] = []
    i = j = 0
    while i < len(left) and j < len(right):
        start, end = max(left[i][0], right[j][0]), min(left[i][1], right[j][1])
        if start < end:
            common.append((start, end))
        if left[i][1] < right[j][1]:
            i += 1
        else:
            j += 1
    return common


def _length(intervals: list[tuple[int, int]]) -> int:
    return sum(end - start for start, end in intervals)
