"""Brings the items of one generation to encoders until the LLM replica has them all."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from redserve.errors import Cancelled, InternalError, Overloaded, RedServeError, Unavailable
from redserve.routing import ItemFacts, spread_items
from redserve.telemetry.log import get_logger
from redserve.telemetry.tracing import Origin, running
from redserve.telemetry.words import CONTENT_MISSING, NEEDED_AGAIN
from redserve_router.clients.encoder import EncodeCall, Errand, Published
from redserve_router.dispatch.accounts import note_item
from redserve_router.dispatch.retry_policy import backoff_s, may_try_again
from redserve_router.dispatch.spans import call_span

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable, Sequence

    from redserve.telemetry.tracing import Span
    from redserve_router.clients.encoder import Failed
    from redserve_router.deadline import Deadline
    from redserve_router.dispatch.item_state import ItemState
    from redserve_router.dispatch.services import RouterServices
    from redserve_router.replicas.encoder import EncoderReplica
    from redserve_router.replicas.llm import LlmReplica
    from redserve_router.timelines import TimelineBuilder

log = get_logger()


@dataclass(frozen=True, slots=True)
class Destination:
    """Where the embeddings go: one generation of one request.

    Attributes:
        sequence_id: The request.
        generation: How often it has been handed to an LLM replica.
        llm: That replica.
        received_ns: When the request came in; encoders serve the oldest first.
        deadline: Of the request.
        request_id: As the client knows it.
        span: Of the request.
    """

    sequence_id: str
    generation: int
    llm: LlmReplica
    received_ns: int
    deadline: Deadline
    request_id: str
    span: Span

    @property
    def log_ids(self) -> dict[str, str]:
        """Fields of a log line about it."""
        return Origin(self.request_id, self.span.context).log_ids


class ItemCourier:
    """Owns the encoder calls of one generation; they live in the given task group.

    An error that no encoder can mend is raised in the task group, which ends the generation.
    Every encoder that is called is added to `used_encoders`.
    """

    def __init__(
        self,
        destination: Destination,
        items: Sequence[ItemState],
        services: RouterServices,
        timeline: TimelineBuilder,
        used_encoders: set[EncoderReplica],
        group: asyncio.TaskGroup,
    ) -> None:
        self._destination = destination
        self._items = items
        self._services = services
        self._pools = services.pools
        self._encoder_grace_s = services.limits.encoder_grace_s
        self._metrics = services.metrics
        self._timeline = timeline
        self._used_encoders = used_encoders
        self._group = group
        self._tasks: set[asyncio.Task[None]] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._over = False

    def dispatch(self, indices: Iterable[int]) -> None:
        """Send these items to encoders, first items first; returns at once."""
        states = [self._items[index] for index in sorted(indices)]
        for state in states:
            state.begin_attempt()
        if states:
            self._spawn(self._send(states))

    def needed_again(self, index: int, lost_attempt: int, why: str) -> None:
        """The LLM replica has lost an embedding. A newer attempt under way answers that already."""
        if index >= len(self._items) or lost_attempt != self._items[index].attempt:
            return
        log.info("item needed again", item=index, why=why, **self._destination.log_ids)
        self._metrics.item_retries.labels(NEEDED_AGAIN).inc()
        state = self._items[index]
        state.begin_attempt()
        # Evicted meanwhile is mended at once; an encoder that nobody can read from is not.
        delay_s = backoff_s(state.num_lost, num_encoders=1) if state.num_lost else 0.0
        state.num_lost += 1
        self._spawn(self._send_after(delay_s, [state]))

    async def settle(self, timeout_s: float) -> None:
        """The answer is complete: give calls a moment to report, then end what is left."""
        self._over = True
        try:
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
        except TimeoutError:
            log.debug("encoder calls outlive their request", num_calls=len(self._tasks))
        for task in self._tasks:
            task.cancel()

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        try:
            task = self._group.create_task(coroutine)
        except RuntimeError:  # the group is ending because of another error
            coroutine.close()
            raise
        self._tasks.add(task)
        self._idle.clear()
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not self._tasks:
            self._idle.set()

    async def _send(self, states: Sequence[ItemState]) -> None:
        """Choose an encoder for each item, and call each encoder once."""
        waiting = list(states)
        while waiting:
            plan = await self._assign(waiting)
            waiting = [state for state in waiting if state not in plan]
            by_encoder: dict[EncoderReplica, list[ItemState]] = {}
            for state, encoder in plan.items():
                by_encoder.setdefault(encoder, []).append(state)
            for encoder, group in by_encoder.items():
                self._spawn(self._call(encoder, group))

    async def _assign(self, states: Sequence[ItemState]) -> dict[ItemState, EncoderReplica]:
        """An encoder for the first of the items and for all that avoid the same encoders."""
        plan = await self._pools.find(lambda: self._plan(states), self._encoder_grace_s)
        if plan is None:
            last = states[0].last_error
            raise Unavailable(
                f"no encoder serves; waited {self._encoder_grace_s:g} s"
                + (f"; the last one said: {last}" if last else ""),
                retry_after_s=1.0,
            )
        return plan

    def _plan(self, states: Sequence[ItemState]) -> dict[ItemState, EncoderReplica] | None:
        fingerprint = self._destination.llm.fingerprint
        encoders = {e.address: e for e in self._pools.serving_encoders(fingerprint)}
        for state in states:
            if not encoders.keys() - state.avoid:
                state.avoid.clear()  # it failed on every one: begin again
        avoid = states[0].avoid
        alike = [state for state in states if state.avoid == avoid]
        hashes = [state.item.content_hash for state in alike]
        placed = spread_items(
            [ItemFacts(s.index, s.item.content_hash, s.item.num_rows) for s in alike],
            [encoder.snapshot(hashes) for encoder in encoders.values()],
            exclude=avoid,
        )
        if placed is None:
            return None
        return {state: encoders[placed[state.index]] for state in alike}

    async def _call(
        self, encoder: EncoderReplica, states: Sequence[ItemState], *, with_data: bool = False
    ) -> None:
        """One Encode call; whatever it leaves open is sent elsewhere."""
        if encoder.closed:  # it left between the choice and this task's turn
            self._call_failed(encoder, states, Unavailable(f"encoder {encoder.address} has left"))
            return
        call = self._encode_call(encoder, states, with_data=with_data)
        errands = {errand.index: errand for errand in call.errands}
        self._used_encoders.add(encoder)
        timeout_s = self._destination.deadline.remaining_s()
        with encoder.use(), running(self._span(encoder, call)) as span:
            metadata = Origin(self._destination.request_id, span.context).metadata
            async with aclosing(encoder.client.encode(call, timeout_s, metadata)) as outcomes:
                while True:
                    try:
                        outcome = await anext(outcomes)
                    except StopAsyncIteration:
                        lost: RedServeError = InternalError(f"{encoder.address} left items open")
                        break
                    except RedServeError as error:
                        lost = error
                        break
                    errand = errands.get(outcome.index)
                    if errand is not None and outcome.attempt == errand.attempt:
                        del errands[outcome.index]
                        self._take(encoder, errand, outcome)
            if errands:
                span.fail(lost.reason)
        # An attempt that is no longer the current one is somebody else's business.
        left = [s for s in states if s.index in errands and errands[s.index].attempt == s.attempt]
        if left and not self._over:
            self._call_failed(encoder, left, lost)

    def _span(self, encoder: EncoderReplica, call: EncodeCall) -> Span:
        return call_span(
            self._destination.span,
            "encode",
            "redserve.v1.EncoderService/Encode",
            encoder.address,
            generation=call.generation,
            images=len(call.errands),
            tokens=sum(errand.num_rows for errand in call.errands),
        )

    def _encode_call(
        self, encoder: EncoderReplica, states: Sequence[ItemState], *, with_data: bool
    ) -> EncodeCall:
        errands = []
        for state in states:
            picture = state.picture
            # Bytes go to an encoder once; it says so if it has dropped them since.
            known = encoder.has_bytes(picture.content_hash) and not with_data
            encoder.note_encode(picture.content_hash, state.item.num_rows)
            errands.append(
                Errand(
                    index=state.index,
                    attempt=state.attempt,
                    content_hash=picture.content_hash,
                    data=b"" if known else picture.data,
                    num_rows=state.item.num_rows,
                )
            )
        destination = self._destination
        return EncodeCall(
            sequence_id=destination.sequence_id,
            generation=destination.generation,
            destination=destination.llm.address,
            destination_idle=destination.llm.is_idle,
            received_ns=destination.received_ns,
            errands=tuple(errands),
        )

    def _take(self, encoder: EncoderReplica, errand: Errand, outcome: Published | Failed) -> None:
        state = self._items[errand.index]
        if isinstance(outcome, Published):
            if errand.attempt == state.attempt:
                state.arrived(cached=outcome.cached)
                note_item(state, self._services)
            self._timeline.extend(outcome.bars)
            return
        if self._over or errand.attempt != state.attempt:
            return  # late: a newer attempt is under way, or nobody waits any more
        if outcome.error is not None:
            self._item_failed(encoder, state, outcome.error)
        elif errand.data:
            broken = InternalError(f"encoder {encoder.address} misses bytes that it was sent")
            self._item_failed(encoder, state, broken)
        else:  # the same encoder again, with the bytes
            encoder.note_missing(errand.content_hash)
            self._metrics.item_retries.labels(CONTENT_MISSING).inc()
            state.begin_attempt()
            self._spawn(self._call(encoder, (state,), with_data=True))

    def _item_failed(self, encoder: EncoderReplica, state: ItemState, error: RedServeError) -> None:
        """An encoder that is alive says that it cannot deliver an item."""
        state.failures[error.reason] += 1
        if not may_try_again(error, state.failures[error.reason]):
            state.given_up()
            raise type(error)(error.message, field=state.picture.field)
        self._retry(encoder, [state], error)

    def _call_failed(
        self, encoder: EncoderReplica, states: Sequence[ItemState], error: RedServeError
    ) -> None:
        """A call ended before these items did."""
        if isinstance(error, Unavailable | Cancelled):
            # The encoder is gone or going. Not counted: the deadline is the limit.
            encoder.broke(error)
        elif not isinstance(error, Overloaded):
            for state in states:
                state.failures[error.reason] += 1
                if not may_try_again(error, state.failures[error.reason]):
                    state.given_up()
                    raise error
        self._retry(encoder, states, error)

    def _retry(
        self, encoder: EncoderReplica, states: Sequence[ItemState], error: RedServeError
    ) -> None:
        for state in states:
            self._metrics.item_retries.labels(error.reason.lower()).inc()
            state.failed_on(encoder.address, error)
            state.begin_attempt()
        log.warning(
            "items are sent again",
            items=[state.index for state in states],
            failed_on=encoder.address,
            error=str(error),
            **self._destination.log_ids,
        )
        self._spawn(self._send_later(states))

    async def _send_later(self, states: Sequence[ItemState]) -> None:
        num_retries = max(state.num_retries for state in states)
        await self._send_after(
            backoff_s(num_retries, num_encoders=len(self._pools.encoders)), states
        )

    async def _send_after(self, delay_s: float, states: Sequence[ItemState]) -> None:
        if delay_s:
            await asyncio.sleep(delay_s)
        await self._send(states)
