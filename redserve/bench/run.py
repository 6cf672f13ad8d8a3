"""A plan against a client."""

from __future__ import annotations

import asyncio
import itertools
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Final, Protocol

from redserve.bench.arrivals import poisson
from redserve.bench.load import closed_loop, open_loop
from redserve.bench.outcome import Answer, Outcome, Problem

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterator
    from concurrent.futures import Future

    from redserve.bench.clients.base import Client
    from redserve.bench.questions import Question, Workload

MAX_INFLIGHT: Final = 2000
"""Requests under way at once, at most: by HTTP each one is a connection."""
WARM_UP_CONCURRENCY: Final = 4
NUM_AHEAD: Final = 16
"""Questions that are made before they are due."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How much load, and how it comes.

    Attributes:
        rate_per_s: Requests per second of an open loop; None for a closed one.
        concurrency: Requests under way in a closed loop.
        num_requests: How many to send; None when `duration_s` says when to stop sending.
        duration_s: How long to send, seconds.
        num_warm_up: Requests before the first that counts.
    """

    rate_per_s: float | None = None
    concurrency: int = 1
    num_requests: int | None = 100
    duration_s: float | None = None
    num_warm_up: int = 5

    def __str__(self) -> str:
        if self.rate_per_s is None:
            return f"closed loop, {self.concurrency} at a time"
        return f"open loop, {self.rate_per_s:g} requests/s (Poisson)"


class Watcher(Protocol):
    """Is told how a run goes, for a progress bar."""

    def warmed_up(self, num_ended: int) -> None:
        """So many requests of the warm-up have ended."""

    def ended(self, num_ended: int, outcome: Outcome) -> None:
        """A request of the run has ended, and so many in all."""


@dataclass(slots=True)
class Run:
    """Load of one kind on one service.

    Attributes:
        max_inflight: Requests under way at once, at most; what is due beyond that is not sent.
        outcomes: Requests that have ended, in that order; whole even when `go` was cancelled.
        warm_up_problem: Of the first request of the warm-up that failed.
    """

    plan: Plan
    workload: Workload
    timeout_s: float
    watcher: Watcher
    max_inflight: int = MAX_INFLIGHT
    outcomes: list[Outcome] = field(default_factory=list)
    warm_up_problem: Problem | None = None
    _num_inflight: int = 0

    async def go(self, client: Client) -> None:
        """Warm up, then measure. Cancelling it ends the requests that are under way."""
        questions = _Ahead(self.workload)
        try:
            await self._warm_up(client)
            await self._measure(client, questions)
        finally:
            questions.close()

    async def _measure(self, client: Client, questions: _Ahead) -> None:
        async def send(index: int, due_s: float) -> None:
            question = await questions.take(index)
            answer = await self._ask(client, question)
            outcome = Outcome(index, len(question.pictures), due_s, self.timeout_s, answer)
            self.outcomes.append(outcome)
            self.watcher.ended(len(self.outcomes), outcome)

        if self.plan.rate_per_s is None:
            indices = self._until_over(itertools.count())
            await closed_loop(indices, self.plan.concurrency, send)
        else:
            await open_loop(self._times(self.plan.rate_per_s), send)

    async def _warm_up(self, client: Client) -> None:
        num_ended = 0

        async def send(index: int, _due_s: float) -> None:
            nonlocal num_ended
            answer = await client.ask(self.workload.question(index, "warm-up"))
            num_ended += 1
            self.warm_up_problem = self.warm_up_problem or answer.problem
            self.watcher.warmed_up(num_ended)

        await closed_loop(iter(range(self.plan.num_warm_up)), WARM_UP_CONCURRENCY, send)

    async def _ask(self, client: Client, question: Question) -> Answer:
        if self._num_inflight >= self.max_inflight:
            now_s = perf_counter()
            message = f"{self.max_inflight} requests were under way: the client has no more at once"
            return Answer(now_s, now_s, problem=Problem(None, "CLIENT_FULL", message))
        self._num_inflight += 1
        try:
            return await client.ask(question)
        finally:
            self._num_inflight -= 1

    def _times(self, rate_per_s: float) -> Iterator[float]:
        times = itertools.islice(poisson(rate_per_s, self.workload.seed), self.plan.num_requests)
        limit_s = self.plan.duration_s
        return itertools.takewhile(lambda time_s: limit_s is None or time_s < limit_s, times)

    def _until_over(self, indices: Iterator[int]) -> Iterator[int]:
        limit_s = self.plan.duration_s
        begin_s = perf_counter()
        for index in itertools.islice(indices, self.plan.num_requests):
            if limit_s is not None and perf_counter() - begin_s >= limit_s:
                return
            yield index


class _Ahead:
    """Makes questions before they are due, in a thread: drawing takes milliseconds."""

    def __init__(self, workload: Workload) -> None:
        self._workload = workload
        self._thread = ThreadPoolExecutor(1, "questions")
        self._made: dict[int, Future[Question]] = {}
        self._num_begun = 0
        self._begin(NUM_AHEAD)

    def take(self, index: int) -> Awaitable[Question]:
        """Question number `index`, once; most often it is there."""
        self._begin(index + 1 + NUM_AHEAD)
        return asyncio.wrap_future(self._made.pop(index))

    def close(self) -> None:
        """Nothing is taken any more."""
        self._thread.shutdown(cancel_futures=True)

    def _begin(self, num: int) -> None:
        while self._num_begun < num:
            made = self._thread.submit(self._workload.question, self._num_begun)
            self._made[self._num_begun] = made
            self._num_begun += 1
