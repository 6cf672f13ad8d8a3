"""The door to the inside: takes a question, gives a stream of events, leaves nothing behind."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from redserve.errors import Cancelled, InternalError, Overloaded, RedServeError
from redserve.telemetry.clock import now_ns
from redserve.telemetry.first_token import first_token_parts
from redserve.telemetry.log import get_logger
from redserve.telemetry.transport_times import transport_times
from redserve_router.deadline import Deadline
from redserve_router.dispatch.item_state import Outcome
from redserve_router.dispatch.life import RequestLife
from redserve_router.dispatch.reckoning import reckon
from redserve_router.timelines import TimelineBuilder
from redserve_router.validate import check_question

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

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
        """Of these, those that no LLM replica has admitted yet."""
        return sum(not life.admitted_ns for life in self._living)

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
        life = RequestLife(question, services, deadline, timeline, events.put_nowait)
        # A task of its own: timeouts and task groups must not span the yields of a generator.
        task = asyncio.create_task(self._live(life, question, timeline))
        task.add_done_callback(lambda _: events.put_nowait(None))
        try:
            while (event := await events.get()) is not None:
                yield event
            await task
        finally:
            task.cancel()
            await asyncio.wait({task})

    async def close(self) -> None:
        """Wait until encoders know of everything that ended early."""
        if self._clean_ups:
            await asyncio.wait(self._clean_ups, timeout=CLEAN_UP_TIMEOUT_S)

    async def _live(self, life: RequestLife, question: Question, timeline: TimelineBuilder) -> None:
        """The request and its book-keeping."""
        metrics = self._services.metrics
        code = InternalError.grpc_code
        metrics.queue_requests.inc()
        self._living.add(life)
        metrics.inflight.set(self.num_inflight)
        try:
            self._check_room()
            check_question(question, self._services.model_name)
            await life.run()
            code = "OK"
        except RedServeError as error:
            code = error.grpc_code
            self._log_failure(question, error)
            raise
        except asyncio.CancelledError:
            code = Cancelled.grpc_code
            log.info("request cancelled", request=question.sequence_id, num_tokens=len(life.made))
            raise
        finally:
            self._living.discard(life)
            metrics.inflight.set(self.num_inflight)
            if not life.admitted_ns:
                metrics.queue_requests.dec()
            self._account(life, question, timeline, code)
            if code != "OK" or any(state.attempt > 1 for state in life.items):
                self._clean_up(question.sequence_id, life.used_encoders)

    def _oldest_wait_s(self) -> float:
        """Of the request that no LLM replica has admitted for the longest; from any thread."""
        living = tuple(self._living)
        waiting = [life.received_ns for life in living if not life.admitted_ns]
        return max(0, now_ns() - min(waiting)) / 1e9 if waiting else 0.0

    def _check_room(self) -> None:
        limit = self._services.limits.max_inflight_requests
        if self.num_inflight > limit:
            raise Overloaded(
                f"{limit} requests are being served, which is the limit; try again later",
                retry_after_s=RETRY_AFTER_S,
            )

    def _log_failure(self, question: Question, error: RedServeError) -> None:
        write = log.warning if error.http_status >= 500 else log.info
        write(
            "request failed",
            request=question.sequence_id,
            reason=error.reason,
            error=str(error),
        )

    def _account(
        self, life: RequestLife, question: Question, timeline: TimelineBuilder, code: str
    ) -> None:
        """Metrics and timeline of a request that has ended, however it ended."""
        metrics = self._services.metrics
        metrics.requests.labels(code).inc()
        ended = timeline.build()
        metrics.prompt_tokens.inc(life.num_prompt_tokens)
        metrics.output_tokens.inc(len(life.made))
        for state in life.items:
            if state.outcome is not None:
                metrics.items.labels(state.outcome.value).inc()
            elif code not in ("OK", Cancelled.grpc_code):
                metrics.items.labels(Outcome.FAILED.value).inc()
        reckoned = reckon(life, ended, code)
        self._services.ledger.note(reckoned)
        metrics.duration.observe(reckoned.duration_s)
        if reckoned.first_token_s is not None:
            metrics.ttft.observe(reckoned.first_token_s)
        if life.num_prompt_tokens:
            self._services.timelines.keep(ended)
        if code != "OK":
            return
        if reckoned.time_per_output_token_s is not None:
            metrics.tpot.observe(reckoned.time_per_output_token_s)
        if ended.overlap_ratio is not None:
            metrics.overlap_ratio.observe(ended.overlap_ratio)
        for part, spent_ns in first_token_parts(ended).items():
            metrics.first_token_part.labels(part).observe(spent_ns / 1e9)
        for item in transport_times(ended.bars):
            metrics.transport_item.labels("exposed").observe(item.exposed_ns / 1e9)
            metrics.transport_item.labels("hidden").observe(item.hidden_ns / 1e9)

    def _clean_up(self, sequence_id: str, encoders: set[EncoderReplica]) -> None:
        """Tell encoders to drop what they still hold; in the background, as far as they live."""
        for encoder in encoders:
            if encoder.serving:
                task = asyncio.create_task(_cancel_on(encoder, sequence_id))
                self._clean_ups.add(task)
                task.add_done_callback(self._clean_ups.discard)


async def _cancel_on(encoder: EncoderReplica, sequence_id: str) -> None:
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
            request=sequence_id,
            waited_ms=(now_ns() - start_ns) // 1_000_000,
            error=str(error),
        )
