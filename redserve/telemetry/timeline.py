"""Where the time of one request went: bars of every process on one time axis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from redserve.telemetry.intervals import intersection, length, union

if TYPE_CHECKING:
    from collections.abc import Iterable

    from redserve.telemetry.intervals import Interval

ENCODE = "encode"
"""Name of the bars during which an encoder computed."""
PREFILL = "prefill"
"""Name of the bars during which an LLM replica computed prompt tokens."""
ROOM = "room"
"""Name of the bars during which an announced embedding waited: for room, or for its turn."""
TRANSFER = "transfer"
"""Name of the bars of pulls that brought an embedding: lease asked for to bytes checked."""
ABORTED = "aborted"
"""Name of the bars of pulls that ended without it; `detail` says why."""
LOST = "lost"
"""Name of the bars during which an LLM replica worked that was lost: what it did is not known."""
FAILOVER = "failover"
"""Name of the moments at which an LLM replica refused, and another one was asked."""


@dataclass(frozen=True, slots=True)
class Bar:
    """What a process did for a request, and when.

    Attributes:
        lane: Which process, for example "encoder-0".
        name: "preprocess", "queue", "encode", "room", "transfer", "prefill", "decode", ...
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
        A number in [0, 1]; None when nothing was encoded (or in no time at all), and when
        something was while it is not known whether prefill ran.
    """
    kept = tuple(bars)

    def of(name: str) -> list[Interval]:
        return union((bar.start_ns, bar.end_ns) for bar in kept if bar.name == name)

    encode = of(ENCODE)
    total = length(encode)
    if not total or length(intersection(encode, of(LOST))):
        return None
    return length(intersection(encode, of(PREFILL))) / total
