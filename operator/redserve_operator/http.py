"""Probes and figures over HTTP: /healthz, /readyz, /metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from redserve.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from prometheus_client import CollectorRegistry


class ProbeServer:
    """A small HTTP server in this event loop: when the loop hangs, so do the probes.

    Args:
        registry: Figures of `/metrics`.
        refresh: Brings figures up to date that are read rather than counted.
        not_alive: Why the process should be started anew; empty when it should not.
        not_ready: Why the process is not ready; empty when it is.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        *,
        refresh: Callable[[], None],
        not_alive: Callable[[], str],
        not_ready: Callable[[], str],
    ) -> None:
        self._registry = registry
        self._refresh = refresh
        self._not_alive = not_alive
        self._not_ready = not_ready
        application = web.Application()
        application.add_routes(
            [
                web.get("/healthz", self._healthz),
                web.get("/readyz", self._readyz),
                web.get("/metrics", self._metrics),
            ]
        )
        self._runner = web.AppRunner(application, handle_signals=False, access_log=None)

    async def start(self, host: str, port: int) -> int:
        """Listen; returns the port, which matters when 0 took any.

        Raises:
            ConfigError: The address cannot be bound.
        """
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port, shutdown_timeout=1.0)
        try:
            await site.start()
        except OSError as error:
            await self._runner.cleanup()
            raise ConfigError(
                f"cannot serve probes on {host}:{port}: {error.strerror or error}",
                field="REDSERVE_OPERATOR_HTTP_PORT",
            ) from None
        bound: int = self._runner.addresses[0][1]
        return bound

    async def stop(self) -> None:
        """Stop listening."""
        await self._runner.cleanup()

    async def _healthz(self, _: web.Request) -> web.Response:
        return _answer(self._not_alive())

    async def _readyz(self, _: web.Request) -> web.Response:
        return _answer(self._not_ready())

    async def _metrics(self, _: web.Request) -> web.Response:
        self._refresh()
        body = generate_latest(self._registry)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})


def _answer(trouble: str) -> web.Response:
    return web.Response(text=(trouble or "ok") + "\n", status=503 if trouble else 200)
