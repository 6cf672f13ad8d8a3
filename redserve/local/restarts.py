"""When a process that ended is started again. Pure: times come in as arguments."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

CONFIG_EXIT_CODE: Final = 2
"""Exit status by which a service says that its settings are wrong: no restart can mend that."""


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """Exponential back-off.

    Attributes:
        first_delay_s: Pause before the first restart, seconds.
        max_delay_s: Longest pause, seconds.
        stable_s: A process that was ready this long begins anew, seconds.
        max_failed_starts: Ends in a row of a process that has never been ready, after which
            starting it is given up.
    """

    first_delay_s: float = 0.2
    max_delay_s: float = 10.0
    stable_s: float = 30.0
    max_failed_starts: int = 3


@dataclass(frozen=True, slots=True)
class History:
    """What became of a process so far.

    Attributes:
        num_restarts: How often it was started again.
        num_failures: Ends in a row, since it was last stable.
        was_ready: Whether it has ever been ready.
    """

    num_restarts: int = 0
    num_failures: int = 0
    was_ready: bool = False

    def ended(self, ready_for_s: float | None, policy: RestartPolicy) -> History:
        """It ended, having been ready for that long (None: never in this run)."""
        stable = ready_for_s is not None and ready_for_s >= policy.stable_s
        return History(
            num_restarts=self.num_restarts + 1,
            num_failures=1 if stable else self.num_failures + 1,
            was_ready=self.was_ready or ready_for_s is not None,
        )

    def delay_s(self, policy: RestartPolicy) -> float:
        """Pause before the next start, seconds."""
        doublings = min(max(self.num_failures - 1, 0), 32)
        return float(min(policy.first_delay_s * 2**doublings, policy.max_delay_s))

    def hopeless(self, policy: RestartPolicy) -> bool:
        """Whether it never came up and trying again makes no sense."""
        return not self.was_ready and self.num_failures >= policy.max_failed_starts
