"""What a request did until its first token, part by part.

Every instant between a request's arrival and its first token belongs to one part, the first of
these that fits, so that the parts add up to the time to first token:

    encode_hidden      prefill ran and an image was being encoded: the encode cost nothing
    prefill            prefill ran, with nothing left to encode meanwhile
    encode_exposed     an image was being encoded, and no prefill ran
    transport_exposed  an embedding was being moved, and nothing of the above
    preprocess         pictures were read and resized, their sizes asked for, text tokenized
    lost               an LLM replica worked on it that was lost, with all that it could have told
    queue              the rest: waits for admission, a batch, room, or the engine's turn

A faster encoder can take from `encode_exposed` only, a faster network from `transport_exposed`
only, more replicas from `queue`. The times of several processes are compared: between machines
that is as good as their clocks agree.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from redserve.telemetry.intervals import intersection, length, union
from redserve.telemetry.timeline import ABORTED, ENCODE, LOST, PREFILL, TRANSFER

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redserve.telemetry.intervals import Interval
    from redserve.telemetry.timeline import Timeline

ENCODE_HIDDEN: Final = "encode_hidden"
ENCODE_EXPOSED: Final = "encode_exposed"
TRANSPORT_EXPOSED: Final = "transport_exposed"
PREPROCESS: Final = "preprocess"
QUEUE: Final = "queue"
PARTS: Final = (
    PREPROCESS, QUEUE, ENCODE_EXPOSED, ENCODE_HIDDEN, TRANSPORT_EXPOSED, PREFILL, LOST,
)  # fmt: skip
"""In the order in which they are shown."""
_PREPARING: Final = (PREPROCESS, "describe", "tokenize")


def first_token_parts(timeline: Timeline) -> dict[str, int]:
    """Nanoseconds of every part of `PARTS`; empty before there is a first token."""
    whole: list[Interval] = [(timeline.received_ns, timeline.first_token_ns)]
    if timeline.first_token_ns <= timeline.received_ns:
        return {}

    def of(*names: str) -> list[Interval]:
        bars = (bar for bar in timeline.bars if bar.name in names)
        return intersection(union((bar.start_ns, bar.end_ns) for bar in bars), whole)

    encode, prefill = of(ENCODE), of(PREFILL)
    parts = {ENCODE_HIDDEN: length(intersection(encode, prefill))}
    parts[PREFILL] = length(prefill) - parts[ENCODE_HIDDEN]
    covered: Sequence[Interval] = prefill
    for name, own in (
        (ENCODE_EXPOSED, encode),
        (TRANSPORT_EXPOSED, of(TRANSFER, ABORTED)),
        (PREPROCESS, of(*_PREPARING)),
        (LOST, of(LOST)),
    ):
        grown = union((*covered, *own))
        parts[name] = length(grown) - length(covered)
        covered = grown
    parts[QUEUE] = length(whole) - length(covered)
    return parts
