"""When requests are sent in an open loop."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


def poisson(rate_per_s: float, seed: int) -> Iterator[float]:
    """Arrival times of a Poisson process that begins at 0, seconds, without end.

    The same seed gives the same times at every rate, only nearer or farther: runs at several rates
    differ in nothing else.

    Raises:
        ValueError: The rate is not above 0.
    """
    if not rate_per_s > 0:
        raise ValueError("rate_per_s must be above 0")
    gaps = Random(f"arrivals {seed}")
    unit = 0.0
    while True:
        yield unit / rate_per_s
        # The first request is sent at 0: a run has no use for the wait before it.
        unit += gaps.expovariate(1.0)
