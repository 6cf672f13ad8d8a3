"""Where the time of one sequence went inside this replica."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

from redserve.telemetry.timeline import PREFILL, Bar

if TYPE_CHECKING:
    from redserve.scheduling.micro_batch import ScheduledChunk

MAX_PREFILL_BARS = 64
"""Beyond this the two neighbours with the shortest gap become one, again and again."""


class SequenceTimeline:
    """Bars of one sequence: queue, one per prefill chunk, decode.

    Args:
        lane: Name of the replica.
        arrived_ns: When the request came in.

    Attributes:
        first_chunk_ns: When its first chunk started, or None.
        prefilled_ns: When the chunk that gave the first token ended, or None.
        last_token_ns: When the last token so far was made, or None.
    """

    __slots__ = (
        "_lane",
        "_num_decoded",
        "_prefill",
        "arrived_ns",
        "first_chunk_ns",
        "last_token_ns",
        "prefilled_ns",
    )

    def __init__(self, lane: str, arrived_ns: int) -> None:
        self._lane = lane
        self._prefill: list[Bar] = []
        self._num_decoded = 0
        self.arrived_ns = arrived_ns
        self.first_chunk_ns: int | None = None
        self.prefilled_ns: int | None = None
        self.last_token_ns: int | None = None

    def chunk(self, chunk: ScheduledChunk, start_ns: int, end_ns: int) -> tuple[Bar, ...]:
        """Record a chunk that ran.

        Returns:
            What whoever watches has to see now: the bar of a prefill chunk, before the first one
            that of the queue. Decoding shows by its tokens.
        """
        made: list[Bar] = []
        if self.first_chunk_ns is None:
            self.first_chunk_ns = start_ns
            made.append(Bar(self._lane, "queue", self.arrived_ns, start_ns))
        if chunk.is_decode:
            self._num_decoded += 1
        else:
            # After a preemption a prompt is computed again, outputs included.
            detail = "" if self.prefilled_ns is None else "recomputed"
            bar = Bar(
                self._lane, PREFILL, start_ns, end_ns, num_tokens=chunk.num_tokens, detail=detail
            )
            made.append(bar)
            self._prefill.append(bar)
            if len(self._prefill) > MAX_PREFILL_BARS:
                self._coalesce()
        if chunk.samples:
            if self.prefilled_ns is None:
                self.prefilled_ns = end_ns
            self.last_token_ns = end_ns
        return tuple(made)

    def bars(self) -> tuple[Bar, ...]:
        """All bars so far, by start."""
        bars = []
        if self.first_chunk_ns is not None:
            bars.append(Bar(self._lane, "queue", self.arrived_ns, self.first_chunk_ns))
        bars += self._prefill
        if self._num_decoded and self.prefilled_ns is not None and self.last_token_ns is not None:
            bars.append(
                Bar(
                    self._lane,
                    "decode",
                    self.prefilled_ns,
                    self.last_token_ns,
                    num_tokens=self._num_decoded,
                )
            )
        return tuple(bars)

    def _coalesce(self) -> None:
        bars = self._prefill
        gaps = [right.start_ns - left.end_ns for left, right in pairwise(bars)]
        place = gaps.index(min(gaps))
        left, right = bars[place], bars[place + 1]
        bars[place : place + 2] = [
            replace(left, end_ns=right.end_ns, num_tokens=left.num_tokens + right.num_tokens)
        ]
