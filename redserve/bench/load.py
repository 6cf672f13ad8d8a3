"""How requests follow one another. Nothing here knows what a request is."""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator

    Send = Callable[[int, float], Awaitable[None]]
    """Send request number so and so, which is due then (`perf_counter`), and await its end."""


async def open_loop(times: Iterable[float], send: Send) -> None:
    """Send when it is time, seconds from now, however many are still under way.

    Returns when all have ended. An exception or a cancellation ends all of them.
    """
    begin_s = perf_counter()
    async with asyncio.TaskGroup() as group:
        for index, time_s in enumerate(times):
            due_s = begin_s + time_s
            await asyncio.sleep(max(0.0, due_s - perf_counter()))
            group.create_task(_run(send, index, due_s))


async def closed_loop(indices: Iterator[int], concurrency: int, send: Send) -> None:
    """Keep `concurrency` requests under way; the next one is sent when one ends.

    Returns when all have ended. An exception or a cancellation ends all of them.
    """

    async def user() -> None:
        for index in indices:
            await send(index, perf_counter())

    async with asyncio.TaskGroup() as group:
        for _ in range(concurrency):
            group.create_task(user())


async def _run(send: Send, index: int, due_s: float) -> None:
    await send(index, due_s)
