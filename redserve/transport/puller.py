"""Prepare, pull, check, release: what every consumer does, whatever moves the bytes."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from redserve.errors import (
    CorruptTransfer,
    DeadlineExceeded,
    InternalError,
    PeerLost,
    RedServeError,
    TensorGone,
)
from redserve.telemetry.log import get_logger
from redserve.transport.base import PeerInfo
from redserve.transport.buffer import checksum
from redserve.transport.connections import RELEASE_TIMEOUT_S, Connections
from redserve.transport.pair_check import measure

if TYPE_CHECKING:
    from collections.abc import Callable

    from redserve.telemetry.metrics.transport import TransportMetrics
    from redserve.transport.base import Descriptor, Producer, Transport
    from redserve.transport.buffer import Buffer
    from redserve.transport.connections import Connection
    from redserve.transport.pair_check import TransportCheck
    from redserve.transport.pool import Pool

log = get_logger()

CLOSE_TIMEOUT_S: Final = 5.0
INLINE_CHECKSUM_BYTES: Final = 4 << 20
"""Larger tensors are checked in a thread: this much takes 0.1 ms."""


class _StillLanding(CorruptTransfer):
    """The lease ended in the middle of a read that may go on."""


@dataclass(frozen=True, slots=True)
class _Job:
    """One pull: what, whereto, until when (event loop time)."""

    tensor_key: str
    destination: Buffer
    ends_at: float


class Puller:
    """Pulls tensors into regions that the caller has reserved.

    All calls belong to one event loop. Any number of pulls may run at once: what bounds them is
    the room that their callers could reserve (`Pool.alloc_wait`).

    Args:
        transport: The data path.
        connect: Opens the control path to a producer; not connected yet.
        consumer_incarnation: Who this process is.
        pool: Where destinations are; `check` takes room from it.
        metrics: Counts and times what arrives.

    Attributes:
        transport: The best data path that this process has.
    """

    def __init__(
        self,
        transport: Transport,
        connect: Callable[[PeerInfo], Producer],
        consumer_incarnation: str,
        pool: Pool,
        metrics: TransportMetrics | None = None,
    ) -> None:
        self._transport = transport
        self._connect = connect
        self._pool = pool
        self._connections = Connections(transport, connect)
        self._incarnation = consumer_incarnation
        self._metrics = metrics
        self.transport = transport.kind
        if metrics is not None:
            metrics.info.labels(transport=self.transport).set(1)

    async def pull(
        self, producer: PeerInfo, tensor_key: str, destination: Buffer, deadline_s: float
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
            Unavailable: `close` was called.
        """
        ends_at = asyncio.get_running_loop().time() + deadline_s
        started = time.perf_counter()
        job = _Job(tensor_key, destination, ends_at)
        try:
            kind = await self._attempt(producer, job)
        except _StillLanding:
            raise  # not into the same room: the first attempt may still write there
        except CorruptTransfer as error:
            log.warning(
                "corrupt transfer, once more", producer=producer.incarnation, why=str(error)
            )
            kind = await self._attempt(producer, job)
        if self._metrics is not None:
            self._metrics.pull.labels(transport=kind).observe(time.perf_counter() - started)
            moved = self._metrics.moved_bytes.labels(transport=kind, direction="in")
            moved.inc(destination.num_bytes)

    async def check(self, address: str, deadline_s: float) -> TransportCheck:
        """Measure what the process at `address` and this one can do together.

        It takes no room that somebody waits for: a smaller probe is read when the pool is full.

        Args:
            address: host:port of a producer.
            deadline_s: Longest time for all of it, seconds.

        Raises:
            Overloaded: One of the two has no room at all.
            PeerLost: Nobody is there, or it cannot be read from.
            CorruptTransfer: What arrived is not what was sent.
            DeadlineExceeded: Not done in time.
            Unavailable: `close` was called.
        """
        producer = self._connect(PeerInfo("", self.transport, address))
        try:
            peer = await producer.hello(deadline_s)
        finally:
            await producer.close()
        return await measure(self, self._pool, peer, address, deadline_s)

    def transport_to(self, peer: PeerInfo) -> str:
        """The data path of this pair: "rdma", "tcp", "grpc" or "inproc"."""
        return self._transport.kind_for(peer.incarnation)

    async def close(self) -> None:
        """Hang up everywhere; running pulls fail with PeerLost. Idempotent."""
        await self._connections.close()
        if not await self._transport.close(CLOSE_TIMEOUT_S):
            log.warning("transfers were still in flight at close", transport=self.transport)

    async def _attempt(self, peer: PeerInfo, job: _Job) -> str:
        """Returns the data path that brought the tensor; counts what fails by the one tried."""
        kind = self.transport_to(peer)
        try:
            with self._connections.use(peer) as connection:
                kind = self.transport_to(peer)
                await self._read(connection, job)
                return self.transport_to(peer)  # may be another one: see `EitherTransport`
        except RedServeError as error:
            if self._metrics is not None:
                self._metrics.errors.labels(transport=kind, reason=error.reason).inc()
            raise

    async def _read(self, connection: Connection, job: _Job) -> None:
        asked_at = asyncio.get_running_loop().time()
        descriptor = await self._prepare(connection, job)
        lease_ends_at = asked_at + descriptor.ttl_s  # by our clock, and on the safe side
        try:
            _check(descriptor, connection.peer, job.destination)
            await self._move(descriptor, job, lease_ends_at)
            await _verify(descriptor, job.destination, lease_ends_at)
        except BaseException:
            connection.release_later(descriptor.lease_id)
            raise
        await self._confirm(connection, descriptor, job)

    async def _prepare(self, connection: Connection, job: _Job) -> Descriptor:
        peer = connection.peer
        try:
            descriptor = await self._ask(connection, job)
        except TensorGone:
            # A process that restarted at the same address knows none of the old one's tensors.
            with suppress(DeadlineExceeded, PeerLost):
                now_there = await connection.producer.hello(_left(job))
                if now_there.incarnation != peer.incarnation:
                    self._connections.bury(connection)
            if connection.broken:
                raise PeerLost(f"{peer.incarnation} is gone, its address has a successor") from None
            raise
        if descriptor.incarnation != peer.incarnation:
            connection.release_later(descriptor.lease_id)
            self._connections.bury(connection)
            raise PeerLost(f"{peer.incarnation} is gone, {descriptor.incarnation} is there now")
        return descriptor

    async def _ask(self, connection: Connection, job: _Job) -> Descriptor:
        """Prepare, in a call of its own: a lease whose puller gave up meanwhile is given back."""
        left_s = _left(job)
        asking = connection.start(
            connection.producer.prepare(
                job.tensor_key, self._incarnation, left_s + RELEASE_TIMEOUT_S
            )
        )

        def give_back(task: asyncio.Task[Descriptor]) -> None:
            if not task.cancelled() and task.exception() is None:
                connection.release_later(task.result().lease_id)

        try:
            async with asyncio.timeout(left_s):
                return await asyncio.shield(asking)
        except TimeoutError:
            asking.add_done_callback(give_back)
            who = connection.peer.incarnation
            raise DeadlineExceeded(f"{who} gave no lease in time") from None
        except asyncio.CancelledError:
            asking.add_done_callback(give_back)
            raise

    async def _move(self, descriptor: Descriptor, job: _Job, lease_ends_at: float) -> None:
        loop = asyncio.get_running_loop()
        until = min(job.ends_at, lease_ends_at)
        try:
            await self._transport.pull(descriptor, job.destination, max(until - loop.time(), 0.0))
        except DeadlineExceeded as error:
            if lease_ends_at < job.ends_at:
                raise _StillLanding("the lease ended while the tensor was read") from error
            raise

    async def _confirm(self, connection: Connection, descriptor: Descriptor, job: _Job) -> None:
        """Release the lease; only then is it certain that it held while we read.

        The checksum has proved the bytes already if there is one: that their producer dies or
        the deadline passes in this moment then changes nothing.
        """
        proven = _is_checked(descriptor, job.destination)
        releasing = connection.release(descriptor.lease_id, consumed=True, proven=proven)
        left_s = job.ends_at - asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(max(left_s, 0.0)):
                held = await asyncio.shield(releasing)
        except TimeoutError:
            if not proven:
                raise DeadlineExceeded("the lease could not be confirmed in time") from None
        except (PeerLost, DeadlineExceeded):
            if not proven:
                raise
        else:
            if not held:
                raise CorruptTransfer("the lease had ended when the tensor was released")


