"""Time stamps that processes can compare and that never run backwards within one."""

from __future__ import annotations

import time


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


# Anchored once: later steps of the wall clock (NTP, a suspended laptop) cannot turn a bar around.
_ANCHOR_NS = _anchor_ns()


def now_ns() -> int:
    """Nanoseconds since the Unix epoch; monotonic within a process."""
    return _ANCHOR_NS + time.monotonic_ns()
