"""What a pool is to become, and how far it may deviate from that on the way."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import ceil, floor


@dataclass(frozen=True, slots=True)
class Goal:
    """What a pool is to become.

    Attributes:
        desired: Replicas of the new revision in the end.
        surge: Replicas above `desired` meanwhile; not both 0 with `unavailable`.
        unavailable: Replicas that may be missing meanwhile.
        is_required: Whether routers are ready only when one of these is. Not so for encoders that
            may be none at all: then routers are ready without any.
    """

    desired: int
    surge: int
    unavailable: int
    is_required: bool = True

    @property
    def floor(self) -> int:
        """Replicas that must stay ready when some are stopped."""
        return max(0, self.desired - self.unavailable)

    @property
    def may_be_empty(self) -> bool:
        """Whether nobody promised that a replica is ready at all times."""
        return self.floor == 0


def goal(desired: int, max_surge: str, max_unavailable: str, *, is_required: bool = True) -> Goal:
    """A goal from the manifest's words: shares of a surge are rounded up, of the other down."""
    surge = _share(max_surge, desired, up=True)
    unavailable = min(_share(max_unavailable, desired, up=False), desired)
    return Goal(desired, surge or (0 if unavailable else 1), unavailable, is_required)


def promised(size: int, least: int, max_unavailable: str) -> int:
    """Replicas that must be ready for requests to be answered as promised; at least 1.

    Args:
        size: Replicas that are wanted.
        least: Replicas that are enough when the pool is being scaled.
        max_unavailable: Of the manifest.
    """
    return max(1, min(least, size - _share(max_unavailable, size, up=False)))


def _share(text: str, whole: int, *, up: bool) -> int:
    if not text.endswith("%"):
        return int(text)
    exact = Fraction(int(text[:-1]) * whole, 100)
    return ceil(exact) if up else floor(exact)
