"""A service of plain bytes with all four kinds of calls, on a real server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc

from redserve.wire.channel import open_channel
from redserve.wire.server import ServiceServer

SERVICE = "tests.Bytes"
Context = Any
Behaviour = Callable[[bytes, Context], Awaitable[bytes]]


class BytesService:
    """Every method calls `behaviour(request, context)`; streams answer it twice."""

    def __init__(self, behaviour: Behaviour) -> None:
        self.behaviour = behaviour

    async def one_one(self, request: bytes, context: Context) -> bytes:
        return await self.behaviour(request, context)

    async def one_many(self, request: bytes, context: Context) -> AsyncIterator[bytes]:
        yield b"first"
        yield await self.behaviour(request, context)

    async def many_one(self, requests: AsyncIterator[bytes], context: Context) -> bytes:
        return await self.behaviour(b"".join([request async for request in requests]), context)

    async def many_many(
        self, requests: AsyncIterator[bytes], context: Context
    ) -> AsyncIterator[bytes]:
        async for request in requests:
            yield await self.behaviour(request, context)

    async def write_many(self, request: bytes, context: Context) -> None:
        """The other way to stream: a coroutine that writes."""
        await context.write(b"first")
        await context.write(await self.behaviour(request, context))

    async def WatchThings(self, request: bytes, context: Context) -> AsyncIterator[bytes]:  # noqa: N802
        yield await self.behaviour(request, context)
        await asyncio.Event().wait()


def add_bytes_service(servicer: BytesService, server: grpc.aio.Server) -> None:
    handlers: dict[str, Any] = {
        "one_one": grpc.unary_unary_rpc_method_handler(servicer.one_one),
        "one_many": grpc.unary_stream_rpc_method_handler(servicer.one_many),
        "many_one": grpc.stream_unary_rpc_method_handler(servicer.many_one),
        "many_many": grpc.stream_stream_rpc_method_handler(servicer.many_many),
        "write_many": grpc.unary_stream_rpc_method_handler(servicer.write_many),
        "WatchThings": grpc.unary_stream_rpc_method_handler(servicer.WatchThings),
    }
    handler = grpc.method_handlers_generic_handler(SERVICE, handlers)
    server.add_generic_rpc_handlers((handler,))


KINDS = ("one_one", "one_many", "many_one", "many_many", "write_many")


async def last_of(stream: Any) -> bytes:
    """The last piece; whoever leaves before ends the call, which nothing else does in time."""
    try:
        pieces: list[bytes] = [piece async for piece in stream]
        return pieces[-1]
    finally:
        stream.cancel()


async def call(channel: grpc.aio.Channel, kind: str, request: bytes = b"x") -> bytes:
    """The last answer of one call."""
    opened: Any = channel  # typed by protobuf messages, and these are plain bytes
    path = f"/{SERVICE}/{kind}"
    answer: bytes
    if kind == "one_one":
        answer = await opened.unary_unary(path)(request, timeout=5)
    elif kind == "many_one":
        answer = await opened.stream_unary(path)(iter([request]), timeout=5)
    elif kind == "many_many":
        stream = opened.stream_stream(path)(iter([request]), timeout=5)
        answer = await last_of(stream)
    else:
        stream = opened.unary_stream(path)(request, timeout=5)
        answer = await last_of(stream)
    return answer


def open_stream(channel: grpc.aio.Channel, kind: str, *, timeout_s: float) -> Any:
    """A running call with one request and many answers."""
    opened: Any = channel
    return opened.unary_stream(f"/{SERVICE}/{kind}")(b"x", timeout=timeout_s)


@asynccontextmanager
async def serving(
    behaviour: Behaviour, **options: Any
) -> AsyncIterator[tuple[ServiceServer, grpc.aio.Channel]]:
    server = ServiceServer("127.0.0.1", 0, **options)
    server.add(add_bytes_service, BytesService(behaviour), SERVICE)
    await server.start()
    try:
        async with open_channel(server.address) as channel:
            yield server, channel
    finally:
        await server.drain(0)
