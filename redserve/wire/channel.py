"""A gRPC channel as every client here opens it."""

from __future__ import annotations

import asyncio
from typing import Final

import grpc

from redserve.errors import Unavailable

CHANNEL_OPTIONS: Final = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # Replicas are neighbours: a proxy from the environment is never meant for them.
    ("grpc.enable_http_proxy", 0),
    # A stopped process or a cut cable sends no reset; pings notice it within 10 s. The answer to
    # a ping is awaited for the longer of two times, and the second is a minute unless it is set.
    ("grpc.keepalive_time_ms", 5_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.ping_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # Come back quickly after a restart of the other side.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 2_000),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # A new channel means a new connection, not the broken one of an older channel.
    ("grpc.use_local_subchannel_pool", 1),
)


def open_channel(address: str) -> grpc.aio.Channel:
    """A channel to `address` (host:port), not connected yet. The caller closes it."""
    return grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS)


async def wait_ready(channel: grpc.aio.Channel, timeout_s: float) -> None:
    """Wait until the channel is connected.

    Raises:
        Unavailable: Not within `timeout_s` seconds.
    """
    try:
        async with asyncio.timeout(timeout_s):
            await channel.channel_ready()
    except TimeoutError as error:
        raise Unavailable(f"no connection within {timeout_s:g} s") from error
