"""EncoderService: protobuf to values and back; what is done is done elsewhere."""

from __future__ import annotations

import asyncio
import math
import time
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from redserve.errors import Cancelled, InternalError, InvalidArgument, RedServeError
from redserve.telemetry.log import get_logger
from redserve.v1 import encoder_pb2 as pb
from redserve.v1 import encoder_pb2_grpc
from redserve.wire.encoder import described_to_proto
from redserve.wire.types import bar_to_proto
from redserve_encoder.delivery import Failed, GenerationTag
from redserve_encoder.intake import CallFacts, WantedItem

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    import grpc

    from redserve.domain import ItemMetadata
    from redserve_encoder.delivery import Outcome
    from redserve_encoder.intake import Intake
    from redserve_encoder.pictures import Pictures
    from redserve_encoder.reception import Reception
    from redserve_encoder.traces import Traces
    from redserve_encoder.vision import ModelInfo

    Context = grpc.aio.ServicerContext[Any, Any]

log = get_logger()

SERVICE_NAME = "redserve.v1.EncoderService"

_HASH_BYTES = 32


class EncoderServicer(encoder_pb2_grpc.EncoderServiceServicer):
    """The door of the encoder.

    Args:
        model: What is served.
        transport: Best data path that it offers.
        pictures: Reads pictures.
        reception: Knows all work and the load.
        intake: Takes work in.
        traces: Records what was done.
        now_ns: The clock.
    """

    def __init__(
        self,
        model: ModelInfo,
        transport: str,
        pictures: Pictures,
        reception: Reception,
        intake: Intake,
        traces: Traces,
        now_ns: Callable[[], int],
    ) -> None:
        self._model = model
        self._transport = transport
        self._pictures = pictures
        self._reception = reception
        self._intake = intake
        self._traces = traces
        self._now_ns = now_ns

    async def GetModelInfo(  # noqa: N802  # gRPC's name
        self, request: pb.GetModelInfoRequest, context: Context
    ) -> pb.GetModelInfoResponse:
        """The checkpoint that is served."""
        model = self._model
        return pb.GetModelInfoResponse(
            fingerprint=model.fingerprint,
            family=model.family,
            placeholder=model.placeholder,
            image_token_ids=model.image_token_ids,
            hidden_size=model.hidden_size,
            num_layers=model.num_layers,
            dtype=model.dtype,
            transport=self._transport,
        )

    async def Describe(  # noqa: N802  # gRPC's name
        self, request: pb.DescribeRequest, context: Context
    ) -> pb.DescribeResponse:
        """Metadata of pictures; a bad one does not harm the others."""
        results = await asyncio.gather(*(self._describe(picture) for picture in request.pictures))
        if request.pictures:
            self._reception.anticipate(request.pictures[0].content_hash)
        return pb.DescribeResponse(pictures=map(described_to_proto, results))

    async def Encode(  # noqa: N802  # gRPC's name
        self, request: pb.EncodeRequest, context: Context
    ) -> AsyncIterator[pb.EncodeResponse]:
        """Outcomes item by item."""
        _check(request)
        now_ns = self._now_ns()
        remaining_s = context.time_remaining()
        facts = CallFacts(
            destination=request.destination,
            destination_idle=request.destination_idle,
            received_ns=request.received_unix_ns or now_ns,
            submitted_ns=now_ns,
            deadline_s=math.inf if remaining_s is None else time.monotonic() + remaining_s,
        )
        with self._traces.call(request, context, facts.submitted_ns) as trace:
            items = [
                WantedItem(
                    tag=GenerationTag(
                        request.request_id, request.generation, item.index, item.attempt
                    ),
                    content_hash=item.picture.content_hash,
                    data=item.picture.data,
                    num_rows=item.num_rows,
                    origin=trace.origin(item.index),
                )
                for item in request.items
            ]
            async with aclosing(self._intake.encode(facts, items)) as outcomes:
                async for outcome in outcomes:
                    trace.note(outcome)
                    yield _outcome_to_proto(outcome)

    async def Cancel(  # noqa: N802  # gRPC's name
        self, request: pb.EncoderServiceCancelRequest, context: Context
    ) -> pb.EncoderServiceCancelResponse:
        """Drop queued and held items of a request."""
        why = Cancelled("the router asked to stop")
        for delivery in self._reception.ledger.of_request(request.request_id, request.item_indices):
            self._reception.drop(delivery, why)
        return pb.EncoderServiceCancelResponse()

    async def WatchLoad(  # noqa: N802  # gRPC's name
        self, request: pb.EncoderServiceWatchLoadRequest, context: Context
    ) -> AsyncIterator[pb.EncoderServiceWatchLoadResponse]:
        """Load, at once and whenever it changes."""
        async for load in self._reception.load_watch.watch(request.min_interval_ms / 1e3):
            yield pb.EncoderServiceWatchLoadResponse(
                queued_rows=load.queued_rows,
                running_rows=load.running_rows,
                num_items=load.num_items,
                cache_bytes=load.cache_bytes,
                serving=load.serving,
            )

    async def _describe(self, picture: pb.Picture) -> ItemMetadata | RedServeError:
        try:
            return await self._pictures.describe(picture.content_hash, picture.data)
        except RedServeError as error:
            return error
        except Exception:
            log.exception("an image could not be described")
            return InternalError("the image could not be described")


def _check(request: pb.EncodeRequest) -> None:
    """Refuse what no correct router sends.

    Raises:
        InvalidArgument: Names the field.
    """
    if not request.request_id:
        raise InvalidArgument("name the request", field="request_id")
    host, _, port = request.destination.rpartition(":")
    if not host or not port.isdigit():
        raise InvalidArgument(
            f"{request.destination!r} is not host:port of an LLM replica", field="destination"
        )
    seen: set[int] = set()
    for position, item in enumerate(request.items):
        path = f"items[{position}]"
        if item.index in seen:
            raise InvalidArgument(f"item {item.index} is named twice", field=f"{path}.index")
        seen.add(item.index)
        if item.num_rows < 1:
            raise InvalidArgument("an item has at least one row", field=f"{path}.num_rows")
        if len(item.picture.content_hash) != _HASH_BYTES:
            raise InvalidArgument(
                f"a sha256 has {_HASH_BYTES} bytes, not {len(item.picture.content_hash)}",
                field=f"{path}.picture.content_hash",
            )


def _outcome_to_proto(outcome: Outcome) -> pb.EncodeResponse:
    tag = outcome.tag
    if isinstance(outcome, Failed):
        error = pb.ItemError(reason=outcome.reason, message=outcome.message)
        return pb.EncodeResponse(
            failed=pb.ItemFailed(index=tag.item_index, attempt=tag.attempt, error=error)
        )
    return pb.EncodeResponse(
        published=pb.ItemPublished(
            index=tag.item_index,
            attempt=tag.attempt,
            cached=outcome.cached,
            bars=map(bar_to_proto, outcome.bars),
        )
    )
