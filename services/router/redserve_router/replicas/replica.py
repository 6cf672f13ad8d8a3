"""One replica: a connection that is kept, watched, dropped when it breaks, and made again."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from contextlib import contextmanager
from itertools import count
from typing import TYPE_CHECKING, ClassVar

from redserve.errors import RedServeError, Unavailable
from redserve.telemetry.log import get_logger
from redserve.wire.channel import open_channel

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    import grpc

log = get_logger()

FIRST_BACKOFF_S = 0.1
LONGEST_BACKOFF_S = 1.0
INFO_TIMEOUT_S = 5.0
LOAD_INTERVAL_MS = 50
"""Least time between two load reports; in between, the router counts what it sends itself."""


class Replica(ABC):
    """What encoders and LLM replicas have in common. Create and use it inside one event loop.

    Attributes:
        pool: "encoder" or "llm".
        address: host:port.
        connection: Number of the connection, unique in this process: a replica that comes back is
            another one, and so is a new one under an old address. 0 before the first.
        takes_work: Whether discovery sends new work there; see `redserve.routing.preferred`.
        num_calls: Requests or errands of this router that it is working on.
        closed: Its channel cannot be used any more.
    """

    pool: ClassVar[str]
    _connections: ClassVar[count[int]] = count(1)

    def __init__(self, address: str, on_change: Callable[[], None]) -> None:
        self.address = address
        self.connection = 0
        self.takes_work = True
        self.num_calls = 0
        self.closed = False
        # One channel for ever: it reconnects by itself, and streams that outlive the load reports
        # (a replica that drains) can end in peace.
        self._channel = open_channel(address)
        self._on_change = on_change
        self._serving = False
        self._watch: asyncio.Task[None] | None = None
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def serving(self) -> bool:
        """Whether it is connected and says that it takes new work."""
        return self._serving

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Of the checkpoint that it serves; empty before the first connection."""

    @property
    @abstractmethod
    def transport(self) -> str:
        """Data path in use; empty before the first connection."""

    @abstractmethod
    def load_figures(self) -> dict[str, float]:
        """Load by name, for people."""

    @abstractmethod
    async def _introduce(self) -> None:
        """Ask who it is; forget what was known of it."""

    @abstractmethod
    async def _follow_load(self) -> None:
        """Follow its load until the connection breaks; calls `_set_serving`."""

    @contextmanager
    def use(self) -> Generator[None, None, None]:
        """Around every call: until then the channel stays open, though the replica has left."""
        self.num_calls += 1
        self._idle.clear()
        try:
            yield
        finally:
            self.num_calls -= 1
            if not self.num_calls:
                self._idle.set()

    async def until_idle(self) -> None:
        """Wait for the last call; none may begin before the caller's next await."""
        while self.num_calls:
            await self._idle.wait()

    async def close(self) -> None:
        """Close the channel, after `run` has ended; calls that still run are cancelled."""
        self.closed = True
        await self._channel.close()

    def broke(self, why: RedServeError) -> None:
        """A call found the replica gone: stop using it now, and connect again."""
        if self._watch is not None and self._serving:
            log.warning("replica broke", pool=self.pool, address=self.address, error=str(why))
            self._set_serving(False)
            self._watch.cancel()

    async def run(self) -> None:
        """Keep the connection; cancel to end."""
        backoff_s = FIRST_BACKOFF_S
        while True:
            connection = self.connection
            await self._watch_once()
            if self.connection != connection:
                backoff_s = FIRST_BACKOFF_S
            await asyncio.sleep(backoff_s)
            backoff_s = min(2 * backoff_s, LONGEST_BACKOFF_S)

    async def _watch_once(self) -> None:
        self._watch = asyncio.create_task(self._live(self._channel))
        try:
            await asyncio.wait({self._watch})
        finally:
            self._watch.cancel()
        self._log_end(self._watch)
        self._set_serving(False)

    async def _live(self, channel: grpc.aio.Channel) -> None:
        await channel.channel_ready()
        await self._introduce()
        self.connection = next(self._connections)
        await self._follow_load()
        raise Unavailable("it ended its load reports: it is stopping")

    def _log_end(self, watch: asyncio.Task[None]) -> None:
        error = None if watch.cancelled() else watch.exception()
        if isinstance(error, RedServeError):
            write = log.warning if self.takes_work else log.info  # else it was to go
            write("replica lost", pool=self.pool, address=self.address, error=str(error))
        elif error is not None:
            log.error("replica watch failed", pool=self.pool, address=self.address, exc_info=error)

    def _set_serving(self, serving: bool) -> None:
        if serving != self._serving:
            self._serving = serving
            state = "replica serves" if serving else "replica does not serve"
            log.info(state, pool=self.pool, address=self.address)
            self._on_change()
