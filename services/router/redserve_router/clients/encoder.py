"""An encoder as the router calls it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc

from redserve.v1 import encoder_pb2 as pb
from redserve.v1.encoder_pb2_grpc import EncoderServiceStub
from redserve.wire.encoder import described_from_proto, item_error_from_proto
from redserve.wire.errors import CONTENT_MISSING, from_rpc_error
from redserve.wire.types import bar_from_proto

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from redserve.domain import ItemMetadata
    from redserve.errors import RedServeError
    from redserve.telemetry.timeline import Bar

DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True, slots=True)
class EncoderInfo:
    """What an encoder serves.

    Attributes:
        fingerprint: Of the checkpoint; must equal the LLM replica's.
        row_bytes: Bytes of one embedding row with all its layers.
        transport: Best data path that it offers.
    """

    fingerprint: str
    row_bytes: int
    transport: str


@dataclass(frozen=True, slots=True)
class EncoderLoad:
    """What `WatchLoad` reports."""

    queued_rows: int
    running_rows: int
    num_items: int
    cache_bytes: int
    serving: bool


@dataclass(frozen=True, slots=True)
class Errand:
    """One item on its way to one encoder.

    Attributes:
        index: Position among the items of the request.
        attempt: Which dispatch of the item this is, from 1.
        data: The picture, or empty if the encoder should have it.
        num_rows: Rows that the prompt reserves.
    """

    index: int
    attempt: int
    content_hash: bytes
    data: bytes
    num_rows: int


@dataclass(frozen=True, slots=True)
class EncodeCall:
    """Errands of one request to one encoder; see EncodeRequest in encoder.proto."""

    sequence_id: str
    generation: int
    destination: str
    destination_idle: bool
    received_ns: int
    errands: tuple[Errand, ...]


@dataclass(frozen=True, slots=True)
class Published:
    """The LLM replica has been told that the embedding is there."""

    index: int
    attempt: int
    cached: bool
    bars: tuple[Bar, ...]


@dataclass(frozen=True, slots=True)
class Failed:
    """The item will not be published; `error` is None when only the picture's bytes are missing."""

    index: int
    attempt: int
    error: RedServeError | None


class EncoderClient:
    """Calls one encoder over a channel that somebody else owns."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = EncoderServiceStub(channel)

    async def model_info(self, timeout_s: float) -> EncoderInfo:
        """Which checkpoint it serves."""
        try:
            reply = await self._stub.GetModelInfo(pb.GetModelInfoRequest(), timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error
        row_bytes = reply.num_layers * reply.hidden_size * DTYPE_BYTES.get(reply.dtype, 4)
        return EncoderInfo(
            fingerprint=reply.fingerprint, row_bytes=row_bytes, transport=reply.transport
        )

    async def describe(
        self, pictures: Sequence[tuple[bytes, bytes]], timeout_s: float
    ) -> list[ItemMetadata | RedServeError]:
        """Metadata or the reason why there is none, per (content hash, data), in order."""
        request = pb.DescribeRequest(
            pictures=[pb.Picture(content_hash=digest, data=data) for digest, data in pictures]
        )
        try:
            reply = await self._stub.Describe(request, timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error
        return [described_from_proto(described) for described in reply.pictures]

    async def encode(
        self, call: EncodeCall, timeout_s: float, metadata: tuple[tuple[str, str], ...] = ()
    ) -> AsyncGenerator[Published | Failed, None]:
        """Outcomes, as items are published or fail. Leaving the iterator cancels the call."""
        request = pb.EncodeRequest(
            request_id=call.sequence_id,
            generation=call.generation,
            destination=call.destination,
            received_unix_ns=call.received_ns,
            destination_idle=call.destination_idle,
            items=[
                pb.EncodeItem(
                    index=errand.index,
                    attempt=errand.attempt,
                    picture=pb.Picture(content_hash=errand.content_hash, data=errand.data),
                    num_rows=errand.num_rows,
                )
                for errand in call.errands
            ],
        )
        stream = self._stub.Encode(request, timeout=timeout_s, metadata=metadata)
        try:
            async for response in stream:
                yield _outcome(response)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error
        finally:
            stream.cancel()

    async def cancel(self, sequence_id: str, timeout_s: float) -> None:
        """Drop whatever the encoder still holds of a request."""
        request = pb.EncoderServiceCancelRequest(request_id=sequence_id)
        try:
            await self._stub.Cancel(request, timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error

    async def watch_load(self, min_interval_ms: int) -> AsyncGenerator[EncoderLoad, None]:
        """Load, at once and whenever it changes, until the encoder goes away."""
        request = pb.EncoderServiceWatchLoadRequest(min_interval_ms=min_interval_ms)
        stream = self._stub.WatchLoad(request)
        try:
            async for load in stream:
                yield EncoderLoad(
                    queued_rows=load.queued_rows,
                    running_rows=load.running_rows,
                    num_items=load.num_items,
                    cache_bytes=load.cache_bytes,
                    serving=load.serving,
                )
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error
        finally:
            stream.cancel()


def _outcome(response: pb.EncodeResponse) -> Published | Failed:
    if response.WhichOneof("event") == "published":
        published = response.published
        return Published(
            index=published.index,
            attempt=published.attempt,
            cached=published.cached,
            bars=tuple(bar_from_proto(bar) for bar in published.bars),
        )
    failed = response.failed
    missing = failed.error.reason == CONTENT_MISSING
    return Failed(
        index=failed.index,
        attempt=failed.attempt,
        error=None if missing else item_error_from_proto(failed.error),
    )
