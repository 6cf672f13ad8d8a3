"""Around every handler: exceptions become status codes, and watch streams end at drain.

Handlers of streaming answers may be async generators or coroutines that call `context.write`.
Both become coroutines here, so that a generator is closed in the call's own task and its
`finally` has run when the call is over, instead of whenever it is collected.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final

import grpc
from google.protobuf.message import DecodeError

from redserve.errors import InternalError, InvalidArgument, RedServeError
from redserve.telemetry.log import get_logger
from redserve.telemetry.tracing import Origin, context_of, request_id_of
from redserve.wire.errors import DETAILS_KEY, abort_details, status_code

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Handler = Callable[[Any, grpc.aio.ServicerContext[Any, Any]], Awaitable[Any]]
    Continuation = Callable[
        [grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]
    ]

log = get_logger()

CANCEL_S: Final = 1.0
"""How long the cancel of a handler may come after the write that failed because of it."""

_KINDS = {
    (False, False): ("unary_unary", grpc.unary_unary_rpc_method_handler),
    (False, True): ("unary_stream", grpc.unary_stream_rpc_method_handler),
    (True, False): ("stream_unary", grpc.stream_unary_rpc_method_handler),
    (True, True): ("stream_stream", grpc.stream_stream_rpc_method_handler),
}


def _wrap(
    handler: grpc.RpcMethodHandler[Any, Any],
    around: Callable[[Handler], Handler],
    *,
    is_tolerant: bool = False,
) -> grpc.RpcMethodHandler[Any, Any]:
    """`handler` with its function replaced by `around(function)`; untouched if not async.

    If it is to be tolerant, `around` gets a request of `_Malformed` for bytes that are none.
    """
    name, make = _KINDS[handler.request_streaming, handler.response_streaming]
    function = getattr(handler, name)
    if inspect.isasyncgenfunction(function):
        function = _as_coroutine(function)
    elif not inspect.iscoroutinefunction(function):
        return handler  # a library's blocking handler, which gRPC runs in a thread
    wrapped: grpc.RpcMethodHandler[Any, Any] = make(
        around(function),
        request_deserializer=_tolerant(handler.request_deserializer)
        if is_tolerant
        else handler.request_deserializer,
        response_serializer=handler.response_serializer,
    )
    return wrapped


class _Malformed:
    """Stands for a message that is none."""


def _tolerant(deserialize: Callable[[bytes], Any] | None) -> Callable[[bytes], Any] | None:
    """Bytes that are no message become `_Malformed`: gRPC itself would call that UNKNOWN."""
    if deserialize is None:
        return None

    def parse(data: bytes) -> Any:
        try:
            return deserialize(data)
        except DecodeError:
            return _Malformed()

    return parse


def _as_coroutine(generator: Callable[..., Any]) -> Handler:
    async def write_all(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        async with aclosing(generator(request, context)) as responses:
            async for response in responses:
                await context.write(response)

    return write_all


class ErrorInterceptor(grpc.aio.ServerInterceptor):
    """Turns whatever a handler raises into a status with details.

    A `RedServeError` keeps its code, reason, field and message. Cancellation and `context.abort`
    pass, and a write that failed because the client has gone ends as the cancellation that it is.
    Bytes that are no message of the method are INVALID_ARGUMENT. Anything else is a bug: it is
    logged with its traceback and leaves as INTERNAL, without a word about the inside.

    Args:
        on_error: Called with the method's full name and the canonical code's name.
        on_malformed: Called with the method's full name, ids of the call and the error when no
            handler has heard of it because its bytes are no message.
    """

    def __init__(
        self,
        on_error: Callable[[str, str], None] | None = None,
        on_malformed: Callable[[str, Origin, RedServeError], None] | None = None,
    ) -> None:
        self._on_error = on_error
        self._on_malformed = on_malformed

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Any:
        """See `grpc.aio.ServerInterceptor`."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        method = handler_call_details.method

        def around(function: Handler) -> Handler:
            async def guarded(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
                try:
                    self._check(request, method, context)
                    return await function(request, context)
                except (asyncio.CancelledError, grpc.aio.AbortError):
                    raise
                except RedServeError as error:
                    if isinstance(error, InternalError):
                        log.exception("broken invariant", method=method, **_ids(context))
                    await self._abort(context, method, error)
                except Exception as error:
                    if isinstance(error, grpc.aio.InternalError):
                        # A write fails as soon as the call is over, which gRPC's own thread
                        # knows before this loop does: the cancel of this task is on its way.
                        await asyncio.sleep(CANCEL_S)
                    log.exception("unhandled exception", method=method, **_ids(context))
                    bug = InternalError("internal error; the server's log has the details")
                    await self._abort(context, method, bug)

            return guarded

        return _wrap(handler, around, is_tolerant=not handler.request_streaming)

    def _check(
        self, request: Any, method: str, context: grpc.aio.ServicerContext[Any, Any]
    ) -> None:
        if isinstance(request, _Malformed):
            error = InvalidArgument(f"what was sent is not the message that {method} takes")
            if self._on_malformed is not None:
                self._on_malformed(method, _origin(context), error)
            raise error

    async def _abort(
        self, context: grpc.aio.ServicerContext[Any, Any], method: str, error: RedServeError
    ) -> None:
        code, status = status_code(error), abort_details(error)
        if self._on_error is not None:
            self._on_error(method, code.name)
        trailer = ((DETAILS_KEY, status.SerializeToString()),)
        try:
            await context.abort(code, status.message, trailing_metadata=trailer)
        except grpc.aio.InternalError:
            # The call is over and nobody listens; the cancel of this task is on its way.
            await asyncio.sleep(CANCEL_S)


def _ids(context: grpc.aio.ServicerContext[Any, Any]) -> dict[str, str]:
    """What a log line says of the request that a call is made for."""
    return _origin(context).log_ids


def _origin(context: grpc.aio.ServicerContext[Any, Any]) -> Origin:
    metadata = context.invocation_metadata() or ()
    return Origin(request_id_of(metadata), context_of(metadata))


class WatchInterceptor(grpc.aio.ServerInterceptor):
    """Ends streams that would never end by themselves once `draining` is set.

    By the house's convention these are the async generators called Watch…; they then end with OK,
    after what they had to say in that moment, and the client looks elsewhere. Without this a drain
    would wait for them until its timeout. Must be the innermost interceptor: it has to see the
    generator itself.
    """

    def __init__(self, draining: asyncio.Event) -> None:
        self._draining = draining

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Any:
        """See `grpc.aio.ServerInterceptor`."""
        handler = await continuation(handler_call_details)
        name = handler_call_details.method.rpartition("/")[2]
        if handler is None or not name.startswith("Watch"):
            return handler
        generator = handler.unary_stream
        if not inspect.isasyncgenfunction(generator):
            return handler
        return grpc.unary_stream_rpc_method_handler(
            functools.partial(self._watch, generator),
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )

    async def _watch(
        self,
        generator: Callable[..., Any],
        request: Any,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> None:
        drained = asyncio.ensure_future(self._draining.wait())
        async with aclosing(generator(request, context)) as responses:
            try:
                # Only the generator is ever interrupted, never a write.
                while (response := await _next_unless(drained, responses)) is not None:
                    await context.write(response)
            finally:
                drained.cancel()


async def _next_unless(stopped: asyncio.Future[Any], responses: Any) -> Any:
    """The next response, or None when there is none (any more) and `stopped` is done."""
    upcoming = asyncio.ensure_future(anext(responses, None))
    try:
        await asyncio.wait({upcoming, stopped}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        if not upcoming.done():
            upcoming.cancel()
            await asyncio.wait({upcoming})
    return None if upcoming.cancelled() else upcoming.result()
