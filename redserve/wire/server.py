"""A gRPC server as every service runs it: health, reflection, readiness, drain."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, Any, Final

import grpc
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from redserve.errors import ConfigError
from redserve.telemetry.log import get_logger
from redserve.wire.health import HealthServicer
from redserve.wire.interceptors import ErrorInterceptor, WatchInterceptor

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

log = get_logger()

LIVENESS: Final = ""
"""Health name that serves as long as the process is alive."""
READINESS: Final = "readiness"
"""Health name that follows `set_ready`."""

SERVER_OPTIONS: Final = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # A second process on the same port must fail, not share the connections.
    ("grpc.so_reuseport", 0),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.ping_timeout_ms", 20_000),
    # Clients ping often to notice a dead peer early; do not punish them for it.
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 1_000),
    ("grpc.http2.max_ping_strikes", 0),
)


_MOST_BYTES: Final = 2**31 - 1
"""gRPC counts a message's bytes in 32 bits."""


class ServiceServer:
    """One server of one process. Create it inside the running event loop.

        server = ServiceServer(host, port, interceptors=(ErrorInterceptor(count),))
        server.add(add_LlmServiceServicer_to_server, servicer, "redserve.v1.LlmService")
        await server.start()
        server.set_ready(True)
        await server.wait_for_signal()
        await server.drain(timeout_s)

    Args:
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one.
        interceptors: Outermost first. Without an `ErrorInterceptor` among them one is added.
        max_connection_age_s: After about this time a client is asked to connect anew, seconds;
            calls that run on the old connection go on to their end. 0 never asks.
        max_message_bytes: Longer messages are refused by gRPC itself, as RESOURCE_EXHAUSTED and
            without a word of ours, before they take memory; None sets no limit.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
        max_connection_age_s: float = 0.0,
        max_message_bytes: int | None = None,
    ) -> None:
        self._host = host
        self._wanted_port = port
        self._port: int | None = None
        self._names: list[str] = []
        self._draining = asyncio.Event()
        chain = [*interceptors]
        if not any(isinstance(known, ErrorInterceptor) for known in chain):
            chain.insert(0, ErrorInterceptor())
        chain.append(WatchInterceptor(self._draining))
        options: dict[str, int] = dict(SERVER_OPTIONS)
        if max_connection_age_s:
            # No grace is set: gRPC then lets calls of an old connection end by themselves.
            options["grpc.max_connection_age_ms"] = round(max_connection_age_s * 1e3)
        if max_message_bytes is not None:
            options["grpc.max_receive_message_length"] = min(max_message_bytes, _MOST_BYTES)
        self.grpc = grpc.aio.server(interceptors=chain, options=tuple(options.items()))
        self._health = HealthServicer()
        self._health.set(LIVENESS, serving=True)
        self._health.set(READINESS, serving=False)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self.grpc)

    def add(
        self, add_fn: Callable[[Any, grpc.aio.Server], None], servicer: Any, service_full_name: str
    ) -> None:
        """Add a service, before `start`.

        Args:
            add_fn: The generated `add_…Servicer_to_server`.
            servicer: The implementation.
            service_full_name: For health and reflection, for example "redserve.v1.LlmService".
        """
        add_fn(servicer, self.grpc)
        self._names.append(service_full_name)
        self._health.set(service_full_name, serving=False)

    @property
    def port(self) -> int:
        """Bound port. Raises RuntimeError before `bind` or `start`."""
        if self._port is None:
            raise RuntimeError("the server is not bound yet; call start() first")
        return self._port

    @property
    def address(self) -> str:
        """host:port as bound."""
        return f"{self._host}:{self.port}"

    @property
    def draining(self) -> asyncio.Event:
        """Set when `drain` begins: for handlers that would go on for ever."""
        return self._draining

    def bind(self) -> int:
        """Take the port without serving yet, for those who must tell it to others; idempotent.

        Raises:
            ConfigError: The address cannot be bound.
        """
        if self._port is None:
            where = f"{self._host}:{self._wanted_port}"
            try:
                self._port = self.grpc.add_insecure_port(where)
            except RuntimeError as error:
                raise ConfigError(
                    f"cannot listen on {where}: the port is in use or the address is not this "
                    "machine's; stop the other process, choose another port, or 0 to take any",
                    field="grpc_port",
                ) from error
        return self._port

    async def start(self) -> int:
        """Serve; liveness is up, readiness still down.

        Returns:
            The bound port.

        Raises:
            ConfigError: The address cannot be bound.
        """
        port = self.bind()
        names = [*self._names, health.SERVICE_NAME, reflection.SERVICE_NAME]
        reflection.enable_server_reflection(names, self.grpc)
        await self.grpc.start()
        return port

    def set_ready(self, ready: bool) -> None:
        """Say whether new work is welcome. Call it from the server's event loop."""
        for name in (READINESS, *self._names):
            self._health.set(name, serving=ready)

    async def drain(self, timeout_s: float) -> None:
        """Stop: not ready, no new calls, running ones finish within `timeout_s` or are cancelled.

        Watch streams end at once. Idempotent.
        """
        self.set_ready(False)
        self._draining.set()
        await self.grpc.stop(timeout_s)

    async def wait_for_signal(self) -> None:
        """Return at the first SIGTERM or SIGINT; later ones act as usual again."""
        loop = asyncio.get_running_loop()
        arrived = asyncio.Event()
        signals = (signal.SIGTERM, signal.SIGINT)
        for number in signals:
            loop.add_signal_handler(number, arrived.set)
        try:
            await arrived.wait()
        finally:
            for number in signals:
                loop.remove_signal_handler(number)
