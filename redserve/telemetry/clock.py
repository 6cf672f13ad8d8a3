"""Time stamps that processes can compare and that never run backwards within one."""

from __future__ import annotations

import time
from typing import Final


def _anchor_ns() -> int:
    """Wall clock minus monotonic clock.

    Of several readings that with the least time around it: a process that is interrupted between
    the two clocks would be off by that much for ever, and its bars would begin before their cause.
    """
    readings = []
    for _ in range(16):
        before = time.monotonic_ns()
        wall = time.time_ns()
        after = time.monotonic_ns()
        readings.append((after - before, wall - (before + after) // 2))
    return min(readings)[1]


MOST_BEHIND_NS: Final = 10_000_000
"""By what stamps may be behind the wall clock before they follow it, nanoseconds."""

_anchor = _anchor_ns()


def now_ns() -> int:
    """Nanoseconds since the Unix epoch; monotonic within a process.

    It follows the wall clock forward: the monotonic one stands still while a machine is suspended,
    and a process that starts afterwards would be that much ahead of those that ran before. It does
    not follow it back, so that no bar ends before it began.
    """
    global _anchor  # threads that find it too old find the same
    if time.time_ns() - time.monotonic_ns() - _anchor > MOST_BEHIND_NS:
        _anchor = max(_anchor, _anchor_ns())
    return _anchor + time.monotonic_ns()
