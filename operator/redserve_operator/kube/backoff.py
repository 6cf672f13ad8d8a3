"""How long to wait before trying again: pure, the randomness comes in."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Doubling waits with jitter.

    Attributes:
        first_s: Wait after the first failure, seconds.
        longest_s: Longest wait, seconds.
        jitter: Share of a wait that chance may take away, so that many do not return at once.
    """

    first_s: float
    longest_s: float
    jitter: float = 0.5

    def wait_s(self, num_failures: int, chance: float, at_least_s: float | None = None) -> float:
        """Seconds to wait after `num_failures` failures in a row.

        Args:
            num_failures: 1 after the first.
            chance: A random number in [0, 1).
            at_least_s: What the other side asked for; kept also above `longest_s`.
        """
        # The exponent is bounded, because 2.0**1100 is an error and not a long wait.
        doubled = min(self.first_s * 2.0 ** min(num_failures - 1, 40), self.longest_s)
        wait = doubled * (1.0 - self.jitter * chance)
        if at_least_s is None:
            return wait
        # Jitter on top: whoever was told the same second must not come back in the same second.
        return max(wait, at_least_s * (1.0 + 0.1 * chance))
