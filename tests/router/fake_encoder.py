"""An encoder without a model: it describes by size, publishes at once, and fails as told."""

from __future__ import annotations

import asyncio
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc
from PIL import Image, ImageOps

from redserve.domain import ItemMetadata
from redserve.errors import InvalidArgument
from redserve.telemetry.clock import now_ns
from redserve.telemetry.timeline import Bar
from redserve.v1 import encoder_pb2 as pb
from redserve.v1 import llm_pb2, transport_pb2
from redserve.v1.encoder_pb2_grpc import (
    EncoderServiceServicer,
    add_EncoderServiceServicer_to_server,
)
from redserve.v1.llm_pb2_grpc import LlmServiceStub
from redserve.wire.channel import open_channel
from redserve.wire.encoder import described_to_proto
from redserve.wire.errors import CONTENT_MISSING
from redserve.wire.server import ServiceServer
from redserve.wire.types import bar_to_proto
from tests.router.journal import Journal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

PATCH = 16
"""Pixels per row and column of the fake's grid."""


@dataclass(frozen=True)
class Publish:
    """Deliver the item."""

    cached: bool = False


@dataclass(frozen=True)
class Fail:
    """Report the item as failed."""

    reason: str
    message: str = "as told by the test"


@dataclass(frozen=True)
class BreakCall:
    """End the call with a status, leaving the rest of the items open."""

    code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE


@dataclass(frozen=True)
class Hang:
    """Never answer."""


Action = Publish | Fail | BreakCall | Hang


def rows_of(height: int, width: int) -> int:
    return max(1, height // PATCH) * max(1, width // PATCH)


class FakeEncoder(EncoderServiceServicer):
    """Attributes to script it: `act`, `gate`, `fingerprint`, `describe_gate`, `describe_breaks`."""

    def __init__(self, name: str, *, fingerprint: str = "same") -> None:
        self.name = name
        self.fingerprint = fingerprint
        self.journal = Journal()
        self.act: Callable[[pb.EncodeRequest, pb.EncodeItem], Action] = lambda *_: Publish()
        self.gate: Callable[[pb.EncodeItem], asyncio.Event | None] = lambda _: None
        self.describe_gate: asyncio.Event | None = None
        self.describe_breaks = False
        self.contents: dict[bytes, bytes] = {}
        self.port = 0
        self._server: ServiceServer | None = None
        self._channels: dict[str, grpc.aio.Channel] = {}

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def start(self) -> None:
        self._server = ServiceServer("127.0.0.1", self.port)
        self._server.add(add_EncoderServiceServicer_to_server, self, "redserve.v1.EncoderService")
        self.port = await self._server.start()

    async def kill(self) -> None:
        """Gone at once, with everything it held."""
        if self._server is not None:
            await self._server.grpc.stop(None)
            self._server = None
        self.contents.clear()
        for channel in self._channels.values():
            await channel.close()
        self._channels.clear()

    async def GetModelInfo(self, _request: Any, _context: Any) -> pb.GetModelInfoResponse:  # noqa: N802
        return pb.GetModelInfoResponse(
            fingerprint=self.fingerprint,
            family="qwen2_5_vl",
            hidden_size=8,
            num_layers=1,
            dtype="float32",
            transport="grpc",
        )

    async def Describe(self, request: pb.DescribeRequest, context: Any) -> pb.DescribeResponse:  # noqa: N802
        self.journal.note("describe", [picture.content_hash for picture in request.pictures])
        if self.describe_breaks:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "crash")
        if self.describe_gate is not None:
            await self.describe_gate.wait()
        return pb.DescribeResponse(
            pictures=[described_to_proto(self._describe(picture)) for picture in request.pictures]
        )

    def _describe(self, picture: pb.Picture) -> ItemMetadata | InvalidArgument:
        try:
            with Image.open(io.BytesIO(picture.data)) as image:
                upright = ImageOps.exif_transpose(image)
                upright.load()
        except OSError as error:
            return InvalidArgument(f"the image is truncated: {error}")
        self.contents[picture.content_hash] = picture.data
        rows = rows_of(upright.height, upright.width)
        grid = (1, max(1, upright.height // PATCH), max(1, upright.width // PATCH))
        return ItemMetadata(rows, grid, "<|image_pad|>" * rows)

    async def Encode(  # noqa: N802
        self, request: pb.EncodeRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[pb.EncodeResponse]:
        self.journal.note("encode", request)
        try:
            for item in request.items:
                gate = self.gate(item)
                if gate is not None:
                    await gate.wait()
                action = self.act(request, item)
                match action:
                    case Publish():
                        yield await self._publish(request, item, action)
                    case Fail():
                        yield _failed(item, action.reason, action.message)
                    case BreakCall():
                        await context.abort(action.code, "as told by the test")
                    case Hang():
                        await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.journal.note("encode_cancelled", request.request_id)
            raise

    async def _publish(
        self, request: pb.EncodeRequest, item: pb.EncodeItem, action: Publish
    ) -> pb.EncodeResponse:
        start_ns = now_ns()
        picture = item.picture
        if picture.data:
            self.contents[picture.content_hash] = picture.data
        elif picture.content_hash not in self.contents:
            return _failed(item, CONTENT_MISSING, "send the bytes")
        self.journal.note("published", (item.index, item.attempt))
        channel = self._channels.get(request.destination)
        if channel is None:
            channel = self._channels[request.destination] = open_channel(request.destination)
        announcement = llm_pb2.EmbeddingReadyRequest(
            tag=llm_pb2.GenerationTag(
                request_id=request.request_id,
                generation=request.generation,
                item_index=item.index,
                attempt=item.attempt,
            ),
            tensor_key=f"{request.request_id}/{item.index}",
            producer=transport_pb2.PeerInfo(incarnation=self.name),
        )
        try:
            await LlmServiceStub(channel).EmbeddingReady(announcement)
        except grpc.aio.AioRpcError as error:
            return _failed(item, "UNAVAILABLE", str(error.details()))
        bar = Bar(self.name, "encode", start_ns, now_ns() + 1000, item.index, item.num_rows)
        return pb.EncodeResponse(
            published=pb.ItemPublished(
                index=item.index,
                attempt=item.attempt,
                cached=action.cached,
                bars=[bar_to_proto(bar)],
            )
        )

    async def Cancel(  # noqa: N802
        self, request: pb.EncoderServiceCancelRequest, _context: Any
    ) -> pb.EncoderServiceCancelResponse:
        self.journal.note("cancel", request.request_id)
        return pb.EncoderServiceCancelResponse()

    async def WatchLoad(  # noqa: N802
        self, _request: Any, _context: Any
    ) -> AsyncIterator[pb.EncoderServiceWatchLoadResponse]:
        yield pb.EncoderServiceWatchLoadResponse(serving=True)
        await asyncio.Event().wait()


def _failed(item: pb.EncodeItem, reason: str, message: str) -> pb.EncodeResponse:
    return pb.EncodeResponse(
        failed=pb.ItemFailed(
            index=item.index,
            attempt=item.attempt,
            error=pb.ItemError(reason=reason, message=message),
        )
    )
