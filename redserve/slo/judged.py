"""A whole answer before the promises of its service."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from redserve.slo.ended import Ended
    from redserve.slo.scoreboard import Verdict
    from redserve.slo.tally import Tally


@dataclass(frozen=True, slots=True)
class Judged:
    """What an answer is judged by, and what comes of it.

    Attributes:
        time_to_first_token_s: None if there was no token.
        time_per_output_token_s: None if there were fewer than two.
        request_duration_s: From its arrival to its end.
        encode_latency_s: The longest that one of its items took which no encoder had; None
            without one.
        events: Of the promises that it is an event of, by their names.
    """

    time_to_first_token_s: float | None
    time_per_output_token_s: float | None
    request_duration_s: float
    encode_latency_s: float | None
    events: tuple[tuple[str, Tally], ...]


def judged_of(ended: Ended, verdicts: Iterable[Verdict]) -> Judged:
    """Of an answer with all items that were sent to encoders, and of what was found of it."""
    return Judged(
        time_to_first_token_s=ended.first_token_s,
        time_per_output_token_s=ended.time_per_output_token_s,
        request_duration_s=ended.duration_s,
        encode_latency_s=ended.encode_latency_s,
        events=tuple((verdict.objective.name, verdict.tally) for verdict in verdicts),
    )
