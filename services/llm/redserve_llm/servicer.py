"""LlmService: protobuf to values and back; what is done is done elsewhere."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from redserve.domain import SequenceKey
from redserve.errors import DeadlineExceeded, InvalidArgument, Unavailable
from redserve.v1 import llm_pb2 as pb
from redserve.v1 import llm_pb2_grpc
from redserve.wire.llm import sequence_request_from_proto
from redserve.wire.transport import peer_from_proto
from redserve.wire.types import (
    bar_to_proto,
    finish_reason_to_proto,
    sampling_to_proto,
    token_output_to_proto,
    usage_to_proto,
)
from redserve_llm.delivery import Announcement
from redserve_llm.hub import ItemLanded, ItemNeeded
from redserve_llm.notices import Begun, Delta, Ended, Failed, Worked

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    import grpc

    from redserve_llm.arena import Arena
    from redserve_llm.engine import Engine
    from redserve_llm.hub import CallEvent, Hub
    from redserve_llm.limits import RequestLimits
    from redserve_llm.load import LoadBoard
    from redserve_llm.model import ModelInfo
    from redserve_llm.traces import CallTrace, Traces
    from redserve_llm.transport_check import TransportChecks

    Context = grpc.aio.ServicerContext[Any, Any]

SERVICE_NAME = "redserve.v1.LlmService"


class LlmServicer(llm_pb2_grpc.LlmServiceServicer):
    """The door of the LLM replica.

    Args:
        model: What is served.
        limits: What requests must fulfil.
        engine: Runs sequences.
        arena: Takes embeddings in.
        hub: Brings what happens back.
        board: Knows the load.
        checks: Measures the way from encoders.
        traces: Records what was done.
    """

    def __init__(
        self,
        model: ModelInfo,
        limits: RequestLimits,
        engine: Engine,
        arena: Arena,
        hub: Hub,
        board: LoadBoard,
        checks: TransportChecks,
        traces: Traces,
    ) -> None:
        self._model = model
        self._limits = limits
        self._engine = engine
        self._arena = arena
        self._hub = hub
        self._board = board
        self._checks = checks
        self._traces = traces
        self._refusing = False

    def refuse_new(self) -> None:
        """Take no new sequences from now on."""
        self._refusing = True
        self._checks.give_way()

    async def Generate(  # noqa: N802  # gRPC's name
        self, request: pb.LlmServiceGenerateRequest, context: Context
    ) -> AsyncIterator[pb.LlmServiceGenerateResponse]:
        """Run one sequence; whoever stops listening ends it."""
        with self._traces.call(request, context) as trace:
            async with aclosing(self._generate(request, context, trace)) as responses:
                async for response in responses:
                    yield response

    async def _generate(
        self, request: pb.LlmServiceGenerateRequest, context: Context, trace: CallTrace
    ) -> AsyncGenerator[pb.LlmServiceGenerateResponse, None]:
        if self._refusing:
            raise Unavailable("this replica is shutting down; try another one")
        sequence = self._limits.fit(sequence_request_from_proto(request, self._limits.defaults))
        self._checks.give_way()
        remaining_s = context.time_remaining()
        loop = asyncio.get_running_loop()
        deadline = None if remaining_s is None else loop.time() + remaining_s
        # No await until the arena knows the request: notices are dispatched by the loop, later.
        admission = self._engine.add(sequence, watched=request.watched)
        key = sequence.key
        queue = self._hub.open(key, watched=request.watched)
        try:
            self._arena.open(sequence, admission.needed_items, deadline)
            yield pb.LlmServiceGenerateResponse(
                admitted=pb.Admitted(
                    num_cached_tokens=admission.num_cached_tokens,
                    needed_items=admission.needed_items,
                )
            )
            while True:
                event = await _next(queue, deadline)
                trace.note(event)
                yield _to_proto(event)
                if isinstance(event, Ended):
                    return
        finally:
            self._hub.close(key, queue)
            self._traces.leaves(key, trace)
            self._engine.abort(key)

    async def EmbeddingReady(  # noqa: N802  # gRPC's name
        self, request: pb.EmbeddingReadyRequest, context: Context
    ) -> pb.EmbeddingReadyResponse:
        """Take an announcement; the pull comes when there is room."""
        tag = request.tag
        if not request.tensor_key:
            raise InvalidArgument("must not be empty", field="tensor_key")
        announcement = Announcement(
            attempt=tag.attempt,
            tensor_key=request.tensor_key,
            producer=peer_from_proto(request.producer),
            shape=tuple(request.shape),
            dtype=request.dtype,
        )
        key = SequenceKey(tag.request_id, tag.generation)
        why = self._arena.announce(key, tag.item_index, announcement)
        if why is None:
            self._traces.announced(key, tag.item_index, context)
        return pb.EmbeddingReadyResponse(accepted=why is None, why=why or "")

    async def Cancel(  # noqa: N802  # gRPC's name
        self, request: pb.LlmServiceCancelRequest, context: Context
    ) -> pb.LlmServiceCancelResponse:
        """End a request; its stream ends with reason CANCELLED."""
        self._engine.abort_request(request.request_id)
        return pb.LlmServiceCancelResponse()

    async def WatchLoad(  # noqa: N802  # gRPC's name
        self, request: pb.LlmServiceWatchLoadRequest, context: Context
    ) -> AsyncIterator[pb.LlmServiceWatchLoadResponse]:
        """Load, at once and whenever it changes."""
        async for load in self._board.watch(request.min_interval_ms / 1e3):
            yield pb.LlmServiceWatchLoadResponse(
                num_waiting=load.num_waiting,
                num_running=load.num_running,
                schedulable_tokens=load.schedulable_tokens,
                waiting_tokens=load.waiting_tokens,
                blocks_free=load.blocks_free,
                blocks_total=load.blocks_total,
                serving=load.serving,
                arena_bytes=load.arena_bytes,
            )

    async def GetModelInfo(  # noqa: N802  # gRPC's name
        self, request: pb.LlmServiceGetModelInfoRequest, context: Context
    ) -> pb.LlmServiceGetModelInfoResponse:
        """The checkpoint that is served."""
        model = self._model
        return pb.LlmServiceGetModelInfoResponse(
            fingerprint=model.fingerprint,
            family=model.family,
            max_model_length=self._limits.max_model_length,
            hidden_size=model.shape.hidden_size,
            num_layers=model.shape.num_layers,
            max_item_bytes=self._limits.arena_bytes,
            kv_cache_tokens=model.num_blocks * model.block_size,
            default_sampling=sampling_to_proto(self._limits.defaults),
            transport=self._checks.transport,
        )

    async def CheckTransport(  # noqa: N802  # gRPC's name
        self, request: pb.CheckTransportRequest, context: Context
    ) -> pb.CheckTransportResponse:
        """Measure the way from one encoder."""
        if self._refusing:
            raise Unavailable("this replica is shutting down")
        measured = await self._checks.check(request.encoder_address, context.time_remaining())
        return pb.CheckTransportResponse(
            transport=measured.transport, num_bytes=measured.num_bytes, seconds=measured.seconds
        )


def _to_proto(event: CallEvent) -> pb.LlmServiceGenerateResponse:
    """One event of a stream.

    Raises:
        RedServeError: The sequence failed.
    """
    match event:
        case Delta():
            made = pb.TokensMade(text=event.text, tokens=map(token_output_to_proto, event.tokens))
            return pb.LlmServiceGenerateResponse(tokens=made)
        case ItemLanded():
            landed = pb.ItemLanded(index=event.item_index, attempt=event.attempt)
            return pb.LlmServiceGenerateResponse(item_landed=landed)
        case ItemNeeded():
            needed = pb.ItemNeeded(
                index=event.item_index, lost_attempt=event.lost_attempt, why=event.why
            )
            return pb.LlmServiceGenerateResponse(item_needed=needed)
        case Begun():
            return pb.LlmServiceGenerateResponse(begun=pb.Begun(start_ns=event.start_ns))
        case Worked():
            bars_made = pb.BarsMade(bars=map(bar_to_proto, event.bars))
            return pb.LlmServiceGenerateResponse(bars_made=bars_made)
        case Ended():
            bars = sorted(event.bars, key=lambda bar: bar.start_ns)
            finished = pb.SequenceFinished(
                reason=finish_reason_to_proto(event.reason),
                usage=usage_to_proto(event.usage),
                bars=map(bar_to_proto, bars),
            )
            return pb.LlmServiceGenerateResponse(finished=finished)
        case Failed():
            raise event.error


async def _next(queue: asyncio.Queue[CallEvent], deadline: float | None) -> CallEvent:
    """The next event of a request.

    Raises:
        DeadlineExceeded: None came in time.
    """
    try:
        async with asyncio.timeout_at(deadline):
            return await queue.get()
    except TimeoutError:
        raise DeadlineExceeded("the deadline passed before the output was complete") from None
