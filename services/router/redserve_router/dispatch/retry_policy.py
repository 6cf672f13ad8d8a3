"""Which failures of an item another try may mend, and when to try."""

from __future__ import annotations

from typing import TYPE_CHECKING

from redserve.errors import Cancelled, DeadlineExceeded, InternalError, Overloaded, Unavailable

if TYPE_CHECKING:
    from redserve.errors import RedServeError

FIRST_BACKOFF_S = 0.05
LONGEST_BACKOFF_S = 2.0
MAX_REPORTED = 8
"""Failures of one kind that a living encoder reports for one item."""
MAX_INTERNAL = 2
"""The same picture that breaks two encoders will break the third."""


def may_try_again(error: RedServeError, num_times: int) -> bool:
    """Whether an item that an encoder reported as failed goes to an encoder again.

    Args:
        error: What was reported.
        num_times: How often, this time included.
    """
    match error:
        case Overloaded():
            return True  # room comes back; the deadline is the limit
        case Unavailable() | Cancelled():
            return num_times < MAX_REPORTED
        case InternalError() | DeadlineExceeded():
            return num_times < MAX_INTERNAL
        case _:
            return False  # the picture is wrong, and stays so


def backoff_s(num_retries: int, *, num_encoders: int) -> float:
    """How long to wait before retry number `num_retries` (from 1).

    The first retry goes to another encoder at once, if there is one.
    """
    if num_retries <= 1 and num_encoders > 1:
        return 0.0
    return float(min(FIRST_BACKOFF_S * 2 ** (num_retries - 1), LONGEST_BACKOFF_S))
