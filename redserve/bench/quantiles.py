"""Percentiles by nearest rank, as `redserve top` has them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import fsum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


@dataclass(frozen=True, slots=True)
class Quantiles:
    """Of at least one value; each but the mean is a value that was measured."""

    count: int
    mean: float
    p50: float
    p90: float
    p95: float
    p99: float
    max: float

    def to_dict(self) -> dict[str, float]:
        """For JSON."""
        return asdict(self)


def quantiles(values: Iterable[float]) -> Quantiles | None:
    """None when there are no values."""
    ranked = sorted(values)
    if not ranked:
        return None
    return Quantiles(
        count=len(ranked),
        mean=fsum(ranked) / len(ranked),
        p50=nearest_rank(ranked, 50),
        p90=nearest_rank(ranked, 90),
        p95=nearest_rank(ranked, 95),
        p99=nearest_rank(ranked, 99),
        max=ranked[-1],
    )


def nearest_rank(ranked: Sequence[float], percent: int) -> float:
    """The smallest value such that `percent` of all are not above it.

    `ranked` is sorted and not empty; `percent` is 0 to 100 and whole: a fraction in binary would
    sometimes move the rank by one.
    """
    rank = -(-percent * len(ranked) // 100)
    return ranked[max(1, rank) - 1]
