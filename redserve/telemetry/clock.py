"""Time stamps that processes can compare and that never run backwards within one."""

from __future__ import annotations

import time
from typing import Final

# It goes on while a machine is suspended: processes that began before and after agree. Where there
# is none, the monotonic clock does so.
_STEADY: Final[int] = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def _steady_ns() -> int:
    return time.clock_gettime_ns(_STEADY)


def _anchor_ns() -> int:
    """Wall clock minus steady clock.

    Of several readings that with the least time around it: a process that is interrupted between
    the two clocks would be off by that much for ever, and its bars would begin before their cause.
    """
    readings = []
    for _ in range(16):
        before = _steady_ns()
        wall = time.time_ns()
        after = _steady_ns()
        readings.append((after - before, wall - (before + after) // 2))
    return min(readings)[1]


# Anchored once: a wall clock that is set later can neither turn a bar around nor stretch a request.
_ANCHOR_NS: Final = _anchor_ns()


def now_ns() -> int:
    """Nanoseconds since the Unix epoch; monotonic within a process."""
    return _ANCHOR_NS + _steady_ns()
