"""An LLM replica as the router calls it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc

from redserve.domain import SamplingParams
from redserve.errors import InternalError
from redserve.v1 import llm_pb2 as pb
from redserve.v1.llm_pb2_grpc import LlmServiceStub
from redserve.wire.errors import from_rpc_error
from redserve.wire.llm import sequence_request_to_proto
from redserve.wire.types import (
    bar_from_proto,
    finish_reason_from_proto,
    sampling_from_proto,
    token_output_from_proto,
    usage_from_proto,
)
from redserve_router.answer import NewTokens

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from redserve.domain import FinishReason, SequenceRequest, Usage
    from redserve.telemetry.timeline import Bar


@dataclass(frozen=True, slots=True)
class LlmInfo:
    """What an LLM replica serves, and its limits.

    Attributes:
        fingerprint: Of the checkpoint; must equal the encoders'.
        max_model_length: Longest prompt plus output of the model, tokens.
        kv_cache_tokens: Tokens that its KV cache holds.
        max_item_bytes: Largest embedding that it can take.
        default_sampling: The checkpoint's own defaults.
        transport: Data path in use.
    """

    fingerprint: str
    family: str
    max_model_length: int
    kv_cache_tokens: int
    max_item_bytes: int
    default_sampling: SamplingParams
    transport: str

    @property
    def max_tokens(self) -> int:
        """Longest prompt plus output that it can hold."""
        return min(self.max_model_length, self.kv_cache_tokens)


@dataclass(frozen=True, slots=True)
class LlmLoad:
    """What `WatchLoad` reports."""

    num_waiting: int
    num_running: int
    schedulable_tokens: int
    waiting_tokens: int
    blocks_free: int
    blocks_total: int
    arena_bytes: int
    serving: bool


@dataclass(frozen=True, slots=True)
class TransportSpeed:
    """What a probe from an encoder found; `transport` is the data path of the pair."""

    transport: str
    num_bytes: int
    seconds: float

    @property
    def gb_per_s(self) -> float:
        """10^9 bytes per second."""
        return self.num_bytes / max(self.seconds, 1e-9) / 1e9


@dataclass(frozen=True, slots=True)
class Admitted:
    """The sequence is queued; items that are not needed are covered by the prefix cache."""

    num_cached_tokens: int
    needed_items: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ItemNeeded:
    """An embedding that was announced is needed again; `lost_attempt` is the last announced."""

    index: int
    lost_attempt: int
    why: str


@dataclass(frozen=True, slots=True)
class ItemLanded:
    """An embedding is in the arena."""

    index: int
    attempt: int


@dataclass(frozen=True, slots=True)
class SequenceFinished:
    """The sequence is complete."""

    reason: FinishReason
    usage: Usage
    bars: tuple[Bar, ...]


@dataclass(frozen=True, slots=True)
class Begun:
    """The first chunk of the sequence has run, in a step that started then."""

    start_ns: int


@dataclass(frozen=True, slots=True)
class BarsMade:
    """What was just done for a sequence that is watched; the last event has it again."""

    bars: tuple[Bar, ...]


LlmEvent = Admitted | Begun | ItemNeeded | ItemLanded | BarsMade | NewTokens | SequenceFinished


class LlmClient:
    """Calls one LLM replica over a channel that somebody else owns."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = LlmServiceStub(channel)

    async def model_info(self, timeout_s: float) -> LlmInfo:
        """Which checkpoint it serves, and its limits."""
        request = pb.LlmServiceGetModelInfoRequest()
        try:
            reply = await self._stub.GetModelInfo(request, timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error
        base = SamplingParams(max_tokens=reply.max_model_length)
        return LlmInfo(
            fingerprint=reply.fingerprint,
            family=reply.family,
            max_model_length=reply.max_model_length,
            kv_cache_tokens=reply.kv_cache_tokens,
            max_item_bytes=reply.max_item_bytes,
            default_sampling=sampling_from_proto(reply.default_sampling, base),
            transport=reply.transport,
        )

    async def check_transport(self, encoder_address: str, timeout_s: float) -> TransportSpeed:
        """Let it read a probe from an encoder; `Overloaded` when it has better things to do."""
        request = pb.CheckTransportRequest(encoder_address=encoder_address)
        try:
            reply = await self._stub.CheckTransport(request, timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error
        return TransportSpeed(reply.transport, reply.num_bytes, reply.seconds)

    async def generate(
        self,
        request: SequenceRequest,
        timeout_s: float,
        *,
        watched: bool = False,
        metadata: tuple[tuple[str, str], ...] = (),
    ) -> AsyncGenerator[LlmEvent, None]:
        """Events of a sequence, `BarsMade` if it is watched. Leaving the iterator cancels it."""
        message = sequence_request_to_proto(request)
        message.watched = watched
        stream = self._stub.Generate(message, timeout=timeout_s, metadata=metadata)
        try:
            async for response in stream:
                yield _event(response)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error
        finally:
            stream.cancel()

    async def watch_load(self, min_interval_ms: int) -> AsyncGenerator[LlmLoad, None]:
        """Load, at once and whenever it changes, until the replica goes away."""
        request = pb.LlmServiceWatchLoadRequest(min_interval_ms=min_interval_ms)
        stream = self._stub.WatchLoad(request)
        try:
            async for load in stream:
                yield LlmLoad(
                    num_waiting=load.num_waiting,
                    num_running=load.num_running,
                    schedulable_tokens=load.schedulable_tokens,
                    waiting_tokens=load.waiting_tokens,
                    blocks_free=load.blocks_free,
                    blocks_total=load.blocks_total,
                    arena_bytes=load.arena_bytes,
                    serving=load.serving,
                )
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error
        finally:
            stream.cancel()


def _event(response: pb.LlmServiceGenerateResponse) -> LlmEvent:
    match response.WhichOneof("event"):
        case "tokens":
            tokens = response.tokens
            return NewTokens(tokens.text, tuple(map(token_output_from_proto, tokens.tokens)))
        case "admitted":
            admitted = response.admitted
            return Admitted(admitted.num_cached_tokens, tuple(admitted.needed_items))
        case "item_landed":
            return ItemLanded(response.item_landed.index, response.item_landed.attempt)
        case "item_needed":
            needed = response.item_needed
            return ItemNeeded(needed.index, needed.lost_attempt, needed.why)
        case "begun":
            return Begun(response.begun.start_ns)
        case "bars_made":
            return BarsMade(tuple(map(bar_from_proto, response.bars_made.bars)))
        case "finished":
            finished = response.finished
            return SequenceFinished(
                finish_reason_from_proto(finished.reason),
                usage_from_proto(finished.usage),
                tuple(map(bar_from_proto, finished.bars)),
            )
        case other:
            raise InternalError(f"the LLM replica sent an unknown event {other!r}")
