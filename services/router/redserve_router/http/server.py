"""uvicorn inside the router's event loop."""

from __future__ import annotations

import asyncio
import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING

import uvicorn

from redserve.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Generator

    from starlette.types import ASGIApp

KEEP_ALIVE_S = 75
"""Longer than clients keep idle connections: the side that closes first must be theirs, or a
request can cross the closing on its way."""


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: the router has its own."""

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Capture nothing."""
        yield


class HttpServer:
    """One HTTP server; `start` binds, `drain` ends."""

    def __init__(self, app: ASGIApp, host: str, port: int) -> None:
        self._host = host
        self._wanted_port = port
        self._socket: socket.socket | None = None
        self._task: asyncio.Task[None] | None = None
        self._config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="off",
            ws="none",
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_S,
        )
        self._server = _Server(self._config)

    @property
    def port(self) -> int:
        """Bound port."""
        if self._socket is None:
            raise RuntimeError("the HTTP server is not bound yet; call start() first")
        return int(self._socket.getsockname()[1])

    async def start(self) -> None:
        """Serve.

        Raises:
            ConfigError: The address cannot be bound.
        """
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        # The protocol by name: asyncio turns Nagle's algorithm off only where it can see that it
        # is TCP, and with it on every answer of two writes waits 40 ms for an acknowledgement.
        bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            bound.bind((self._host, self._wanted_port))
        except OSError as error:
            bound.close()
            raise ConfigError(
                f"cannot listen on {self._host}:{self._wanted_port}: {error.strerror}; "
                "stop the other process, choose another port, or 0 to take any",
                field="http_port",
            ) from error
        bound.listen(2048)
        self._socket = bound
        self._task = asyncio.create_task(self._server.serve(sockets=[bound]))

    async def drain(self, timeout_s: float) -> None:
        """No new connections; running answers finish within `timeout_s` or are cancelled."""
        if self._task is None:
            return
        self._config.timeout_graceful_shutdown = max(1, round(timeout_s))
        self._server.should_exit = True
        await asyncio.wait({self._task})
        if self._socket is not None:
            self._socket.close()
