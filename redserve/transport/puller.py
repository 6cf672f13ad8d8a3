"""Prepare, pull, check, release: what every consumer does, whatever moves the bytes."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from redserve.errors import (
    CorruptTransfer,
    DeadlineExceeded,
    InternalError,
    PeerLost,
    RedServeError,
    TensorGone,
    Unavailable,
)
from redserve.telemetry.log import get_logger
from redserve.transport.lease_table import checksum_of

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from redserve.telemetry.metrics import TransportMetrics
    from redserve.transport.base import Descriptor, PeerInfo, Producer, Transport
    from redserve.transport.pool import Region

log = get_logger()

CLOSE_TIMEOUT_S: Final = 5.0
RELEASE_TIMEOUT_S: Final = 2.0
"""How long a failed pull tries to tell its producer; the lease ends by itself otherwise."""
INLINE_CHECKSUM_BYTES: Final = 4 << 20
"""Larger tensors are checked in a thread: this much takes 0.1 ms."""
MAX_DEAD: Final = 1024
"""Incarnations remembered as dead."""


@dataclass(slots=True)
class _Connection:
    """The control path to one incarnation, closed after the last pull once it broke."""

    peer: PeerInfo
    producer: Producer
    num_users: int = 0
    broken: bool = False
    releases: set[asyncio.Task[None]] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class _Job:
    """One pull: what, whereto, until when (event loop time)."""

    tensor_key: str
    destination: Region
    ends_at: float


class Puller:
    """Pulls tensors into regions that the caller has reserved.

    All calls belong to one event loop. Any number of pulls may run at once: what bounds them is
    the room that their callers could reserve.

    Args:
        transport: The data path.
        connect: Opens the control path to a producer; not connected yet.
        consumer_incarnation: Who this process is.
        metrics: Counts and times what arrives.
    """

    def __init__(
        self,
        transport: Transport,
        connect: Callable[[PeerInfo], Producer],
        consumer_incarnation: str,
        metrics: TransportMetrics | None = None,
    ) -> None:
        self._transport = transport
        self._connect = connect
        self._incarnation = consumer_incarnation
        self._metrics = metrics
        self._kind = transport.local_info().backend
        self._connections: dict[str, _Connection] = {}
        self._dead: dict[str, None] = {}  # oldest first
        self._background: set[asyncio.Task[None]] = set()
        self._closed = False
        if metrics is not None:
            metrics.info.labels(transport=self._kind).set(1)

    async def pull(
        self, producer: PeerInfo, tensor_key: str, destination: Region, deadline_s: float
    ) -> None:
        """Fill `destination` with the tensor, check it, and release it at the producer.

        The caller keeps owning `destination` and frees it, also after an error or a cancel;
        nothing lands in it once its pages can be reused. Its contents are garbage after an error.

        Args:
            producer: Who has it.
            tensor_key: What the producer calls it.
            destination: As many bytes as the tensor has.
            deadline_s: Longest time for all of it, seconds.

        Raises:
            TensorGone: The producer does not have it (any more); it must be made again.
            PeerLost: The producer is dead, unreachable, or another incarnation by now.
            CorruptTransfer: Checksum or lease did not hold, twice in a row.
            DeadlineExceeded: Not done in time.
            InternalError: The tensor has another size than the destination.
        """
        ends_at = asyncio.get_running_loop().time() + deadline_s
        started = time.perf_counter()
        job = _Job(tensor_key, destination, ends_at)
        try:
            try:
                await self._attempt(producer, job)
            except CorruptTransfer as error:
                self._count(error)
                log.warning(
                    "corrupt transfer, once more", producer=producer.incarnation, why=str(error)
                )
                await self._attempt(producer, job)
        except RedServeError as error:
            self._count(error)
            raise
        if self._metrics is not None:
            self._metrics.pull.labels(transport=self._kind).observe(time.perf_counter() - started)
            moved = self._metrics.moved_bytes.labels(transport=self._kind, direction="in")
            moved.inc(destination.num_bytes)

    async def close(self) -> None:
        """Hang up everywhere; running pulls fail. Idempotent."""
        self._closed = True
        for connection in tuple(self._connections.values()):
            self._drop(connection)
        await asyncio.gather(*self._background, return_exceptions=True)
        if not await self._transport.close(CLOSE_TIMEOUT_S):
            log.warning("transfers were still in flight at close", transport=self._kind)

    async def _attempt(self, peer: PeerInfo, job: _Job) -> None:
        connection = self._connection_to(peer)
        connection.num_users += 1
        try:
            await self._transfer(connection, job)
        except PeerLost:
            connection.broken = True
            raise
        finally:
            connection.num_users -= 1
            if connection.broken and not connection.num_users:
                self._drop(connection)

    async def _transfer(self, connection: _Connection, job: _Job) -> None:
        loop = asyncio.get_running_loop()
        asked_at = loop.time()
        descriptor = await self._prepare(connection, job)
        lease_ends_at = asked_at + descriptor.ttl_s  # by our clock, and on the safe side
        try:
            _check(descriptor, connection.peer, job.destination)
            await self._move(descriptor, job, lease_ends_at)
            await _verify(descriptor, job.destination, lease_ends_at)
            await self._confirm(connection, descriptor, job)
        except BaseException:
            self._release_later(connection, descriptor.lease_id)
            raise

    async def _prepare(self, connection: _Connection, job: _Job) -> Descriptor:
        peer, producer = connection.peer, connection.producer
        try:
            descriptor = await producer.prepare(job.tensor_key, self._incarnation, _left(job))
        except TensorGone:
            # A process that restarted at the same address knows none of the old one's tensors.
            with suppress(DeadlineExceeded, PeerLost):
                now_there = await producer.hello(_left(job))
                if now_there.incarnation != peer.incarnation:
                    self._bury(connection)
            if connection.broken:
                raise PeerLost(f"{peer.incarnation} is gone, its address has a successor") from None
            raise
        if descriptor.incarnation != peer.incarnation:
            self._release_later(connection, descriptor.lease_id)
            self._bury(connection)
            raise PeerLost(f"{peer.incarnation} is gone, {descriptor.incarnation} is there now")
        return descriptor

    async def _move(self, descriptor: Descriptor, job: _Job, lease_ends_at: float) -> None:
        loop = asyncio.get_running_loop()
        until = min(job.ends_at, lease_ends_at)
        try:
            await self._transport.pull(descriptor, job.destination, max(until - loop.time(), 0.0))
        except DeadlineExceeded as error:
            if lease_ends_at < job.ends_at:
                raise CorruptTransfer("the lease ended while the tensor was read") from error
            raise

    async def _confirm(self, connection: _Connection, descriptor: Descriptor, job: _Job) -> None:
        """Release the lease; only then is it certain that it held while we read."""
        try:
            held = await connection.producer.release(
                descriptor.lease_id, consumed=True, timeout_s=_left(job)
            )
        except (PeerLost, DeadlineExceeded) as error:
            if descriptor.checksum is None:
                raise
            # The checksum has proved the bytes; that their producer died since changes nothing.
            log.info("release failed after a good transfer", why=str(error))
            return
        if not held:
            raise CorruptTransfer("the lease had ended when the tensor was released")

    def _connection_to(self, peer: PeerInfo) -> _Connection:
        if self._closed:
            raise Unavailable("transfers are closed: this process is shutting down")
        if peer.incarnation in self._dead:
            raise PeerLost(f"{peer.incarnation} is dead")
        connection = self._connections.get(peer.incarnation)
        if connection is None:
            self._transport.add_peer(peer)
            connection = _Connection(peer, self._connect(peer))
            self._connections[peer.incarnation] = connection
        return connection

    def _bury(self, connection: _Connection) -> None:
        """Its address has a successor: never ask for this incarnation again."""
        connection.broken = True
        self._dead[connection.peer.incarnation] = None
        while len(self._dead) > MAX_DEAD:
            del self._dead[next(iter(self._dead))]

    def _drop(self, connection: _Connection) -> None:
        if self._connections.get(connection.peer.incarnation) is connection:
            del self._connections[connection.peer.incarnation]
            self._transport.remove_peer(connection.peer.incarnation)
            self._run(_hang_up(connection))

    def _release_later(self, connection: _Connection, lease_id: int) -> None:
        """Tell the producer that a pull failed, without making its caller wait."""
        task = self._run(_release_failed(connection.producer, lease_id))
        connection.releases.add(task)
        task.add_done_callback(connection.releases.discard)

    def _run(self, coroutine: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task

    def _count(self, error: RedServeError) -> None:
        if self._metrics is not None:
            self._metrics.errors.labels(transport=self._kind, reason=error.reason).inc()


def _left(job: _Job) -> float:
    left_s = job.ends_at - asyncio.get_running_loop().time()
    if left_s <= 0:
        raise DeadlineExceeded("the deadline of the transfer has passed")
    return left_s


def _check(descriptor: Descriptor, peer: PeerInfo, destination: Region) -> None:
    """A lease that does not fit must not reach a backend, which would believe it."""
    if descriptor.num_bytes != destination.num_bytes:
        raise InternalError(
            f"the tensor has {descriptor.num_bytes} bytes, its destination {destination.num_bytes}"
        )
    if peer.pool_bytes and descriptor.offset + descriptor.num_bytes > peer.pool_bytes:
        raise InternalError(f"the lease reaches beyond the pool of {peer.incarnation}")


async def _verify(descriptor: Descriptor, destination: Region, lease_ends_at: float) -> None:
    if asyncio.get_running_loop().time() >= lease_ends_at:
        raise CorruptTransfer("the lease ended before the tensor was read")
    if descriptor.checksum is None:
        return
    if destination.num_bytes <= INLINE_CHECKSUM_BYTES:
        found = checksum_of(destination)
    else:
        # It reads on when this task is cancelled, and nobody looks at what it finds.
        found = await asyncio.to_thread(checksum_of, destination)
    if found != descriptor.checksum:
        raise CorruptTransfer(f"checksum {found:016x} instead of {descriptor.checksum:016x}")


async def _release_failed(producer: Producer, lease_id: int) -> None:
    with suppress(PeerLost, DeadlineExceeded):  # then the lease ends by its ttl
        await producer.release(lease_id, consumed=False, timeout_s=RELEASE_TIMEOUT_S)


async def _hang_up(connection: _Connection) -> None:
    if connection.releases:
        await asyncio.wait(connection.releases)
    await connection.producer.close()