def _left(job: _Job) -> float:
    left_s = job.ends_at - asyncio.get_running_loop().time()
    if left_s <= 0:
        raise DeadlineExceeded("the deadline of the transfer has passed")
    return left_s


def _check(descriptor: Descriptor, peer: PeerInfo, destination: Buffer) -> None:
    """A lease that does not fit must not reach a backend, which would believe it."""
    if descriptor.num_bytes != destination.num_bytes:
        raise InternalError(
            f"the tensor has {descriptor.num_bytes} bytes, its destination {destination.num_bytes}"
        )
    ends_at = max(segment.offset + segment.num_bytes for segment in descriptor.segments)
    if peer.pool_bytes and ends_at > peer.pool_bytes:
        raise InternalError(f"the lease reaches beyond the pool of {peer.incarnation}")


async def _verify(descriptor: Descriptor, destination: Buffer, lease_ends_at: float) -> None:
    if asyncio.get_running_loop().time() >= lease_ends_at:
        raise CorruptTransfer("the lease ended before the tensor was read")
    if not _is_checked(descriptor, destination):
        return
    if destination.num_bytes <= INLINE_CHECKSUM_BYTES:
        found = checksum(destination)
    else:
        # It reads on when this task is cancelled, and nobody looks at what it finds.
        found = await asyncio.to_thread(checksum, destination)
    if found != descriptor.checksum:
        raise CorruptTransfer(f"checksum {found:#x} instead of {descriptor.checksum:#x}")


def _is_checked(descriptor: Descriptor, destination: Buffer) -> bool:
    """Whether the bytes are summed: where their producer did so, and the host can see them."""
    return descriptor.checksum is not None and destination.pool.slab.host is not None
