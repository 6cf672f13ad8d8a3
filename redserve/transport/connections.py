"""The control paths of a consumer, one per incarnation of a producer.

A connection that broke is closed after the last pull that uses it, and after the calls that must
outlive their pull (releases above all). A peer whose address has a successor is dead for ever. Who
says to be an incarnation from elsewhere, or with other metadata, is another peer: it has no part in
the connection of the first, and its death is not that one's. Connections that nobody uses are kept,
but not to an address where another incarnation is used now, and no more than `MAX_OPEN`: peers come
and go for as long as this process lives.

A release that the producer did not hear, because it was stopped or out of reach, is told again a
few times, beside everything else and only until this process closes.
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, TypeVar

from redserve.errors import DeadlineExceeded, PeerLost, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from redserve.transport.base import PeerInfo, Producer, Transport

T = TypeVar("T")

RELEASE_TIMEOUT_S: Final = 2.0
"""How long one try of a release may take."""
RELEASE_PAUSES_S: Final = (0.5, 1.0, 2.0, 4.0)
"""Pauses before the second and later tries: 17.5 s in all at most. After that the lease ends by
itself, and the producer has to ask whether what it offers is still wanted."""
MAX_DEAD: Final = 1024
"""Peers remembered as dead."""
MAX_OPEN: Final = 256
"""Connections beyond which those are closed that nobody uses."""


class Connection:
    """The control path to one incarnation.

    Args:
        peer: Who is there.
        producer: How to ask it.
        closing: Set when no release is to be told again any more.

    Attributes:
        peer: Who is there.
        producer: How to ask it.
        num_users: Pulls that use it now.
        broken: Whether the peer is lost, and to close it once nobody uses it.
        outdated: Whether to close it then because another incarnation is at its address.
    """

    __slots__ = ("_closing", "_pending", "broken", "num_users", "outdated", "peer", "producer")

    def __init__(self, peer: PeerInfo, producer: Producer, closing: asyncio.Event) -> None:
        self.peer = peer
        self.producer = producer
        self.num_users = 0
        self.broken = False
        self.outdated = False
        self._closing = closing
        self._pending: set[asyncio.Task[Any]] = set()

    def start(self, call: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run a call that goes on when its pull is cancelled or out of time."""
        task = asyncio.get_running_loop().create_task(call)
        self._pending.add(task)
        task.add_done_callback(self._pending.discard)
        task.add_done_callback(_look_at)
        return task

    def release(self, lease_id: int, *, consumed: bool, proven: bool) -> asyncio.Task[bool]:
        """Begin to end a lease; the task is the first try. One that is not heard is told again.

        A producer that has heard it already makes nothing of it, and neither does a successor.

        Args:
            lease_id: Which.
            consumed: Whether the reader will have the bytes if this is heard in time.
            proven: Whether it has them in any case, which is what later tries say.
        """
        first = self.start(
            self.producer.release(lease_id, consumed=consumed, timeout_s=RELEASE_TIMEOUT_S)
        )

        def look(task: asyncio.Task[bool]) -> None:
            if not task.cancelled() and isinstance(task.exception(), PeerLost | DeadlineExceeded):
                self.start(self._tell_again(lease_id, consumed=proven))

        first.add_done_callback(look)
        return first

    def release_later(self, lease_id: int) -> None:
        """Tell the producer that a pull failed, without making its caller wait."""
        self.release(lease_id, consumed=False, proven=False)

    async def hang_up(self) -> None:
        """Let what is under way end (it has timeouts), then close."""
        while self._pending:
            await asyncio.wait(self._pending)
        await self.producer.close()

    async def _tell_again(self, lease_id: int, *, consumed: bool) -> None:
        for pause_s in RELEASE_PAUSES_S:
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._closing.wait()
                return
            with suppress(PeerLost, DeadlineExceeded):
                await self.producer.release(
                    lease_id, consumed=consumed, timeout_s=RELEASE_TIMEOUT_S
                )
                return


