"""Waiting for a condition of the world, with a deadline."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")


def eventually(condition: Callable[[], T], *, timeout_s: float = 60.0, poll_s: float = 0.05) -> T:
    """The first true value of a condition; fails with its last value when none comes in time."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s:g} s; last: {value!r}")
        time.sleep(poll_s)
    return value


async def eventually_async(
    condition: Callable[[], Awaitable[T]], *, timeout_s: float = 60.0, poll_s: float = 0.05
) -> T:
    """The same for a condition that is awaited."""
    deadline = time.monotonic() + timeout_s
    while not (value := await condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s:g} s; last: {value!r}")
        await asyncio.sleep(poll_s)
    return value
