"""Time stamps that processes can compare and that never run backwards within one."""

from __future__ import annotations

import time

# Anchored once: later steps of the wall clock (NTP, a suspended laptop) cannot turn a bar around.
_ANCHOR_NS = time.time_ns() - time.monotonic_ns()


def now_ns() -> int:
    """Nanoseconds since the Unix epoch; monotonic within a process."""
    return _ANCHOR_NS + time.monotonic_ns()
