"""What moving the embeddings of a request cost it: exposed and hidden transport time per item.

An instant of an item's transfer is *hidden* if something else of the request goes on anyway, or
has to come first:

1. a chunk of its prefill runs, or
2. another item of it is being encoded, or
3. an earlier item is still on its way, so that the rows of this one are not needed next.

Every other instant is *exposed*: all that the request does is to wait for these bytes. By rule 3
such an instant belongs to one item only, so the exposed times of the items add up to the time
that the request spent on nothing but transport.

    encode  0  ████████
    encode  1          ██████████
    transfer 0         ▒▒▒▒              hidden: item 1 is being encoded
    prefill                ▓▓▓▓
    transfer 1                   ▒▒▒▒▒   exposed: there is nothing else to do
    prefill                           ▓▓▓▓

That is how long the request stood still for bytes, not exactly what a transport without delay
would save. It is more where the request waited for the engine's turn meanwhile: that leaves no bar
that could hide a transfer. It is less where an item arrives late behind another's encode, so that
its prefill runs after that encode instead of during it: the overlap ratio shows that. Waiting for
room or for a turn (`ROOM`) is not transport. Transfers and prefill are timed by one process; how
far rule 2 holds between machines is how well their clocks agree.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from redserve.telemetry.intervals import intersection, length, union
from redserve.telemetry.timeline import ABORTED, ENCODE, PREFILL, TRANSFER

if TYPE_CHECKING:
    from collections.abc import Iterable

    from redserve.telemetry.intervals import Interval
    from redserve.telemetry.timeline import Bar


@dataclass(frozen=True, slots=True)
class ItemTransport:
    """Transport of one item, all attempts together.

    Attributes:
        item_index: Its position among the items of the request.
        exposed_ns: Time in which the request did nothing but wait for it, nanoseconds.
        hidden_ns: The rest of its transfer time, nanoseconds.
        num_attempts: Transfers, aborted ones included.
    """

    item_index: int
    exposed_ns: int
    hidden_ns: int
    num_attempts: int

    @property
    def total_ns(self) -> int:
        """Time during which it was being transferred, nanoseconds."""
        return self.exposed_ns + self.hidden_ns


def transport_times(bars: Iterable[Bar]) -> tuple[ItemTransport, ...]:
    """Exposed and hidden transport time of every item that was transferred, by index.

    Args:
        bars: Of one request, in any order. Items that a cache covered have no transfers.
    """
    kept = tuple(bars)
    prefill = [_interval(bar) for bar in kept if bar.name == PREFILL]
    encodes = [bar for bar in kept if bar.name == ENCODE]
    times: list[ItemTransport] = []
    earlier: list[Interval] = []  # while an item before this one was on its way
    for index, pulls in sorted(_pulls(kept).items()):
        own = union(_interval(bar) for bar in pulls)
        others = [_interval(bar) for bar in encodes if bar.item_index != index]
        hidden_ns = length(intersection(own, union([*prefill, *others, *earlier])))
        times.append(ItemTransport(index, length(own) - hidden_ns, hidden_ns, len(pulls)))
        earlier += own
        arrivals = [bar.end_ns for bar in pulls if bar.name == TRANSFER]
        if arrivals:
            # It was missing from the beginning, not only while it was moved.
            earlier.append((min(bar.start_ns for bar in kept), min(arrivals)))
    return tuple(times)


def _pulls(bars: Iterable[Bar]) -> dict[int, list[Bar]]:
    found: dict[int, list[Bar]] = {}
    for bar in bars:
        if bar.name in (TRANSFER, ABORTED) and bar.item_index is not None:
            found.setdefault(bar.item_index, []).append(bar)
    return found


def _interval(bar: Bar) -> Interval:
    return bar.start_ns, bar.end_ns
