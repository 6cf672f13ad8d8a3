from __future__ import annotations

import asyncio
import os
import signal
import socket

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from redserve.errors import ConfigError, Unavailable
from redserve.transport.factory import make_producer
from redserve.transport.pool import Pool
from redserve.wire.channel import open_channel, wait_ready
from redserve.wire.server import LIVENESS, READINESS, ServiceServer
from tests.wire.support import SERVICE, Context, call, open_stream, serving

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


async def echo(request: bytes, context: Context) -> bytes:
    return request


async def status_of(channel: grpc.aio.Channel, service: str) -> int:
    stub = health_pb2_grpc.HealthStub(channel)
    response = await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=5)
    status: int = response.status
    return status


async def test_health_follows_readiness_and_liveness_does_not():
    async with serving(echo) as (server, channel):
        for ready, expected in ((False, NOT_SERVING), (True, SERVING), (False, NOT_SERVING)):
            server.set_ready(ready)
            assert await status_of(channel, LIVENESS) == SERVING
            assert await status_of(channel, READINESS) == expected
            assert await status_of(channel, SERVICE) == expected


async def test_a_server_is_not_ready_before_it_is_told_so():
    async with serving(echo) as (_, channel):
        assert await status_of(channel, READINESS) == NOT_SERVING


async def test_health_of_an_unknown_service_is_not_found():
    async with serving(echo) as (_, channel):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await status_of(channel, "nobody")
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_health_watch_tells_every_change_and_ends_at_drain():
    async with serving(echo) as (server, channel):
        stub = health_pb2_grpc.HealthStub(channel)
        watch = stub.Watch(health_pb2.HealthCheckRequest(service=READINESS), timeout=20)
        unknown = stub.Watch(health_pb2.HealthCheckRequest(service="later"), timeout=20)
        assert (await watch.read()).status == NOT_SERVING
        assert (await unknown.read()).status == SERVICE_UNKNOWN
        server.set_ready(True)
        assert (await watch.read()).status == SERVING
        await asyncio.wait_for(server.drain(15), 10)
        assert (await watch.read()).status == NOT_SERVING
        for stream in (watch, unknown):
            assert await stream.read() is grpc.aio.EOF
            assert await stream.code() is grpc.StatusCode.OK


async def test_reflection_lists_services_and_describes_ours():
    server = ServiceServer("127.0.0.1", 0)
    server.bind()
    name = "redserve.v1.TransportService"
    make_producer("grpc", Pool(4096), "p", server.address, 1.0, None).add_to(server)
    await server.start()
    request = reflection_pb2.ServerReflectionRequest
    questions = [request(list_services=""), request(file_containing_symbol=name)]
    async with open_channel(server.address) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        answers = [a async for a in stub.ServerReflectionInfo(iter(questions), timeout=5)]
    names = {service.name for service in answers[0].list_services_response.service}
    assert names == {name, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}
    assert answers[1].file_descriptor_response.file_descriptor_proto
    await server.drain(0)


async def test_an_unknown_method_is_unimplemented():
    async with serving(echo) as (_, channel):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(channel, "nothing")
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_port_in_use_names_the_address_and_the_mend():
    first = ServiceServer("127.0.0.1", 0)
    port = await first.start()
    second = ServiceServer("127.0.0.1", port)
    with pytest.raises(ConfigError, match=rf"127\.0\.0\.1:{port}.*choose another port") as caught:
        await second.start()
    assert caught.value.field == "grpc_port"
    await first.drain(0)
    await second.drain(0)


async def test_port_of_a_foreign_process_counts_too():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        server = ServiceServer("127.0.0.1", taken.getsockname()[1])
        with pytest.raises(ConfigError):
            server.bind()
        await server.drain(0)


async def test_the_port_is_known_before_start_and_kept():
    server = ServiceServer("127.0.0.1", 0)
    with pytest.raises(RuntimeError):
        _ = server.port
    port = server.bind()
    assert server.bind() == port
    assert await server.start() == port == server.port
    assert server.address == f"127.0.0.1:{port}"
    await server.drain(0)


async def test_drain_lets_a_running_stream_finish_and_refuses_new_calls():
    entered, finish = asyncio.Event(), asyncio.Event()

    async def wait(request: bytes, context: Context) -> bytes:
        entered.set()
        await finish.wait()
        return b"whole"

    async with serving(wait) as (server, channel):
        running = asyncio.create_task(call(channel, "one_many"))
        await asyncio.wait_for(entered.wait(), 5)
        draining = asyncio.create_task(server.drain(30))
        await asyncio.wait_for(server.draining.wait(), 5)
        async with open_channel(server.address) as late:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call(late, "one_one")
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert not draining.done()
        finish.set()
        assert await asyncio.wait_for(running, 5) == b"whole"
        await asyncio.wait_for(draining, 5)


async def test_drain_cancels_what_does_not_finish_in_time():
    entered, left = asyncio.Event(), asyncio.Event()

    async def hang(request: bytes, context: Context) -> bytes:
        entered.set()
        try:
            await asyncio.Event().wait()
        finally:
            left.set()
        return b""

    async with serving(hang) as (server, channel):
        running = asyncio.create_task(call(channel, "one_many"))
        await asyncio.wait_for(entered.wait(), 5)
        await asyncio.wait_for(server.drain(0.05), 5)
        assert left.is_set()
        with pytest.raises(grpc.aio.AioRpcError):
            await running


@pytest.mark.parametrize("leave_by", ["drain", "client"])
async def test_watch_streams_end_at_drain_and_with_their_client(leave_by: str):
    async with serving(echo) as (server, channel):
        watch = open_stream(channel, "WatchThings", timeout_s=20)
        assert await watch.read() == b"x"
        if leave_by == "client":
            watch.cancel()
        await asyncio.wait_for(server.drain(15), 5)
        if leave_by == "drain":
            assert await watch.read() is grpc.aio.EOF
            assert await watch.code() is grpc.StatusCode.OK


async def test_a_failing_watch_keeps_its_error():
    async def fail(request: bytes, context: Context) -> bytes:
        raise Unavailable("no load yet")

    async with serving(fail) as (_, channel):
        watch = open_stream(channel, "WatchThings", timeout_s=5)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await watch.read()
        assert caught.value.details() == "no load yet"


async def test_messages_have_no_size_limit():
    async with serving(echo) as (_, channel):
        big = bytes(9 << 20)
        assert await call(channel, "one_one", big) == big


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_waits_for_a_signal(number: signal.Signals):
    server = ServiceServer("127.0.0.1", 0)
    waiting = asyncio.create_task(server.wait_for_signal())
    await asyncio.sleep(0)
    assert not waiting.done()
    os.kill(os.getpid(), number)
    await asyncio.wait_for(waiting, 5)
    await server.drain(0)


async def test_wait_ready_returns_or_says_unavailable():
    async with serving(echo) as (server, channel):
        await wait_ready(channel, 5)
        await server.drain(0)
        async with open_channel(server.address) as dead:
            with pytest.raises(Unavailable, match=r"0\.2 s"):
                await wait_ready(dead, 0.2)
