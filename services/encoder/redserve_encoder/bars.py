"""What the timeline shows of one delivery.

submitted         prepare                    encode            announced
    │ ──queue── │ ─preprocess─ │ ──queue── │ ──encode── │ ──publish── │
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from redserve.telemetry.timeline import ENCODE, Bar

if TYPE_CHECKING:
    from redserve_encoder.delivery import Delivery
    from redserve_encoder.flight import Flight

QUEUE = "queue"
PREPROCESS = "preprocess"
PUBLISH = "publish"


def flight_bars(lane: str, delivery: Delivery, flight: Flight) -> tuple[Bar, ...]:
    """Bars of a delivery that was encoded, up to the end of its batch.

    Work that began before the delivery came in is shown from then on only: it did not wait for
    what was done earlier.
    """
    detail = "joined" if delivery in flight.joined else ""
    bars: list[Bar] = []
    cursor = delivery.submitted_ns

    def advance(name: str, start_ns: int, end_ns: int, detail: str = detail) -> None:
        nonlocal cursor
        start_ns = max(start_ns, cursor)
        if end_ns <= start_ns:
            return
        if start_ns > cursor:
            bars.append(_bar(lane, QUEUE, cursor, start_ns, delivery, ""))
        bars.append(_bar(lane, name, start_ns, end_ns, delivery, detail))
        cursor = end_ns

    if flight.picture is not None:
        advance(PREPROCESS, flight.picture.start_ns, flight.picture.end_ns)
    advance(ENCODE, flight.encode_start_ns, flight.encode_end_ns)
    return tuple(bars)


def cache_hit_bars(lane: str, delivery: Delivery, now_ns: int) -> tuple[Bar, ...]:
    """Bars of a delivery whose embedding was there already: nothing was encoded for it."""
    return (_bar(lane, QUEUE, delivery.submitted_ns, now_ns, delivery, "cache hit"),)


def publish_bar(lane: str, delivery: Delivery, start_ns: int, end_ns: int, detail: str) -> Bar:
    """From the finished embedding to the LLM replica's answer."""
    return _bar(lane, PUBLISH, start_ns, end_ns, delivery, detail)


def _bar(lane: str, name: str, start_ns: int, end_ns: int, delivery: Delivery, detail: str) -> Bar:
    return Bar(
        lane=lane,
        name=name,
        start_ns=start_ns,
        end_ns=max(start_ns, end_ns),
        item_index=delivery.tag.item_index,
        num_tokens=delivery.num_rows,
        detail=detail,
    )