class Connections:
    """All of them. Belongs to one event loop.

    Args:
        transport: Is told of peers that come and go.
        connect: Opens the control path to a producer.
    """

    def __init__(self, transport: Transport, connect: Callable[[PeerInfo], Producer]) -> None:
        self._transport = transport
        self._connect = connect
        self._open: dict[str, Connection] = {}  # by incarnation, the least recently used first
        self._dead: dict[PeerInfo, None] = {}  # oldest first
        self._hanging_up: set[asyncio.Task[None]] = set()
        self._closing = asyncio.Event()

    @contextmanager
    def use(self, peer: PeerInfo) -> Iterator[Connection]:
        """The connection to `peer`; a PeerLost that leaves the block breaks it.

        Raises:
            PeerLost: The incarnation is dead.
            Unavailable: `close` was called.
        """
        connection = self._connection_to(peer)
        connection.num_users += 1
        try:
            yield connection
        except PeerLost:
            connection.broken = True
            raise
        finally:
            connection.num_users -= 1
            self._tidy(connection)

    def bury(self, connection: Connection) -> None:
        """Its address has a successor: never ask for this incarnation again."""
        connection.broken = True
        self._dead[connection.peer] = None
        while len(self._dead) > MAX_DEAD:
            del self._dead[next(iter(self._dead))]

    async def close(self) -> None:
        """Hang up everywhere; running pulls fail with PeerLost. Idempotent."""
        self._closing.set()
        for connection in tuple(self._open.values()):
            self._drop(connection)
        if self._hanging_up:
            await asyncio.wait(self._hanging_up)

    def _connection_to(self, peer: PeerInfo) -> Connection:
        if self._closing.is_set():
            raise Unavailable("transfers are closed: this process is shutting down")
        if peer in self._dead:
            raise PeerLost(f"{peer.incarnation} is dead")
        connection = self._open.get(peer.incarnation)
        if connection is not None and connection.peer != peer:
            # Two say to be the same: whatever is read from one must not count as the other's.
            if connection.num_users:
                raise PeerLost(
                    f"somebody else is read from as {peer.incarnation}: from "
                    f"{connection.peer.address}, not {peer.address}"
                )
            self._drop(connection)
            connection = None
        if connection is None:
            self._transport.add_peer(peer)
            connection = Connection(peer, self._connect(peer), self._closing)
        else:
            del self._open[peer.incarnation]  # to the end of the order of use
        connection.outdated = False
        self._open[peer.incarnation] = connection
        self._outdate(connection)
        return connection

    def _outdate(self, current: Connection) -> None:
        """Others at its address may go; whether it is the latest one there is not known."""
        address = current.peer.address
        for other in [one for one in self._open.values() if one.peer.address == address]:
            if other is not current:
                other.outdated = True
                if not other.num_users:
                    self._drop(other)

    def _tidy(self, connection: Connection) -> None:
        """Close what need not be kept, after a use of `connection`."""
        if (connection.broken or connection.outdated) and not connection.num_users:
            self._drop(connection)
        if len(self._open) > MAX_OPEN:
            idle = [one for one in self._open.values() if not one.num_users]
            for unused in idle[: len(self._open) - MAX_OPEN]:
                self._drop(unused)

    def _drop(self, connection: Connection) -> None:
        if self._open.get(connection.peer.incarnation) is not connection:
            return
        del self._open[connection.peer.incarnation]
        self._transport.remove_peer(connection.peer.incarnation)
        task = asyncio.get_running_loop().create_task(connection.hang_up())
        self._hanging_up.add(task)
        task.add_done_callback(self._hanging_up.discard)
        task.add_done_callback(_look_at)


def _look_at(task: asyncio.Task[Any]) -> None:
    """Its pull may be gone: an error that nobody waits for is no news."""
    if not task.cancelled():
        task.exception()
