"""Time that passes only where everybody waits: minutes of pauses take a test no time.

For code that waits for timers and for its own tasks. Nothing may come from a socket or a thread,
and what asks `time.monotonic` must be given the loop's time instead.
"""

from __future__ import annotations

import asyncio
import selectors
from functools import wraps
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine


class _Selector(selectors.DefaultSelector):
    """Lets time pass instead of waiting."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0

    def select(self, timeout: float | None = None) -> Any:
        found = super().select(0)  # callbacks from threads wake the loop by a socket of its own
        if not found:
            if timeout is None:
                raise AssertionError("all tasks wait, and for nothing that will ever happen")
            self.now_s += max(timeout, 0.0)
        return found


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Its time begins at 0."""

    def __init__(self) -> None:
        self._clock = _Selector()
        super().__init__(self._clock)

    def time(self) -> float:
        return self._clock.now_s


def in_virtual_time(
    test: Callable[..., Coroutine[Any, Any, None]],
) -> Callable[..., None]:
    """Run a test on a `VirtualTimeLoop`."""

    @wraps(test)
    def run(*args: Any, **fixtures: Any) -> None:
        with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
            runner.run(test(*args, **fixtures))

    return run


def now_s() -> float:
    """Since the test began, seconds."""
    return asyncio.get_running_loop().time()


async def until_s(at_s: float) -> None:
    """Let time pass."""
    await asyncio.sleep(at_s - now_s())
