from __future__ import annotations

import asyncio

import pytest

from redserve_operator.keys import ServiceKey
from redserve_operator.kube.backoff import Backoff
from redserve_operator.queue import WorkQueue

A, B = ServiceKey("ns", "a"), ServiceKey("ns", "b")


@pytest.fixture
def queue() -> WorkQueue:
    return WorkQueue(0.01, Backoff(0.01, 0.02))


async def test_a_worker_waits_for_a_change(queue: WorkQueue) -> None:
    waiting = asyncio.create_task(queue.take())
    await asyncio.sleep(0)
    assert not waiting.done()
    queue.add(A)
    assert await waiting == A


async def test_workers_share_and_a_later_change_wakes_whoever_waits_for_a_long_one() -> None:
    queue = WorkQueue(0.0, Backoff(0.01, 0.02))
    queue.add(A)
    assert await queue.take() == A
    queue.done(A, again_after_s=3600.0)
    first, second = asyncio.create_task(queue.take()), asyncio.create_task(queue.take())
    await asyncio.sleep(0)
    queue.add(B)
    queue.add(A)
    assert {await first, await second} == {A, B}


async def test_a_failed_service_comes_back(queue: WorkQueue) -> None:
    queue.add(A)
    assert await queue.take() == A
    assert 0 < queue.failed(A) <= 0.01
    assert queue.failures(A) == 1
    assert await queue.take() == A
    queue.done(A, None)
    assert queue.depth() == 0
    assert queue.oldest_s() == 0.0


async def test_a_service_that_asks_for_itself_at_once_starves_nobody() -> None:
    for debounce_s in (0.0, 0.01):
        queue = WorkQueue(debounce_s, Backoff(0.01, 0.02))
        looks = 0

        async def work(queue: WorkQueue = queue) -> None:
            nonlocal looks
            while looks < 100_000 and (service := await queue.take()) is not None:
                looks += 1
                queue.done(service, again_after_s=0.0)

        queue.add(A)
        working = asyncio.create_task(work())
        for _ in range(20):
            await asyncio.sleep(0)
        queue.close()
        await asyncio.wait_for(working, 5.0)
        assert looks <= 20


async def test_a_closed_queue_lets_its_workers_go(queue: WorkQueue) -> None:
    waiting = asyncio.create_task(queue.take())
    await asyncio.sleep(0)
    queue.add(A)
    queue.close()
    assert await waiting is None
    assert await queue.take() is None
