"""Open and closed loops, warm-up and ends, against a client that a test holds by the reins."""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import TYPE_CHECKING, Self

import pytest

from redserve.bench import run as run_module
from redserve.bench.numbers import IntRange
from redserve.bench.outcome import Answer, Outcome, Problem
from redserve.bench.pictures import PictureSize
from redserve.bench.questions import Question, Workload
from redserve.bench.run import Plan, Run
from redserve.bench.summary import summarize
from redserve.slo import End

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

WORKLOAD = Workload(images=IntRange(0, 3), size=PictureSize(8, 8))
BUSY = Problem(End.FAILED, "OVERLOADED", "no room")


class ScriptedClient:
    """Answers when `gate` is open; `asked` has all questions."""

    model = "fake"

    def __init__(self, *, is_open: bool = True) -> None:
        self.gate = asyncio.Event()
        if is_open:
            self.gate.set()
        self.asked: list[Question] = []
        self.num_inflight = 0
        self.most_inflight = 0
        self.num_cancelled = 0
        self.problem: Problem | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exc: object) -> None:
        pass

    async def ask(self, question: Question) -> Answer:
        start_s = perf_counter()
        self.asked.append(question)
        self.num_inflight += 1
        self.most_inflight = max(self.most_inflight, self.num_inflight)
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.num_cancelled += 1
            raise
        finally:
            self.num_inflight -= 1
        now_s = perf_counter()
        return Answer(start_s, now_s, now_s, now_s, 1, problem=self.problem)


class Log:
    """Remembers what a run told it."""

    def __init__(self) -> None:
        self.warm_ups: list[int] = []
        self.ends: list[int] = []

    def warmed_up(self, num_ended: int) -> None:
        self.warm_ups.append(num_ended)

    def ended(self, num_ended: int, _outcome: Outcome) -> None:
        self.ends.append(num_ended)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - anything may make it true
            await asyncio.sleep(0.001)


def texts(questions: Iterable[Question]) -> list[str]:
    return sorted(question.text for question in questions)


def started(
    client: ScriptedClient, plan: Plan, max_inflight: int = run_module.MAX_INFLIGHT
) -> tuple[Run, asyncio.Task[None]]:
    run = Run(plan, WORKLOAD, 60.0, Log(), max_inflight=max_inflight)
    return run, asyncio.create_task(run.go(client))


async def test_a_closed_loop_keeps_as_many_under_way_as_it_should():
    client = ScriptedClient(is_open=False)
    run, task = started(client, Plan(concurrency=3, num_requests=10, num_warm_up=0))
    await until(lambda: client.num_inflight == 3)
    client.gate.set()
    await task
    assert client.most_inflight == 3
    assert texts(client.asked) == texts(map(WORKLOAD.question, range(10)))
    assert sorted(one.index for one in run.outcomes) == list(range(10))
    assert [one.num_images for one in sorted(run.outcomes, key=lambda one: one.index)] == [
        len(WORKLOAD.question(index).pictures) for index in range(10)
    ]


async def test_an_open_loop_does_not_wait_for_answers():
    client = ScriptedClient(is_open=False)
    run, task = started(client, Plan(rate_per_s=2000.0, num_requests=40, num_warm_up=0))
    await until(lambda: client.num_inflight == 40)
    assert run.outcomes == []
    client.gate.set()
    await task
    assert texts(client.asked) == texts(map(WORKLOAD.question, range(40)))
    dues = [one.due_s for one in sorted(run.outcomes, key=lambda one: one.index)]
    assert dues == sorted(dues)
    assert all(one.answer.start_s >= one.due_s for one in run.outcomes)


async def test_a_duration_ends_an_open_loop():
    client = ScriptedClient()
    plan = Plan(rate_per_s=1000.0, num_requests=None, duration_s=0.1, num_warm_up=0)
    run, task = started(client, plan)
    await task
    first_s = min(one.due_s for one in run.outcomes)
    assert 50 < len(run.outcomes) < 200
    assert max(one.due_s for one in run.outcomes) - first_s < 0.1


async def test_a_duration_ends_a_closed_loop():
    client = ScriptedClient()
    plan = Plan(concurrency=2, num_requests=None, duration_s=0.05, num_warm_up=0)
    run, task = started(client, plan)
    await task
    assert run.outcomes
    assert len(run.outcomes) == len(client.asked)


async def test_the_warm_up_ends_before_the_first_request_that_counts():
    client = ScriptedClient(is_open=False)
    log = Log()
    run = Run(Plan(num_requests=3, num_warm_up=6), WORKLOAD, 60.0, log)
    task = asyncio.create_task(run.go(client))
    await until(lambda: client.num_inflight == run_module.WARM_UP_CONCURRENCY)
    client.gate.set()
    await task
    warm_up = (WORKLOAD.question(index, "warm-up") for index in range(6))
    assert texts(client.asked[:6]) == texts(warm_up)
    assert (log.warm_ups, log.ends) == ([1, 2, 3, 4, 5, 6], [1, 2, 3])
    assert len(run.outcomes) == 3


async def test_problems_are_counted_not_raised():
    client = ScriptedClient()
    client.problem = BUSY
    run, task = started(client, Plan(num_requests=4, num_warm_up=1))
    await task
    assert run.warm_up_problem == BUSY
    assert summarize(run.outcomes).reasons == (("OVERLOADED", 4),)


async def test_a_service_that_stands_still_does_not_take_the_client_down():
    client = ScriptedClient(is_open=False)
    run, task = started(client, Plan(rate_per_s=5000.0, num_requests=9, num_warm_up=0), 5)
    await until(lambda: len(run.outcomes) == 4)
    client.gate.set()
    await task
    found = summarize(run.outcomes)
    assert (found.num_requests, found.num_complete, found.reasons) == (5, 5, ())
    assert found.unsent == (("CLIENT_FULL", 4),)


async def test_what_was_measured_outlives_an_interruption():
    client = ScriptedClient(is_open=False)
    run, task = started(client, Plan(concurrency=2, num_requests=10, num_warm_up=0))
    await until(lambda: client.num_inflight == 2)
    client.gate.set()
    client.gate.clear()
    await until(lambda: len(run.outcomes) == 2 and client.num_inflight == 2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(run.outcomes) == 2
    assert client.num_cancelled == 2
