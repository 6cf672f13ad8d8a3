"""Watches the health of a process from outside, across its restarts."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from redserve.wire.channel import open_channel

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

RETRY_S: Final = 0.1
"""Pause between two attempts to reach a process that is still starting, seconds."""


async def watch_serving(address: str, service: str = "readiness") -> AsyncGenerator[bool, None]:
    """Whether `service` at `address` is serving: at once, and then whenever it changes.

    Never ends by itself: a process that cannot be reached is one that does not serve, and is
    tried again. Close the iterator (or cancel the task) to stop.

    Args:
        address: host:port of a gRPC server with the standard health service.
        service: The health name; `readiness` follows whether new work is welcome.
    """
    last: bool | None = None
    while True:
        # A new channel per attempt: no connection back-off of an old one delays the first answer.
        async with open_channel(address) as channel:
            call = health_pb2_grpc.HealthStub(channel).Watch(
                health_pb2.HealthCheckRequest(service=service)
            )
            try:
                async for answer in call:
                    serving = answer.status == health_pb2.HealthCheckResponse.SERVING
                    if serving != last:
                        last = serving
                        yield serving
            except grpc.aio.AioRpcError:
                pass  # unreachable is an answer: it does not serve
            finally:
                call.cancel()
        if last is not False:
            last = False
            yield False
        await asyncio.sleep(RETRY_S)
