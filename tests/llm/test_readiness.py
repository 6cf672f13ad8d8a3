"""Not ready while transfers that hang hold too much of the arena back, and ready again after."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub
from structlog.testing import CapturingLogger

from redserve.transport.pool import Pool
from redserve.v1 import llm_pb2 as pb
from redserve.wire.channel import open_channel
from redserve.wire.server import READINESS
from redserve_llm import readiness as module
from redserve_llm.readiness import Readiness
from tests.llm.service import MIB, TIMEOUT_S, check, question, running

if TYPE_CHECKING:
    from redserve.transport.pool import Region

PERCENT = 25
PAGES = 100


class World:
    """A pool of 100 pages, and what is told of it."""

    def __init__(self, patience_s: float = 0.0) -> None:
        self.pool = Pool(PAGES * 4096)
        self.told: asyncio.Queue[bool] = asyncio.Queue()
        self.readiness = Readiness(self.pool, PERCENT, self.told.put_nowait, patience_s)

    def hang(self, num_pages: int) -> Region:
        """A region whose owner has given it up in the middle of a transfer."""
        region = self.pool.alloc(num_pages * 4096)
        region.hold()
        region.free()
        return region

    async def next(self) -> bool:
        async with asyncio.timeout(TIMEOUT_S):
            return await self.told.get()


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> CapturingLogger:
    logger = CapturingLogger()
    monkeypatch.setattr(module, "log", logger)
    return logger


async def settle() -> None:
    """Let everything run that is due in the loop by now, timers of no delay included."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_it_is_ready_from_open_to_shut() -> None:
    world = World()
    await settle()
    assert world.told.empty()
    world.readiness.open()
    assert await world.next() is True
    world.readiness.shut()
    world.readiness.shut()
    assert await world.next() is False
    assert world.told.empty()


async def test_each_edge_is_told_and_logged_once(logged: CapturingLogger) -> None:
    world = World()
    world.readiness.open()
    assert await world.next() is True
    first = world.hang(PERCENT)
    await settle()
    assert world.told.empty(), "as much as is allowed"
    second = world.hang(1)
    assert await world.next() is False
    third = world.hang(30)
    await settle()
    third.unhold()
    await settle()
    assert world.told.empty()
    assert [call.args[0] for call in logged.calls] == [
        "transfers hang: no new requests until their room can be used again"
    ]
    assert logged.calls[0].kwargs["quarantined_bytes"] == (PERCENT + 1) * 4096
    second.unhold()
    assert await world.next() is True
    first.unhold()
    await settle()
    assert world.told.empty()
    assert len(logged.calls) == 2


async def test_what_ends_in_time_was_no_hang(logged: CapturingLogger) -> None:
    world = World(patience_s=3600.0)
    world.readiness.open()
    assert await world.next() is True
    region = world.hang(PAGES)
    await settle()
    region.unhold()
    await settle()
    assert world.told.empty()
    assert not logged.calls


@pytest.mark.usefixtures("logged")
async def test_room_that_comes_back_does_not_open_what_is_shut() -> None:
    world = World()
    world.readiness.open()
    region = world.hang(PAGES)
    assert [await world.next(), await world.next()] == [True, False]
    world.readiness.shut()
    region.unhold()
    await settle()
    assert world.told.empty()


@pytest.mark.usefixtures("logged")
async def test_a_pool_that_many_threads_change_leaves_the_right_word() -> None:
    world = World()
    world.readiness.open()

    def churn() -> None:
        for _ in range(200):
            world.hang(10).unhold()

    for _ in range(3):
        threads = [threading.Thread(target=churn) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            await asyncio.to_thread(thread.join)
        await settle()
        words = []
        while not world.told.empty():
            words.append(world.told.get_nowait())
        assert not words or words[-1] is True
        region = world.hang(PERCENT + 1)
        assert await world.next() is False
        region.unhold()
        assert await world.next() is True


async def test_a_closed_loop_does_not_hurt_the_transport() -> None:
    """A transfer may end in its thread when nobody listens any more."""
    made: list[World] = []

    async def make() -> None:
        made.append(World())

    await asyncio.to_thread(lambda: asyncio.run(make()))
    made[0].hang(PAGES).unhold()


async def probe(address: str) -> HealthCheckResponse.ServingStatus:
    """What Kubernetes asks."""
    async with open_channel(address) as channel:
        stub = HealthStub(channel)
        answer = await stub.Check(HealthCheckRequest(service=READINESS), timeout=TIMEOUT_S)
    return answer.status


async def test_a_replica_says_so_to_routers_and_probes_and_serves_on() -> None:
    async with running(arena_bytes=MIB, quarantine_percent=PERCENT) as service:
        loads = service.stub.WatchLoad(
            pb.LlmServiceWatchLoadRequest(min_interval_ms=1), timeout=TIMEOUT_S
        )

        async def until(serving: bool) -> None:
            async for load in loads:
                if load.serving is serving:
                    return

        await until(True)
        region = service.replica.pool.alloc(MIB // 2)
        region.hold()
        region.free()
        await until(False)
        assert await probe(service.replica.address) == HealthCheckResponse.NOT_SERVING
        asked = question("r", 1)  # a router that has not heard of it yet
        call = service.call(asked)
        await call.until("admitted")
        assert (await service.encoder.announce(asked, 0)).accepted
        await call.finish()
        check(call, asked)
        region.unhold()
        await until(True)
        assert await probe(service.replica.address) == HealthCheckResponse.SERVING
        loads.cancel()
        await service.check_nothing_is_left()
