"""How long discovery waits for what."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds. A connection that died unnoticed is known to be dead after watch_s + silence_s.

    Attributes:
        connect_s: To connect.
        answer_s: For a list, and for the first byte of a watch.
        watch_s: After which the server is asked to end a watch.
        silence_s: How much longer a watch may then say nothing.
        shortest_watch_s: A watch that ends sooner is not begun again before that.
        first_backoff_s, longest_backoff_s: Pauses after failures.
    """

    connect_s: float = 5.0
    answer_s: float = 15.0
    watch_s: float = 45.0
    silence_s: float = 10.0
    shortest_watch_s: float = 1.0
    first_backoff_s: float = 0.2
    longest_backoff_s: float = 10.0

    def backoff_s(self, num_failures: int) -> float:
        """Pause after failure number `num_failures` (from 1); random, so that routers spread."""
        doublings = min(num_failures - 1, 20)
        longest = min(self.first_backoff_s * 2.0**doublings, self.longest_backoff_s)
        return longest * random.uniform(0.5, 1.0)

    def watch_seconds(self) -> int:
        """For one watch: whole seconds, as the API takes them; random, so that routers spread."""
        return max(1, round(self.watch_s * random.uniform(0.75, 1.0)))
