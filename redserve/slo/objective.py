"""A promise in numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, get_args

Indicator = Literal[
    "TimeToFirstToken", "TimePerOutputToken", "EncodeLatency", "RequestLatency", "Availability"
]
"""What is measured."""

INDICATORS: Final[tuple[Indicator, ...]] = get_args(Indicator)
DEFAULT_FAIR_DEADLINE_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Objective:
    """This share of events is good over the window.

    Attributes:
        name: Label in metrics.
        indicator: What an event is and how it is measured.
        threshold_s: An event at or below it is good, seconds; None for Availability alone.
        target: Promised share of good events, above 0 and below 1.
        window_s: Length of the window, seconds.
        fair_deadline_s: Availability only: a client that gives a request less time than this must
            not count against the service when the time is over, seconds.

    Raises:
        ValueError: A number is out of its range, or a latency has no threshold.
    """

    name: str
    indicator: Indicator
    threshold_s: float | None
    target: float
    window_s: float
    fair_deadline_s: float = DEFAULT_FAIR_DEADLINE_S

    def __post_init__(self) -> None:
        if self.indicator not in INDICATORS:
            raise ValueError(f"indicator must be one of {', '.join(INDICATORS)}")
        if self.indicator != "Availability" and not (self.threshold_s and self.threshold_s > 0):
            raise ValueError(f"threshold_s of {self.name} must be above 0")
        if not 0 < self.target < 1:
            raise ValueError(f"target of {self.name} must be above 0 and below 1")
        if self.window_s <= 0:
            raise ValueError(f"window_s of {self.name} must be above 0")
