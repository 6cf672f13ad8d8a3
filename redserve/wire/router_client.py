"""The router as its clients see it: domain values in, domain values out."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

import grpc

from redserve.v1 import router_pb2 as pb
from redserve.v1 import router_pb2_grpc, types_pb2
from redserve.wire.channel import open_channel
from redserve.wire.errors import from_rpc_error
from redserve.wire.judged import judged_from_proto
from redserve.wire.overview import overview_from_proto
from redserve.wire.replicas import replica_from_proto
from redserve.wire.types import finish_reason_from_proto, timeline_from_proto, usage_from_proto

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator, Sequence

    from redserve.domain import FinishReason, Usage
    from redserve.slo import Judged
    from redserve.telemetry.timeline import Timeline
    from redserve.wire.overview import Overview
    from redserve.wire.replicas import ReplicaStatus

DEFAULT_TIMEOUT_S: Final = 10.0
"""Deadline of the calls that only ask for a fact, seconds."""


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """One turn: texts and encoded pictures in reading order."""

    role: str
    parts: tuple[str | bytes, ...]


@dataclass(frozen=True, slots=True)
class Choices:
    """How to choose tokens; None leaves the checkpoint's default.

    Attributes:
        ignore_eos: Go on after the checkpoint's end tokens, up to `max_tokens`.
    """

    temperature: float | None = None
    max_tokens: int | None = None
    seed: int | None = None
    ignore_eos: bool = False


@dataclass(frozen=True, slots=True)
class AnswerStarted:
    """First event of an answer."""

    request_id: str
    model: str
    num_prompt_tokens: int
    num_item_tokens: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class AnswerText:
    """New text; never splits a character."""

    text: str
    num_tokens: int


@dataclass(frozen=True, slots=True)
class AnswerFinished:
    """Last event of an answer; `timeline` and `judged` if the timeline was asked for."""

    reason: FinishReason
    usage: Usage
    timeline: Timeline | None
    judged: Judged | None


AnswerEvent = AnswerStarted | AnswerText | AnswerFinished


@dataclass(frozen=True, slots=True)
class ModelCard:
    """The served model and its limits (tokens, images)."""

    name: str
    family: str
    max_model_length: int
    max_images: int


@dataclass(frozen=True, slots=True)
class PairStatus:
    """The way from an encoder to an LLM replica.

    Attributes:
        encoder, llm: host:port.
        transport: Data path; empty while it is not measured.
        gb_per_s: 10^9 bytes per second; 0 while it is not measured.
        error: Reason word of the last try if it failed, else empty.
    """

    encoder: str
    llm: str
    transport: str
    gb_per_s: float
    error: str


@dataclass(frozen=True, slots=True)
class Pools:
    """The replicas that the router knows, and the ways between those that serve."""

    replicas: tuple[ReplicaStatus, ...]
    pairs: tuple[PairStatus, ...]


class RouterClient:
    """One connection to a router; use it as an asynchronous context manager.

    Every method raises the error tree (`redserve.errors`): `Unavailable` when nobody answers.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self._channel: grpc.aio.Channel | None = None

    async def __aenter__(self) -> Self:
        self._channel = open_channel(self.address)
        return self

    async def __aexit__(self, *_exc: object) -> None:
        if self._channel is not None:
            await self._channel.close()
            self._channel = None

    async def generate(
        self,
        messages: Sequence[ChatMessage],
        *,
        choices: Choices | None = None,
        model: str = "",
        request_id: str = "",
        include_timeline: bool = False,
        timeout_s: float | None = None,
    ) -> AsyncGenerator[AnswerEvent, None]:
        """Ask; the answer's events as they come. Closing the iterator cancels the request."""
        request = pb.GenerateRequest(
            model=model,
            messages=[_message_to_proto(message) for message in messages],
            sampling=_sampling_to_proto(choices or Choices()),
            include_timeline=include_timeline,
            request_id=request_id,
        )
        call = self._stub.Generate(request, timeout=timeout_s)
        try:
            with _translated():
                async for response in call:
                    yield _event_from_proto(response)
        finally:
            call.cancel()

    async def model(self, timeout_s: float = DEFAULT_TIMEOUT_S) -> ModelCard:
        """The served model."""
        with _translated():
            answer = await self._stub.GetModel(pb.GetModelRequest(), timeout=timeout_s)
        return ModelCard(answer.name, answer.family, answer.max_model_length, answer.max_images)

    async def timeline(
        self, request_id: str = "", timeout_s: float = DEFAULT_TIMEOUT_S
    ) -> Timeline:
        """The timeline of a recent request; of the last one that finished when empty."""
        request = pb.GetTimelineRequest(request_id=request_id)
        with _translated():
            answer = await self._stub.GetTimeline(request, timeout=timeout_s)
        return timeline_from_proto(answer.timeline)

    async def replicas(self, timeout_s: float = DEFAULT_TIMEOUT_S) -> tuple[ReplicaStatus, ...]:
        """The replicas that the router knows."""
        return (await self.pools(timeout_s)).replicas

    async def pools(self, timeout_s: float = DEFAULT_TIMEOUT_S) -> Pools:
        """The replicas that the router knows, and the ways between them."""
        with _translated():
            answer = await self._stub.ListReplicas(pb.ListReplicasRequest(), timeout=timeout_s)
        return Pools(
            replicas=tuple(replica_from_proto(one) for one in answer.replicas),
            pairs=tuple(
                PairStatus(one.encoder, one.llm, one.transport, one.gb_per_s, one.error)
                for one in answer.pair_checks
            ),
        )

    async def overview(self, timeout_s: float = DEFAULT_TIMEOUT_S) -> Overview:
        """How the router does: promises, traffic, latencies and replicas."""
        with _translated():
            answer = await self._stub.GetOverview(pb.GetOverviewRequest(), timeout=timeout_s)
        return overview_from_proto(answer)

    @property
    def _stub(self) -> router_pb2_grpc.RouterServiceAsyncStub:
        if self._channel is None:
            raise RuntimeError("the client is not open: use it in an 'async with' block")
        return router_pb2_grpc.RouterServiceStub(self._channel)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error) from error


def _message_to_proto(message: ChatMessage) -> pb.Message:
    return pb.Message(
        role=message.role,
        parts=[
            pb.Part(text=part) if isinstance(part, str) else pb.Part(image_bytes=part)
            for part in message.parts
        ],
    )


def _sampling_to_proto(choices: Choices) -> types_pb2.SamplingParams:
    return types_pb2.SamplingParams(
        temperature=choices.temperature,
        max_tokens=choices.max_tokens,
        seed=choices.seed,
        ignore_eos=choices.ignore_eos,
    )


def _event_from_proto(response: pb.GenerateResponse) -> AnswerEvent:
    kind = response.WhichOneof("event")
    if kind == "started":
        started = response.started
        return AnswerStarted(
            started.request_id,
            started.model,
            started.num_prompt_tokens,
            tuple(started.num_item_tokens),
        )
    if kind == "finished":
        finished = response.finished
        return AnswerFinished(
            finish_reason_from_proto(finished.reason),
            usage_from_proto(finished.usage),
            timeline_from_proto(finished.timeline) if finished.HasField("timeline") else None,
            judged_from_proto(finished.judged) if finished.HasField("judged") else None,
        )
    return AnswerText(response.tokens.text, len(response.tokens.tokens))
