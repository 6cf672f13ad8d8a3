"""Ends of tasks."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable


async def end(*tasks: asyncio.Task[Any]) -> None:
    """Cancel them and wait until they have ended, however they end."""
    for task in tasks:
        task.cancel()
    for task in tasks:
        with suppress(asyncio.CancelledError, Exception):
            await task


async def drain(tasks: Iterable[asyncio.Task[Any]], timeout_s: float) -> None:
    """Wait until they have ended by themselves; those that take longer are cancelled."""
    pending = set(tasks)
    if pending:
        _, pending = await asyncio.wait(pending, timeout=timeout_s)
    await end(*pending)


async def done_before(work: Coroutine[Any, Any, None], stop: asyncio.Event) -> bool:
    """Do the work unless `stop` comes first; returns whether it was done, raises what it raises."""
    working = asyncio.ensure_future(work)
    stopping = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            return False
        working.result()
        return True
    finally:
        await end(working, stopping)
