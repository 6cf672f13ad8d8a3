"""Every error of the tree survives a real call, of every kind."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status
from hypothesis import given
from hypothesis import strategies as st

from redserve.errors import (
    ALL_ERRORS,
    Cancelled,
    DeadlineExceeded,
    InternalError,
    InvalidArgument,
    ModelNotFound,
    Overloaded,
    RedServeError,
    Unavailable,
)
from redserve.wire import interceptors
from redserve.wire.channel import open_channel
from redserve.wire.errors import (
    CONTENT_MISSING,
    DETAILS_KEY,
    abort_details,
    error_for_reason,
    from_rpc_error,
    from_status,
    has_reason,
    status_code,
)
from redserve.wire.interceptors import ErrorInterceptor
from redserve.wire.server import ServiceServer
from tests.strategies import effort
from tests.wire.support import KINDS, SERVICE, Context, call, open_stream, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


async def failed(channel: grpc.aio.Channel, kind: str) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(channel, kind)
    return caught.value


def same(left: RedServeError, right: RedServeError) -> bool:
    return type(left) is type(right) and vars(left) == vars(right)


@pytest.mark.parametrize("kind", KINDS)
async def test_every_error_survives_every_kind_of_call(kind: str):
    raised: list[RedServeError] = []
    counted: list[tuple[str, str]] = []

    async def fail(request: bytes, context: Context) -> bytes:
        raise raised[-1]

    interceptor = ErrorInterceptor(lambda method, code: counted.append((method, code)))
    async with serving(fail, interceptors=(interceptor,)) as (_, channel):
        for error_type in ALL_ERRORS:
            for field, retry_after_s in ((None, None), ("messages[1].parts[0]", 1.5)):
                sentence = "größer als erlaubt: 3 > 2"
                error = error_type(sentence, field=field, retry_after_s=retry_after_s)
                raised.append(error)
                rpc_error = await failed(channel, kind)
                assert rpc_error.code().name == error_type.grpc_code
                assert rpc_error.details() == str(error)
                assert has_reason(rpc_error)
                assert same(from_rpc_error(rpc_error), error)
                assert counted[-1] == (f"/{SERVICE}/{kind}", error_type.grpc_code)
    assert len(counted) == 2 * len(ALL_ERRORS)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_bug_leaves_as_internal_without_its_inside(kind: str, capfd):
    async def fail(request: bytes, context: Context) -> bytes:
        raise KeyError("table 'passwords'")

    async with serving(fail) as (_, channel):
        rpc_error = await failed(channel, kind)
    assert rpc_error.code() is grpc.StatusCode.INTERNAL
    assert "passwords" not in str(rpc_error.details())
    assert "passwords" not in str(from_rpc_error(rpc_error))
    assert type(from_rpc_error(rpc_error)) is InternalError
    err = capfd.readouterr().err
    assert "Traceback" in err
    assert f"/{SERVICE}/{kind}" in err


@pytest.mark.parametrize("kind", KINDS)
async def test_an_abort_of_the_handler_passes(kind: str):
    async def abort(request: bytes, context: Context) -> bytes:
        await context.abort(grpc.StatusCode.ALREADY_EXISTS, "mine")
        raise AssertionError

    counted: list[str] = []
    interceptor = ErrorInterceptor(lambda _, code: counted.append(code))
    async with serving(abort, interceptors=(interceptor,)) as (_, channel):
        rpc_error = await failed(channel, kind)
    assert (rpc_error.code(), rpc_error.details()) == (grpc.StatusCode.ALREADY_EXISTS, "mine")
    assert not has_reason(rpc_error)
    assert counted == []


@pytest.mark.parametrize("kind", KINDS)
async def test_a_cancelled_call_ends_its_handler_and_counts_as_no_error(kind: str):
    entered, left = asyncio.Event(), asyncio.Event()

    async def wait(request: bytes, context: Context) -> bytes:
        entered.set()
        try:
            await asyncio.Event().wait()
        finally:
            left.set()
        return b""

    counted: list[str] = []
    interceptor = ErrorInterceptor(lambda _, code: counted.append(code))
    async with serving(wait, interceptors=(interceptor,)) as (_, channel):
        running = asyncio.create_task(call(channel, kind))
        await asyncio.wait_for(entered.wait(), 5)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        await asyncio.wait_for(left.wait(), 5)
    assert counted == []


@pytest.mark.parametrize("kind", KINDS)
async def test_a_write_that_fails_before_the_cancel_is_heard_of_is_no_bug(
    kind: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(interceptors, "CANCEL_S", 60.0)
    entered = asyncio.Event()

    async def fail(request: bytes, context: Context) -> bytes:
        entered.set()
        raise grpc.aio.InternalError('Failed "execute_batch"')

    counted: list[str] = []
    interceptor = ErrorInterceptor(lambda _, code: counted.append(code))
    async with serving(fail, interceptors=(interceptor,)) as (_, channel):
        running = asyncio.create_task(call(channel, kind))
        await asyncio.wait_for(entered.wait(), 5)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    assert counted == []
    assert "unhandled" not in capfd.readouterr().err


async def test_a_library_that_fails_without_a_cancel_is_one(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(interceptors, "CANCEL_S", 0.0)

    async def fail(request: bytes, context: Context) -> bytes:
        raise grpc.aio.InternalError('Failed "execute_batch"')

    async with serving(fail) as (_, channel):
        rpc_error = await failed(channel, "one_one")
    assert type(from_rpc_error(rpc_error)) is InternalError
    assert "unhandled exception" in capfd.readouterr().err


async def test_a_generator_is_closed_by_its_own_call():
    """Not whenever it is collected: its `finally` may free what the next call needs."""
    closed_by_own_task = asyncio.get_running_loop().create_future()

    async def endless(request: bytes, context: Context) -> AsyncIterator[bytes]:
        task = asyncio.current_task()
        try:
            while True:
                yield bytes(1 << 20)  # soon nobody reads, and the call waits in a write
        finally:
            closed_by_own_task.set_result(asyncio.current_task() is task)

    def add(_: None, server: grpc.aio.Server) -> None:
        handlers: dict[str, Any] = {"endless": grpc.unary_stream_rpc_method_handler(endless)}
        handler = grpc.method_handlers_generic_handler(SERVICE, handlers)
        server.add_generic_rpc_handlers((handler,))

    server = ServiceServer("127.0.0.1", 0)
    server.add(add, None, SERVICE)
    await server.start()
    async with open_channel(server.address) as channel:
        stream = open_stream(channel, "endless", timeout_s=10)
        await stream.read()
        stream.cancel()
        assert await asyncio.wait_for(closed_by_own_task, 5)
    await server.drain(0)


@pytest.mark.parametrize("kind", KINDS)
async def test_what_works_is_left_alone(kind: str):
    async def echo(request: bytes, context: Context) -> bytes:
        return request * 2

    async with serving(echo) as (_, channel):
        assert await call(channel, kind, b"ab") == b"abab"


def test_details_are_standard_messages():
    error = Overloaded("full", field="queue", retry_after_s=2.5)
    status = abort_details(error)
    info, bad, retry = (
        error_details_pb2.ErrorInfo(),
        error_details_pb2.BadRequest(),
        error_details_pb2.RetryInfo(),
    )
    for detail, message in zip(status.details, (info, bad, retry), strict=True):
        assert detail.Unpack(message)
    assert (info.reason, info.domain) == ("OVERLOADED", "redserve.dev")
    assert info.metadata["retryable"] == "true"
    assert bad.field_violations[0].field == "queue"
    assert retry.retry_delay.ToSeconds() == 2
    standard = rpc_status.to_status(status)
    assert standard.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert standard.details == "queue: full"


def test_codes_without_details_find_their_class():
    expected = {
        grpc.StatusCode.UNAVAILABLE: Unavailable,
        grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
        grpc.StatusCode.CANCELLED: Cancelled,
        grpc.StatusCode.INVALID_ARGUMENT: InvalidArgument,
        grpc.StatusCode.NOT_FOUND: ModelNotFound,
        grpc.StatusCode.RESOURCE_EXHAUSTED: Overloaded,
        grpc.StatusCode.INTERNAL: InternalError,
        grpc.StatusCode.UNKNOWN: InternalError,
        grpc.StatusCode.UNIMPLEMENTED: InternalError,
    }
    for code, kind in expected.items():
        found = from_status(code, "why", None)
        assert type(found) is kind
        assert found.message == "why"
        assert status_code(found).name == kind.grpc_code


@effort(100)
@given(st.binary(max_size=80))
def test_any_trailer_of_a_stranger_is_survived(trailer: bytes):
    rpc_error = grpc.aio.AioRpcError(
        grpc.StatusCode.UNAVAILABLE,
        grpc.aio.Metadata(),
        grpc.aio.Metadata((DETAILS_KEY, trailer)),
        details="gone",
    )
    assert isinstance(from_rpc_error(rpc_error), RedServeError)
    assert has_reason(rpc_error) in {True, False}


def test_details_of_another_domain_do_not_choose_the_class():
    info = error_details_pb2.ErrorInfo(reason="PEER_LOST", domain="example.com")
    packed = AnyMessage()
    packed.Pack(info)
    status = status_pb2.Status(details=[packed])
    assert type(from_status(grpc.StatusCode.NOT_FOUND, "no", status)) is ModelNotFound


@pytest.mark.parametrize("kind", ALL_ERRORS)
def test_reason_words_find_their_class(kind: type[RedServeError]):
    found = error_for_reason(kind.reason, "why", "items[0]")
    assert same(found, kind("why", field="items[0]"))


def test_unknown_reason_words_are_internal():
    assert type(error_for_reason("SOMETHING_NEW", "why")) is InternalError
    assert CONTENT_MISSING not in {kind.reason for kind in ALL_ERRORS}
