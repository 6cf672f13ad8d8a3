"""Good and bad events, and what they say about a target."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Tally:
    """How many events were good and bad."""

    good: int = 0
    bad: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(self.good + other.good, self.bad + other.bad)

    @property
    def attainment(self) -> float | None:
        """Share of good events; None when there were none at all."""
        total = self.good + self.bad
        return self.good / total if total else None

    def budget_left(self, target: float) -> float | None:
        """Share of the allowed bad events that is left: 1 is untouched, below 0 is overdrawn.

        None when there were no events. `target` is the promised share of good events, below 1.
        """
        attainment = self.attainment
        return None if attainment is None else 1 - (1 - attainment) / (1 - target)
