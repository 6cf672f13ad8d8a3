"""One request from question to last token, over as many LLM replicas as it needs."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from redserve.domain import FinishReason, SequenceKey, SequenceRequest, Usage
from redserve.errors import DeadlineExceeded, Overloaded, Unavailable
from redserve.routing import choose_llm
from redserve.telemetry.clock import now_ns
from redserve.telemetry.log import get_logger
from redserve.telemetry.timeline import FAILOVER, LOST
from redserve.telemetry.tracing import Origin
from redserve_router.answer import Finished, NewTokens, Progress, Started
from redserve_router.clients.llm import SequenceFinished
from redserve_router.dispatch.accounts import judge_answer, note_first_token
from redserve_router.dispatch.courier import Destination, ItemCourier
from redserve_router.dispatch.generation import Generation, LlmLost
from redserve_router.dispatch.item_state import ItemState
from redserve_router.dispatch.preparation import prepare
from redserve_router.dispatch.spans import describe_prepared
from redserve_router.validate import id_to_show

if TYPE_CHECKING:
    from collections.abc import Callable

    from redserve.errors import RedServeError
    from redserve.telemetry.timeline import Bar
    from redserve.telemetry.tracing import Span
    from redserve_router.answer import AnswerEvent
    from redserve_router.clients.llm import Admitted
    from redserve_router.deadline import Deadline
    from redserve_router.dispatch.preparation import Prepared
    from redserve_router.dispatch.services import RouterServices
    from redserve_router.question import Question
    from redserve_router.replicas.encoder import EncoderReplica
    from redserve_router.replicas.llm import LlmReplica
    from redserve_router.timelines import TimelineBuilder

log = get_logger()

MAX_GENERATIONS = 4
"""A request that has seen this many LLM replicas die is more likely their killer than a victim."""
LAST_MOMENT_S = 0.05


class RequestLife:
    """Everything that one request is and has.

    Args:
        question: What is asked, checked already.
        services: What all requests share.
        deadline: When it must be over.
        timeline: Collects where its time goes.
        send: Takes every event of the answer, in order.
        span: Of the request.

    Attributes:
        span: As given; whoever gave it ends it.
        origin: What is done for the request belongs to.
        sequence_id: As encoders and LLM replicas know it.
        deadline: As given.
        received_ns: When the question arrived.
        items: State of every item, once the pictures are known.
        num_prompt_tokens: 0 until the prompt is known.
        made: Tokens sent to the client.
        last_token_ns: When the last of them left; 0 before that.
        admitted_ns: When an LLM replica first queued it; 0 before that.
        begun_ns: When a replica started the first step for it; 0 before it is told of that.
        used_encoders: Encoders that may hold something for it.
        finished: The last event of its last generation.
    """

    def __init__(
        self,
        question: Question,
        services: RouterServices,
        deadline: Deadline,
        timeline: TimelineBuilder,
        send: Callable[[AnswerEvent], None],
        span: Span,
    ) -> None:
        self.span = span
        self.sequence_id = question.sequence_id
        self.origin = Origin(id_to_show(question.request_id), span.context)
        self.deadline = deadline
        self.received_ns = question.received_ns
        self.items: tuple[ItemState, ...] = ()
        self.num_prompt_tokens = 0
        self.made: list[int] = []
        self.last_token_ns = 0
        self.admitted_ns = 0
        self.begun_ns = 0
        self.used_encoders: set[EncoderReplica] = set()
        self.finished: SequenceFinished | None = None
        self._question = question
        self._services = services
        self._timeline = timeline
        self._send = send
        self._lost: dict[str, int] = {}
        self._last_loss: RedServeError | None = None

    async def run(self) -> None:
        """Live it; the last event has been sent when this returns.

        Raises:
            RedServeError: What the client hears instead of a last event.
        """
        try:
            async with asyncio.timeout_at(self.deadline.at) as scope:
                await self._run()
        except TimeoutError as error:
            if not scope.expired():
                raise
            raise self._too_late() from error
        except DeadlineExceeded as error:
            # A call that was given the rest of our time may notice first.
            if self.deadline.remaining_s() > LAST_MOMENT_S:
                raise
            raise self._too_late() from error

    async def _run(self) -> None:
        prepared = await prepare(self._question, self._services, self.deadline, self._timeline)
        self.num_prompt_tokens = len(prepared.token_ids)
        describe_prepared(self.span, prepared)
        self.items = tuple(
            ItemState(item, picture)
            for item, picture in zip(prepared.items, prepared.pictures, strict=True)
        )
        self.finished = finished = await self._generate(prepared)
        self._timeline.listener = None  # the timeline itself comes next
        self._timeline.extend(finished.bars)
        if not self._question.include_timeline:
            self._send(Finished(finished.reason, finished.usage))
            return
        timeline = self._timeline.build()
        judged = judge_answer(self, self._services, timeline)
        self._send(Finished(finished.reason, finished.usage, timeline, judged))

    async def _generate(self, prepared: Prepared) -> SequenceFinished:
        """Generation after generation, until one is complete."""
        for generation in range(MAX_GENERATIONS):
            if len(self.made) >= prepared.sampling.max_tokens:
                return self._complete_already()
            llm = await self._choose(prepared)
            llm.note_sent(prepared.facts)
            sent_ns = now_ns()
            request = SequenceRequest(
                key=SequenceKey(self._question.sequence_id, generation),
                token_ids=prepared.token_ids,
                items=prepared.items,
                sampling=prepared.sampling,
                resume_token_ids=tuple(self.made),
            )
            try:
                return await self._run_on(llm, request)
            except LlmLost as loss:
                self._note_loss(llm, loss, sent_ns)
        if isinstance(self._last_loss, Overloaded):
            raise self._last_loss  # nobody was lost: all of them are full
        raise Unavailable(
            f"{MAX_GENERATIONS} LLM replicas were lost; the last one said: {self._last_loss}",
            retry_after_s=1.0,
        )

    async def _run_on(self, llm: LlmReplica, request: SequenceRequest) -> SequenceFinished:
        destination = Destination(
            sequence_id=request.key.request_id,
            generation=request.key.generation,
            llm=llm,
            received_ns=self._question.received_ns,
            deadline=self.deadline,
            request_id=self.origin.request_id,
            span=self.span,
        )

        def hire_courier(group: asyncio.TaskGroup) -> ItemCourier:
            return ItemCourier(
                destination, self.items, self._services, self._timeline, self.used_encoders, group
            )

        generation = Generation(
            request,
            destination,
            self.items,
            hire_courier=hire_courier,
            on_admitted=self._on_admitted,
            on_begun=self._on_begun,
            on_tokens=self._on_tokens,
            on_bars=self._tell_progress if self._question.watched else None,
        )
        return await generation.run()

    async def _choose(self, prepared: Prepared) -> LlmReplica:
        """The best replica that is not the same life of one that was lost."""
        pools = self._services.pools

        def look() -> LlmReplica | None:
            serving = {
                replica.address: replica
                for replica in pools.serving_llms(prepared.fingerprint)
                if self._lost.get(replica.address) != replica.connection
            }
            snapshots = [replica.snapshot(prepared.facts) for replica in serving.values()]
            address = choose_llm(prepared.facts, snapshots)
            return None if address is None else serving[address]

        llm = await pools.find(look, self._services.limits.llm_grace_s)
        if llm is not None:
            return llm
        if isinstance(self._last_loss, Overloaded):
            raise self._last_loss
        raise Unavailable(self._why_no_llm(), retry_after_s=1.0)

    def _why_no_llm(self) -> str:
        if self._last_loss is None:
            return "no LLM replica serves"
        made = f" after {len(self.made)} tokens" if self.made else ""
        return f"the LLM replica was lost{made} and no other serves: {self._last_loss}"

    def _note_loss(self, llm: LlmReplica, loss: LlmLost, sent_ns: int) -> None:
        self._lost[llm.address] = loss.connection
        self._last_loss = loss.error
        what = "refused" if loss.refused else "lost"
        # What a lost one did is not known: it tells with its last event.
        bar, start_ns = (FAILOVER, now_ns()) if loss.refused else (LOST, sent_ns)
        self._timeline.add(bar, start_ns, detail=f"{llm.address} {what}")
        log.warning(
            "LLM replica lost a request",
            replica=llm.address,
            what=what,
            num_tokens=len(self.made),
            error=str(loss.error),
            **self.origin.log_ids,
        )

    def _on_admitted(self, event: Admitted) -> None:
        if self.admitted_ns:
            return  # a later generation goes on where the client already is
        self.admitted_ns = now_ns()
        self._send(
            Started(
                request_id=self._question.request_id,
                model=self._services.model_name,
                num_prompt_tokens=self.num_prompt_tokens,
                num_item_tokens=tuple(state.item.num_rows for state in self.items),
            )
        )
        if self._question.watched:
            needed = tuple(sorted(event.needed_items))
            self._send(Progress(self.admitted_ns, self._timeline.bars, needed))
            self._timeline.listener = self._tell_progress

    def _on_begun(self, start_ns: int) -> None:
        if self.begun_ns:
            return
        # By the clock of another machine, which may differ from ours.
        self.begun_ns = min(max(start_ns, self.received_ns), now_ns())
        metrics = self._services.metrics
        metrics.queue_requests.dec()
        metrics.queue.observe((self.begun_ns - self.received_ns) / 1e9)

    def _tell_progress(self, bars: tuple[Bar, ...]) -> None:
        awaited = tuple(state.index for state in self.items if state.outcome is None)
        self._send(Progress(now_ns(), bars, awaited))

    def _on_tokens(self, event: NewTokens) -> None:
        if event.tokens:
            self.last_token_ns = now_ns()
            if not self.made:
                self._timeline.first_token_ns = self.last_token_ns
                note_first_token(self, self._services)
            self._services.ledger.note_tokens(len(event.tokens))
        self.made.extend(token.token_id for token in event.tokens)
        self._send(event)

    def _complete_already(self) -> SequenceFinished:
        """A replica died between its last token and its last event."""
        usage = Usage(
            num_prompt_tokens=self.num_prompt_tokens,
            num_output_tokens=len(self.made),
            num_item_tokens=sum(state.item.num_rows for state in self.items),
        )
        return SequenceFinished(FinishReason.LENGTH, usage, ())

    def _too_late(self) -> DeadlineExceeded:
        if self.made:
            stage = f"after {len(self.made)} tokens"
        elif self.admitted_ns:
            waiting = sum(state.outcome is None for state in self.items)
            stage = f"during encoding and prefill, {waiting} of {len(self.items)} images missing"
        elif self.num_prompt_tokens:
            stage = "while waiting for an LLM replica"
        else:
            stage = "while the images and the prompt were prepared"
        return DeadlineExceeded(
            f"no complete answer within {self.deadline.timeout_s:g} s; it ended {stage}"
        )
