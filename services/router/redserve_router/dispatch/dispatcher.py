"""The door to the inside: takes a question, gives a stream of events, leaves nothing behind."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from redserve.errors import Cancelled, InternalError, Overloaded, RedServeError
from redserve.telemetry.clock import now_ns
from redserve.telemetry.log import get_logger
from redserve_router.deadline import Deadline
from redserve_router.dispatch.accounts import close_accounts
from redserve_router.dispatch.life import RequestLife
from redserve_router.dispatch.spans import start_span
from redserve_router.timelines import TimelineBuilder
from redserve_router.validate import check_question

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from redserve.telemetry.tracing import Origin
    from redserve_router.answer import AnswerEvent
    from redserve_router.dispatch.services import RouterServices
    from redserve_router.question import Question
    from redserve_router.replicas.encoder import EncoderReplica

log = get_logger()

RETRY_AFTER_S = 1.0
CLEAN_UP_TIMEOUT_S = 2.0


class Dispatcher:
    """Answers questions, many at a time."""

    def __init__(self, services: RouterServices) -> None:
        self._services = services
        self._living: set[RequestLife] = set()
        self._clean_ups: set[asyncio.Task[None]] = set()
        services.metrics.queue_oldest.set_function(self._oldest_wait_s)

    @property
    def num_inflight(self) -> int:
        """Requests being served."""
        return len(self._living)

    @property
    def num_queued(self) -> int:
        """Of these, those that no LLM replica has begun to compute."""
        return sum(not life.begun_ns for life in self._living)

    async def answer(
        self, question: Question, timeout_s: float | None
    ) -> AsyncGenerator[AnswerEvent, None]:
        """Started, any number of new tokens, Finished. Closing the iterator cancels the request.

        Args:
            question: What is asked.
            timeout_s: The client's own deadline, or None for the default.

        Raises:
            RedServeError: Instead of the next event; nothing comes after it.
        """
        services = self._services
        deadline = Deadline(
            services.limits.request_timeout_s if timeout_s is None else timeout_s,
            from_client=timeout_s is not None,
        )
        timeline = TimelineBuilder(question.request_id, services.name, question.received_ns)
        events: asyncio.Queue[AnswerEvent | None] = asyncio.Queue()
        span = start_span(question, services)
        life = RequestLife(question, services, deadline, timeline, events.put_nowait, span)
        # A task of its own: timeouts and task groups must not span the yields of a generator.
        task = asyncio.create_task(self._live(life, question, timeline))
        task.add_done_callback(lambda _: events.put_nowait(None))
        try:
            while (event := await events.get()) is not None:
                yield event
        except BaseException:  # the client has gone: nobody will be told of how it ends
            task.cancel()
            await asyncio.wait({task})
            if not task.cancelled():
                _look_at(task.exception())
            raise
        await task

    async def close(self) -> None:
        """Wait until encoders know of everything that ended early."""
        if self._clean_ups:
            await asyncio.wait(self._clean_ups, timeout=CLEAN_UP_TIMEOUT_S)

    async def _live(self, life: RequestLife, question: Question, timeline: TimelineBuilder) -> None:
        """The request and its book-keeping."""
        metrics = self._services.metrics
        ended_by: RedServeError | None = InternalError("a bug")
        metrics.queue_requests.inc()
        self._living.add(life)
        metrics.inflight.set(self.num_inflight)
        try:
            self._check_room()
            check_question(question, self._services.model_name)
            await life.run()
            ended_by = None
        except RedServeError as error:
            ended_by = error
            raise
        except asyncio.CancelledError:
            ended_by = Cancelled("the client has gone")
            raise
        finally:
            self._living.discard(life)
            metrics.inflight.set(self.num_inflight)
            if not life.begun_ns:
                metrics.queue_requests.dec()
            close_accounts(life, self._services, timeline.build(), ended_by)
            if ended_by is not None or any(state.attempt > 1 for state in life.items):
                self._clean_up(life)

    def _oldest_wait_s(self) -> float:
        """Of the request that has waited the longest for its first chunk; from any thread."""
        living = tuple(self._living)
        waiting = [life.received_ns for life in living if not life.begun_ns]
        return max(0, now_ns() - min(waiting)) / 1e9 if waiting else 0.0

    def _check_room(self) -> None:
        limit = self._services.limits.max_inflight_requests
        if self.num_inflight > limit:
            raise Overloaded(
                f"{limit} requests are being served, which is the limit; try again later",
                retry_after_s=RETRY_AFTER_S,
            )

    def _clean_up(self, life: RequestLife) -> None:
        """Tell encoders to drop what they still hold; in the background, as far as they live."""
        for encoder in life.used_encoders:
            if encoder.serving:
                task = asyncio.create_task(_cancel_on(encoder, life.sequence_id, life.origin))
                self._clean_ups.add(task)
                task.add_done_callback(self._clean_ups.discard)


async def _cancel_on(encoder: EncoderReplica, sequence_id: str, origin: Origin) -> None:
    if encoder.closed:
        return
    start_ns = now_ns()
    try:
        with encoder.use():
            await encoder.client.cancel(sequence_id, CLEAN_UP_TIMEOUT_S)
    except RedServeError as error:
        # Its leases end by themselves.
        log.debug(
            "encoder did not hear of a cancelled request",
            encoder=encoder.address,
            waited_ms=(now_ns() - start_ns) // 1_000_000,
            error=str(error),
            **origin.log_ids,
        )


def _look_at(error: BaseException | None) -> None:
    """A client that has gone hears of no error; a bug is told to the log."""
    if error is not None and not isinstance(error, RedServeError):
        log.error("a request ended by a bug", exc_info=error)
