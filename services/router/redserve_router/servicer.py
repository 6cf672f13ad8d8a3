"""RouterService: the gRPC door."""

from __future__ import annotations

import asyncio
import secrets
import uuid
from contextlib import aclosing
from typing import TYPE_CHECKING

from redserve.errors import InvalidArgument, RedServeError, Unavailable
from redserve.telemetry.clock import now_ns
from redserve.telemetry.tracing import NOWHERE, Origin, TraceContext, context_of
from redserve.v1 import router_pb2 as pb
from redserve.v1.router_pb2_grpc import RouterServiceServicer
from redserve.wire.overview import overview_to_proto
from redserve.wire.router import finished_event, started_event, tokens_event
from redserve.wire.types import timeline_to_proto
from redserve_router.answer import NewTokens, Progress, Started
from redserve_router.overview import overview
from redserve_router.question import (
    Message,
    PictureBytes,
    PictureUrl,
    Question,
    TextPart,
    part_field,
)
from redserve_router.validate import id_to_show

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import grpc

    from redserve_router.answer import AnswerEvent
    from redserve_router.dispatch.dispatcher import Dispatcher
    from redserve_router.dispatch.services import RouterServices
    from redserve_router.pair_book import PairReport
    from redserve_router.pair_checks import PairChecks
    from redserve_router.question import Part
    from redserve_router.refusals import Refusals


class RouterServicer(RouterServiceServicer):
    """Converts between protobuf and the dispatcher; decides nothing."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        services: RouterServices,
        pair_checks: PairChecks,
        refusals: Refusals,
        max_images: int,
    ) -> None:
        self._dispatcher = dispatcher
        self._refusals = refusals
        self._services = services
        self._pair_checks = pair_checks
        self._max_images = max_images

    async def Generate(  # noqa: N802  # gRPC's name
        self,
        request: pb.GenerateRequest,
        context: grpc.aio.ServicerContext[pb.GenerateRequest, pb.GenerateResponse],
    ) -> AsyncIterator[pb.GenerateResponse]:
        """Answer one question; the call's deadline is the request's."""
        origin = context_of(context.invocation_metadata() or ())
        try:
            question = question_from_proto(request, origin)
        except RedServeError as error:
            self._refusals.note(Origin(id_to_show(request.request_id), origin), error, error.field)
            raise
        async with aclosing(self._dispatcher.answer(question, context.time_remaining())) as events:
            async for event in events:
                yield _event_to_proto(event)

    async def GetModel(  # noqa: N802
        self,
        _request: pb.GetModelRequest,
        _context: grpc.aio.ServicerContext[pb.GetModelRequest, pb.GetModelResponse],
    ) -> pb.GetModelResponse:
        """The served model; its limits are those of the replicas that serve it now."""
        info = self._services.pools.checkpoint(needs_encoder=False)
        if info is None:
            why = self._services.pools.why_not_ready
            raise Unavailable(why or "no LLM replica serves", retry_after_s=1.0)
        return pb.GetModelResponse(
            name=self._services.model_name,
            max_model_length=info.max_tokens,
            max_images=self._max_images,
            family=info.family,
        )

    async def GetTimeline(  # noqa: N802
        self,
        request: pb.GetTimelineRequest,
        _context: grpc.aio.ServicerContext[pb.GetTimelineRequest, pb.GetTimelineResponse],
    ) -> pb.GetTimelineResponse:
        """Where the time of a recent request went."""
        timeline = self._services.timelines.get(request.request_id)
        return pb.GetTimelineResponse(timeline=timeline_to_proto(timeline))

    async def ListReplicas(  # noqa: N802
        self,
        _request: pb.ListReplicasRequest,
        _context: grpc.aio.ServicerContext[pb.ListReplicasRequest, pb.ListReplicasResponse],
    ) -> pb.ListReplicasResponse:
        """Every replica that the router knows, and the ways between them."""
        response = pb.ListReplicasResponse(
            replicas=[
                pb.Replica(
                    pool=report.pool,
                    address=report.address,
                    serving=report.serving,
                    transport=report.transport,
                    load=report.load,
                )
                for report in self._services.pools.report()
            ]
        )
        for pairs in self._pair_checks.reports():
            response.pair_checks.extend(map(_pair_to_proto, pairs))
            await asyncio.sleep(0)  # thousands of pairs must not hold up requests
        return response

    async def GetOverview(  # noqa: N802
        self,
        _request: pb.GetOverviewRequest,
        _context: grpc.aio.ServicerContext[pb.GetOverviewRequest, pb.GetOverviewResponse],
    ) -> pb.GetOverviewResponse:
        """How this router does."""
        return overview_to_proto(overview(self._dispatcher, self._services))


def _pair_to_proto(pair: PairReport) -> pb.PairCheck:
    return pb.PairCheck(
        encoder=pair.encoder,
        llm=pair.llm,
        transport=pair.transport,
        gb_per_s=pair.gb_per_s,
        error=pair.error,
    )


def question_from_proto(request: pb.GenerateRequest, context: TraceContext = NOWHERE) -> Question:
    """The question of a gRPC request; its content is checked later, by the dispatcher.

    Args:
        request: What came.
        context: Where it stands in the client's own trace.

    Raises:
        InvalidArgument: A part is empty.
    """
    request_id, sequence_id = make_ids(request.request_id)
    return Question(
        request_id=request_id,
        sequence_id=sequence_id,
        model=request.model,
        messages=tuple(
            Message(
                message.role,
                tuple(
                    _part(part, part_field(message_index, part_index))
                    for part_index, part in enumerate(message.parts)
                ),
            )
            for message_index, message in enumerate(request.messages)
        ),
        sampling=request.sampling,
        include_timeline=request.include_timeline,
        received_ns=now_ns(),
        context=context,
    )


def make_ids(client_id: str) -> tuple[str, str]:
    """The id that the client sees, and one that is unique even if a client repeats its own."""
    if not client_id:
        made = uuid.uuid4().hex
        return made, made
    return client_id, f"{client_id}.{secrets.token_hex(6)}"


def _part(part: pb.Part, field: str) -> Part:
    match part.WhichOneof("kind"):
        case "text":
            return TextPart(part.text)
        case "image_bytes":
            return PictureBytes(part.image_bytes)
        case "image_url":
            return PictureUrl(part.image_url)
        case "image_data_url":
            return PictureUrl(part.image_data_url)
    raise InvalidArgument(
        "the part is empty: set text, image_bytes, image_url or image_data_url", field=field
    )


def _event_to_proto(event: AnswerEvent) -> pb.GenerateResponse:
    if isinstance(event, Progress):
        raise TypeError("questions that come by gRPC are not watched")
    if isinstance(event, NewTokens):
        return tokens_event(event.text, event.tokens)
    if isinstance(event, Started):
        return started_event(
            event.request_id, event.model, event.num_prompt_tokens, event.num_item_tokens
        )
    return finished_event(event.reason, event.usage, event.timeline, event.judged)
