"""Not ready while nobody can read embeddings from here, and ready again after."""

from __future__ import annotations

import asyncio
import threading

from redserve_encoder.readiness import Readiness

TIMEOUT_S = 20.0
LONG_S = 3600.0


class World:
    def __init__(self, patience_s: float = 0.0) -> None:
        self.told: asyncio.Queue[bool] = asyncio.Queue()
        self.readiness = Readiness(self.told.put_nowait, patience_s)

    async def next(self) -> bool:
        async with asyncio.timeout(TIMEOUT_S):
            return await self.told.get()


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_ready_from_open_to_shut() -> None:
    world = World()
    world.readiness.readable(True)
    await settle()
    assert world.told.empty()
    world.readiness.open()
    assert await world.next()
    world.readiness.shut()
    world.readiness.shut()
    assert not await world.next()
    assert world.told.empty()


async def test_held_back_while_nobody_can_read() -> None:
    world = World()
    world.readiness.open()
    assert await world.next()
    threading.Thread(target=world.readiness.readable, args=(False,)).start()
    assert not await world.next()
    threading.Thread(target=world.readiness.readable, args=(True,)).start()
    assert await world.next()


async def test_a_moment_is_not_worth_a_word() -> None:
    world = World(LONG_S)
    world.readiness.open()
    assert await world.next()
    for _ in range(3):
        world.readiness.readable(False)
        world.readiness.readable(True)
    await settle()
    assert world.told.empty()


async def test_open_tells_nobody_while_nobody_can_read() -> None:
    world = World()
    world.readiness.readable(False)
    await settle()
    world.readiness.open()
    assert world.told.empty()
    world.readiness.readable(True)
    assert await world.next()
