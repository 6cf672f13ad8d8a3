"""The last values of a measurement, and their percentiles."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from math import ceil


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Of the values seen lately; all 0 when there were none.

    Attributes:
        count: How many values there are.
    """

    p50: float = 0.0
    p95: float = 0.0
    p99: float = 0.0
    count: int = 0


class RecentValues:
    """Values of the last `span_s` seconds; under heavy load the last `max_values` of them.

    Args:
        span_s: How long a value counts, seconds.
        max_values: How many are kept at most.
    """

    def __init__(self, span_s: float, max_values: int) -> None:
        self._span_s = span_s
        self._values: deque[tuple[float, float]] = deque(maxlen=max_values)

    def add(self, now_s: float, value: float) -> None:
        """It was measured at `now_s`, which never goes back."""
        self._values.append((now_s, value))

    def percentiles(self, now_s: float) -> Percentiles:
        """Nearest rank: each is a value that was measured."""
        while self._values and self._values[0][0] < now_s - self._span_s:
            self._values.popleft()
        ranked = sorted(value for _, value in self._values)
        if not ranked:
            return Percentiles()

        def rank(share: float) -> float:
            return ranked[max(0, ceil(share * len(ranked)) - 1)]

        return Percentiles(rank(0.5), rank(0.95), rank(0.99), len(ranked))
