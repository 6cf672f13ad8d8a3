"""A process that is frozen, not dead, sends no reset: only pings notice it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from redserve.errors import Unavailable
from redserve.wire.channel import open_channel
from redserve.wire.errors import from_rpc_error

SERVER = """
import asyncio
from redserve.wire.server import ServiceServer

async def main():
    server = ServiceServer("127.0.0.1", 0)
    print(await server.start(), flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""
LIMIT_S = 25.0
"""Two pings and some patience; a minute without `grpc.http2.ping_timeout_ms`."""


async def test_a_stream_from_a_frozen_process_ends_with_a_typed_error() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SERVER, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        port = int(await process.stdout.readline())
        async with open_channel(f"127.0.0.1:{port}") as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            stream = stub.Watch(health_pb2.HealthCheckRequest(service=""))
            await stream.read()
            os.kill(process.pid, signal.SIGSTOP)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await asyncio.wait_for(stream.read(), LIMIT_S)
            assert isinstance(from_rpc_error(caught.value), Unavailable)
    finally:
        process.kill()
        await process.wait()
