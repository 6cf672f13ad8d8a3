"""One chat completion, streamed or whole."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING

from pydantic_core import to_json
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from redserve.errors import Cancelled, InternalError, PolicyViolation, RedServeError
from redserve.telemetry.tracing import Origin, context_of
from redserve_router.answer import Finished, NewTokens, Progress, Started
from redserve_router.http.errors import error_object, error_response, too_large
from redserve_router.http.fields import field_to_show
from redserve_router.http.parse import parse_chat
from redserve_router.http.replies import ReplyMaker, progress_object
from redserve_router.http.sse import DONE, EventStream, sse_data, until_disconnected

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from starlette.requests import Request

    from redserve.domain import TokenOutput
    from redserve_router.answer import AnswerEvent
    from redserve_router.dispatch.dispatcher import Dispatcher
    from redserve_router.http.parse import ChatCall
    from redserve_router.refusals import Refusals

MAX_DISCARDED_BYTES = 256 * 1024 * 1024
PROGRESS = "redserve.progress"
"""Name of the events that only those get who ask for them."""


class ChatEndpoint:
    """POST /v1/chat/completions.

    Args:
        dispatcher: Answers the questions.
        token_text: Text of one token id, for logprobs.
        max_body_bytes: Largest body that is read.
        refusals: Takes note of bodies that are no request.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        token_text: Callable[[int], str],
        max_body_bytes: int,
        refusals: Refusals,
    ) -> None:
        self._dispatcher = dispatcher
        self._refusals = refusals
        self._token_text = token_text
        self._max_body_bytes = max_body_bytes

    async def __call__(self, request: Request) -> Response:
        """Answer one request; errors before the first token have their own status."""
        try:
            body = await self._read(request)
        except ClientDisconnect:
            return Response(status_code=Cancelled.http_status)
        context = context_of(request.headers.items())
        origin = Origin(request.state.request_id, context)
        if body is None:
            self._refusals.note(origin, PolicyViolation("the body is too large"), "body")
            return too_large(self._max_body_bytes)
        try:
            call = parse_chat(body, request.state.request_id, context)
        except RedServeError as error:
            self._refusals.note(origin, error, field_to_show(error.field))
            return error_response(error, error.field)
        del body  # the question has what it needs; pictures may be large
        answer = self._dispatcher.answer(call.question, None)
        try:
            if call.stream:
                started = await until_disconnected(request.receive, _first(answer))
                maker = ReplyMaker(started, call.logprobs, self._token_text)
                return EventStream(_stream(answer, call, maker))
            return await until_disconnected(request.receive, self._whole(answer, call))
        except RedServeError as error:
            await answer.aclose()
            return error_response(error, call.param(error.field))

    async def _read(self, request: Request) -> bytes | None:
        """The body, or None if it is too large."""
        body = bytearray()
        num_bytes = 0
        async for piece in request.stream():
            num_bytes += len(piece)
            if num_bytes <= self._max_body_bytes:
                body += piece
            else:
                # Read on without keeping: a client that is still writing would see a broken
                # connection instead of the answer.
                body.clear()
                if num_bytes > self._max_body_bytes + MAX_DISCARDED_BYTES:
                    return None
        return bytes(body) if num_bytes <= self._max_body_bytes else None

    async def _whole(self, answer: AsyncGenerator[AnswerEvent, None], call: ChatCall) -> Response:
        maker: ReplyMaker | None = None
        texts: list[str] = []
        tokens: list[TokenOutput] = []
        async with aclosing(answer):
            async for event in answer:
                if isinstance(event, NewTokens):
                    texts.append(event.text)
                    tokens.extend(event.tokens)
                elif isinstance(event, Started):
                    maker = ReplyMaker(event, call.logprobs, self._token_text)
                elif isinstance(event, Finished) and maker is not None:
                    reply = maker.completion("".join(texts), tokens, event)
                    content = to_json(reply, inf_nan_mode="constants")
                    return Response(content, media_type="application/json")
        raise InternalError("the answer ended without its last event")


async def _first(answer: AsyncGenerator[AnswerEvent, None]) -> Started:
    event = await anext(answer)
    if not isinstance(event, Started):
        raise InternalError("the answer did not begin with its first event")
    return event


async def _stream(
    answer: AsyncGenerator[AnswerEvent, None], call: ChatCall, maker: ReplyMaker
) -> AsyncGenerator[bytes, None]:
    """Chunks; an error that comes after the first one is an event of its own and the last."""
    async with aclosing(answer):
        yield sse_data(maker.opening_chunk())
        try:
            async for event in answer:
                if isinstance(event, NewTokens):
                    if (chunk := maker.text_chunk(event)) is not None:
                        yield sse_data(chunk)
                elif isinstance(event, Progress):
                    yield sse_data(progress_object(event), event=PROGRESS)
                elif isinstance(event, Finished):
                    yield sse_data(maker.closing_chunk(event))
                    if call.include_usage:
                        yield sse_data(maker.usage_chunk(event))
            yield DONE
        except RedServeError as error:
            yield sse_data(error_object(error, call.param(error.field)), event="error")
