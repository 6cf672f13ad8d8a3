"""The arena under random arrivals, failures and pressure: the right rows, and all of them freed."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from redserve.errors import DeadlineExceeded, PeerLost
from redserve.scheduling import FixedBudget, Scheduler, SchedulerConfig
from redserve.telemetry.metrics.llm import LLMMetrics
from redserve.transport.base import PeerInfo
from redserve.transport.pool import Pool
from redserve_llm.arena import Arena
from redserve_llm.delivery import Announcement
from redserve_llm.engine import Engine, EngineConfig
from redserve_llm.fake import FakeRunner
from redserve_llm.hub import Hub, ItemNeeded
from redserve_llm.load import LoadBoard
from redserve_llm.notices import Delta, Ended
from redserve_llm.pulls import MAX_PULLS
from tests.llm.service import SHAPE, TIMEOUT_S, Question, question, vocabulary
from tests.support.virtual_time import in_virtual_time, now_s, until_s

if TYPE_CHECKING:
    from redserve.transport.pool import Region

PEER = PeerInfo("encoder-0-abc", "fake", "nowhere")


class FakePuller:
    """Pulls end when the test says so; a cancelled one keeps its region held for a while."""

    def __init__(self) -> None:
        self.under_way: list[tuple[Region, np.ndarray[Any, Any], asyncio.Future[None]]] = []
        self.tensors: dict[str, np.ndarray[Any, Any]] = {}
        self.quarantine: list[Region] = []
        self.most = 0

    async def pull(self, peer: PeerInfo, key: str, region: Region, deadline_s: float) -> None:
        end: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (region, self.tensors[key], end)
        self.under_way.append(entry)
        self.most = max(self.most, len(self.under_way))
        region.view[:] = 0xFF  # garbage while it lands
        try:
            await end
        except asyncio.CancelledError:
            region.hold()
            self.quarantine.append(region)
            raise
        finally:
            self.under_way.remove(entry)

    def settle(self, choice: random.Random, *, failures: float) -> None:
        """Let something happen to one pull, and end one quarantine."""
        if self.under_way:
            region, rows, end = choice.choice(self.under_way)
            if end.done():
                pass
            elif choice.random() < failures:
                end.set_exception(PeerLost("gone"))
            else:
                region.view[:] = np.frombuffer(rows.tobytes(), np.uint8)
                end.set_result(None)
        if self.quarantine:
            self.quarantine.pop().unhold()


class HangingPuller(FakePuller):
    """Waits for no longer than it may, as a real one does."""

    async def pull(self, peer: PeerInfo, key: str, region: Region, deadline_s: float) -> None:
        try:
            async with asyncio.timeout(deadline_s):
                await super().pull(peer, key, region, deadline_s)
        except TimeoutError:
            raise DeadlineExceeded("no bytes came") from None


class World:
    """Engine, arena and hub in one thread, and a router that sends items again when asked."""

    def __init__(
        self,
        seed: int,
        *,
        arena_items: int,
        num_blocks: int,
        overlap: bool = True,
        hanging: bool = False,
    ) -> None:
        self.random = random.Random(seed)
        self.pool = Pool(arena_items * SHAPE.num_bytes(4, "float32"))
        self.hub = Hub(asyncio.get_running_loop(), LoadBoard(lambda: self.pool.used_bytes))
        self.puller = HangingPuller() if hanging else FakePuller()
        metrics = LLMMetrics(CollectorRegistry())
        self.scheduler = Scheduler(
            SchedulerConfig(num_blocks=num_blocks, block_size=4, reserve_ratio=0.0),
            FixedBudget(3 + 4 * (seed % 3)),  # 3 cuts every image,
        )
        self.engine = Engine(
            EngineConfig("llm-0", (2,)),
            self.scheduler,
            FakeRunner(num_blocks, 4),
            vocabulary(),
            self.hub,
            metrics,
        )
        self.arena = Arena(
            self.pool,
            self.puller,  # type: ignore[arg-type]
            self.engine,
            self.hub,
            SHAPE,
            "llm-0",
            metrics,
            overlap=overlap,
        )
        self.hub.attach(self.arena)
        self.mail: list[tuple[Question, int, int]] = []
        self.attempts: dict[tuple[str, int], int] = {}
        self.open: dict[str, tuple[Question, asyncio.Queue[Any], list[int]]] = {}

    def ask(self, asked: Question, deadline: float | None = None) -> None:
        admission = self.engine.add(asked.request)
        queue = self.hub.open(asked.request.key)
        self.arena.open(asked.request, admission.needed_items, deadline)
        self.open[asked.request.key.request_id] = (asked, queue, [])
        for index in admission.needed_items:
            self.send(asked, index)

    def send(self, asked: Question, index: int) -> None:
        place = (asked.request.key.request_id, index)
        attempt = self.attempts[place] = self.attempts.get(place, 0) + 1
        self.mail.append((asked, index, attempt))

    def announce(self) -> None:
        asked, index, attempt = self.mail.pop(self.random.randrange(len(self.mail)))
        key = f"{asked.request.key.request_id}/{index}"
        self.puller.tensors[key] = asked.rows[index]
        announcement = Announcement(attempt, key, PEER, asked.rows[index].shape, "float32")
        self.arena.announce(asked.request.key, index, announcement)

    def read(self) -> None:
        for request_id, (asked, queue, tokens) in list(self.open.items()):
            while not queue.empty():
                event = queue.get_nowait()
                if isinstance(event, ItemNeeded):
                    assert event.lost_attempt == self.attempts.get(
                        (request_id, event.item_index), 0
                    )
                    self.send(asked, event.item_index)
                elif isinstance(event, Delta):
                    tokens += [token.token_id for token in event.tokens]
                elif isinstance(event, Ended):
                    assert tokens == asked.answer, request_id
                    self.hub.close(asked.request.key, queue)
                    del self.open[request_id]

    async def run(self, todo: list[Question], *, failures: float, aborts: float) -> None:
        for _ in range(20_000):
            if todo and self.random.random() < 0.2:
                self.ask(todo.pop(0))
            if self.mail and self.random.random() < 0.5:
                self.announce()
            if self.random.random() < 0.7:
                self.puller.settle(self.random, failures=failures)
            if self.open and self.random.random() < aborts:
                self.abort(self.random.choice(list(self.open)))
            self.engine.step()
            await asyncio.sleep(0)
            self.read()
            if not todo and not self.open:
                break
        else:
            raise AssertionError(f"stuck: {self.scheduler.stats()}")

    def abort(self, request_id: str) -> None:
        asked, queue, _ = self.open.pop(request_id)
        self.hub.close(asked.request.key, queue)
        self.engine.abort(asked.request.key)
        self.mail = [entry for entry in self.mail if entry[0] is not asked]

    async def check_nothing_is_left(self) -> None:
        async with asyncio.timeout(TIMEOUT_S):
            while self.pool.used_bytes:
                for region in self.puller.quarantine:
                    region.unhold()
                self.puller.quarantine.clear()
                await asyncio.sleep(0)
        assert self.scheduler.is_idle
        self.scheduler.check_integrity()
        assert self.scheduler.stats().blocks_free == self.scheduler.stats().blocks_total


@pytest.mark.parametrize("overlap", [True, False], ids=["overlap", "whole"])
@pytest.mark.parametrize("arena_items", [1, 2, 5, 40])
async def test_every_request_ends_with_the_right_answer(arena_items: int, overlap: bool) -> None:
    for seed in range(6):
        world = World(seed, arena_items=arena_items, num_blocks=16 + seed, overlap=overlap)
        todo = [question(f"r{n}", n % 5, seed=n % 7) for n in range(14)]
        await world.run(todo, failures=0.15, aborts=0.0)
        await world.check_nothing_is_left()
        assert world.puller.most <= MAX_PULLS


async def test_requests_that_end_early_leave_nothing() -> None:
    for seed in range(12):
        world = World(seed, arena_items=3, num_blocks=18, overlap=seed % 3 > 0)
        todo = [question(f"r{n}", n % 5, seed=n) for n in range(14)]
        await world.run(todo, failures=0.1, aborts=0.01)
        await world.check_nothing_is_left()


async def test_shutdown_frees_everything() -> None:
    world = World(0, arena_items=4, num_blocks=20, overlap=True)
    for n in range(3):
        world.ask(question(f"r{n}", 3, seed=n))
    while world.mail:
        world.announce()
    await asyncio.sleep(0)
    assert world.puller.under_way
    await world.arena.shutdown()
    assert not world.puller.under_way
    for region in world.puller.quarantine:
        region.unhold()
    assert world.pool.used_bytes == 0


async def hang(deadline: float | None, given_up_at: float) -> tuple[World, Question]:
    """A request whose only item hangs, up to when it is asked for again."""
    world = World(0, arena_items=2, num_blocks=20, hanging=True)
    world.ask(asked := question("r", 1), deadline)
    _, queue, _ = world.open["r"]
    world.announce()
    await until_s(given_up_at - 0.1)
    assert world.puller.under_way
    assert queue.empty()
    needed = await queue.get()
    assert now_s() == pytest.approx(given_up_at)
    assert needed == ItemNeeded(0, lost_attempt=1, why="deadline exceeded")
    assert not world.puller.under_way
    return world, asked


@pytest.mark.parametrize("deadline", [None, 3600.0])
@in_virtual_time
async def test_a_pull_that_hangs_is_given_up_and_its_item_asked_for_again(
    deadline: float | None,
) -> None:
    """The request lives much longer: another encoder can be asked."""
    world, asked = await hang(deadline, given_up_at=10.0)
    world.send(asked, 0)
    await world.run([], failures=0.0, aborts=0.0)
    await world.check_nothing_is_left()


@in_virtual_time
async def test_no_pull_goes_on_when_its_request_is_over() -> None:
    await hang(4.0, given_up_at=4.0)
