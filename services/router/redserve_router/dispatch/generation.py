"""One hand-over of a request to one LLM replica: from admission to its last token, or its loss."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING

from redserve.domain import FinishReason
from redserve.errors import Cancelled, InternalError, Overloaded, RedServeError, Unavailable
from redserve.telemetry.clock import now_ns
from redserve.telemetry.tracing import Origin, running
from redserve_router.answer import NewTokens
from redserve_router.clients.llm import Admitted, BarsMade, Begun, ItemNeeded, SequenceFinished
from redserve_router.dispatch.item_state import Outcome
from redserve_router.dispatch.spans import call_span
from redserve_router.tasks import task_group

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncGenerator, Callable, Sequence

    from redserve.domain import SequenceRequest
    from redserve.telemetry.timeline import Bar
    from redserve.telemetry.tracing import Span
    from redserve_router.clients.llm import LlmEvent
    from redserve_router.dispatch.courier import Destination, ItemCourier
    from redserve_router.dispatch.item_state import ItemState

SETTLE_S = 0.1
"""How long encoder calls may still report after the last token; normally they have long ended."""


class LlmLost(Exception):
    """The LLM replica is gone or refuses; another one may take over. Never leaves the router.

    Attributes:
        error: What it said.
        connection: Which life of the replica was lost.
        refused: Whether the replica lives and only has no room.
    """

    def __init__(self, error: RedServeError, connection: int, *, refused: bool) -> None:
        super().__init__(str(error))
        self.error = error
        self.connection = connection
        self.refused = refused


class Generation:
    """Runs a sequence on one LLM replica while a courier brings its items.

    Args:
        request: The sequence, with the tokens that earlier generations made.
        destination: The replica and the tag of this generation.
        items: State of every item of the request.
        hire_courier: Makes the courier inside the generation's task group.
        on_admitted: Called once, when the replica has queued the sequence.
        on_begun: Called once, when its first chunk has run: with the step's start.
        on_tokens: Called for all new text.
        on_bars: Called for what the replica has just done; None if nobody watches.
    """

    def __init__(
        self,
        request: SequenceRequest,
        destination: Destination,
        items: Sequence[ItemState],
        *,
        hire_courier: Callable[[asyncio.TaskGroup], ItemCourier],
        on_admitted: Callable[[Admitted], None],
        on_begun: Callable[[int], None],
        on_tokens: Callable[[NewTokens], None],
        on_bars: Callable[[tuple[Bar, ...]], None] | None = None,
    ) -> None:
        self._request = request
        self._destination = destination
        self._items = items
        self._hire_courier = hire_courier
        self._on_admitted = on_admitted
        self._on_begun = on_begun
        self._on_tokens = on_tokens
        self._on_bars = on_bars

    async def run(self) -> SequenceFinished:
        """Until the last token.

        Raises:
            LlmLost: The replica died, refused or left.
            RedServeError: Whatever another replica could not mend.
        """
        with self._destination.llm.use():
            async with task_group() as group:
                courier = self._hire_courier(group)
                finished = await self._follow(courier)
                await courier.settle(SETTLE_S)
        return finished

    async def _follow(self, courier: ItemCourier) -> SequenceFinished:
        async with aclosing(self._events()) as events:
            async for event in events:
                match event:
                    case NewTokens():
                        self._on_tokens(event)
                    case Admitted():
                        self._admitted(event, courier)
                    case Begun():
                        self._on_begun(event.start_ns)
                    case BarsMade() if self._on_bars is not None:
                        self._on_bars(event.bars)
                    case ItemNeeded():
                        courier.needed_again(event.index, event.lost_attempt, event.why)
                    case SequenceFinished():
                        return self._checked(event)
        address = self._destination.llm.address
        raise InternalError(f"LLM replica {address} ended the stream without a last event")

    def _checked(self, event: SequenceFinished) -> SequenceFinished:
        if event.reason is FinishReason.CANCELLED:  # not by us: it is stopping
            llm = self._destination.llm
            error = Cancelled(f"LLM replica {llm.address} cancelled the sequence")
            raise LlmLost(error, llm.connection, refused=False)
        return event

    def _admitted(self, event: Admitted, courier: ItemCourier) -> None:
        self._on_admitted(event)
        needed = frozenset(event.needed_items)
        for state in self._items:
            if state.index not in needed:
                state.outcome = Outcome.PREFIX_COVERED
        courier.dispatch(needed)

    def _span(self) -> Span:
        destination, request = self._destination, self._request
        return call_span(
            destination.span,
            "generate",
            "redserve.v1.LlmService/Generate",
            destination.llm.address,
            generation=destination.generation,
            prompt_tokens=request.num_prompt_tokens,
            resumed_tokens=len(request.resume_token_ids),
        )

    async def _events(self) -> AsyncGenerator[LlmEvent, None]:
        """The replica's events; its end by anything but our own doing becomes `LlmLost`."""
        llm = self._destination.llm
        connection = llm.connection
        timeout_s = self._destination.deadline.remaining_s()
        try:
            with running(self._span()) as span:
                stream = llm.client.generate(
                    self._request,
                    timeout_s,
                    watched=self._on_bars is not None,
                    metadata=Origin(self._destination.request_id, span.context).metadata,
                )
                async with aclosing(stream) as events:
                    async for event in events:
                        if isinstance(event, SequenceFinished):
                            span.end(now_ns())
                        yield event
        except (Unavailable, Cancelled) as error:
            if llm.connection == connection:
                llm.broke(error)
            raise LlmLost(error, connection, refused=False) from error
        except Overloaded as error:
            raise LlmLost(error, connection, refused=True) from error
