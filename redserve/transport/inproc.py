"""Backend within one process: tests and all-in-one services.

It keeps every rule of the real ones (leases, deadlines, cancellation between chunks), so that
what passes here fails elsewhere only for the network's sake.
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final
from weakref import WeakValueDictionary

from redserve.errors import DeadlineExceeded, PeerLost
from redserve.transport.base import PeerInfo
from redserve.transport.buffer import read, write
from redserve.transport.probe import is_probe, prepare_probe

if TYPE_CHECKING:
    from collections.abc import Iterator

    from redserve.transport.base import Descriptor
    from redserve.transport.buffer import Buffer
    from redserve.transport.lease_table import LeaseTable
    from redserve.transport.pool import Pool

BACKEND: Final = "inproc"
CHUNK_BYTES: Final = 8 << 20
"""Bytes copied between two looks at the deadline: about a millisecond."""

_TABLES: WeakValueDictionary[str, LeaseTable] = WeakValueDictionary()
"""Producers of this process by address: its name service. Whoever owns the table keeps it alive."""


def register(address: str, table: LeaseTable) -> None:
    """Let consumers of this process find a producer; a newer one takes over the address."""
    _TABLES[address] = table


def unregister(address: str, table: LeaseTable) -> None:
    """Take a producer away, as if its process had ended; idempotent."""
    if _TABLES.get(address) is table:
        del _TABLES[address]


def _table_at(address: str) -> LeaseTable:
    table = _TABLES.get(address)
    if table is None:
        raise PeerLost(f"no producer called {address!r} in this process")
    return table


class InprocProducer:
    """`Producer` for a table of this process."""

    def __init__(self, address: str) -> None:
        self._address = address

    async def hello(self, timeout_s: float) -> PeerInfo:
        """See `Producer`."""
        table = _table_at(self._address)
        num_bytes = table.pool.num_bytes
        return PeerInfo(table.incarnation, BACKEND, self._address, pool_bytes=num_bytes)

    async def prepare(self, tensor_key: str, consumer: str, timeout_s: float) -> Descriptor:
        """See `Producer`."""
        table = _table_at(self._address)
        if is_probe(tensor_key):
            return await prepare_probe(table, tensor_key, consumer)
        return table.prepare(tensor_key, consumer)

    async def release(self, lease_id: int, *, consumed: bool, timeout_s: float) -> bool:
        """See `Producer`."""
        return _table_at(self._address).release(lease_id, consumed)

    async def close(self) -> None:
        """See `Producer`."""


class InprocTransport:
    """`Transport` that copies from the producer's pool.

    Args:
        pool: Where the destinations are.
        incarnation: Of this consumer.
        address: Of this consumer.
    """

    kind: str = BACKEND

    def __init__(self, pool: Pool, incarnation: str, address: str) -> None:
        self._pool = pool
        self._info = PeerInfo(incarnation, BACKEND, address, pool_bytes=pool.num_bytes)
        self._peers: dict[str, PeerInfo] = {}

    def local_info(self) -> PeerInfo:
        """See `Transport`."""
        return self._info

    def add_peer(self, peer: PeerInfo) -> None:
        """See `Transport`."""
        _table_at(peer.address)
        self._peers[peer.incarnation] = peer

    def remove_peer(self, incarnation: str) -> None:
        """See `Transport`."""
        self._peers.pop(incarnation, None)

    async def pull(self, descriptor: Descriptor, destination: Buffer, deadline_s: float) -> None:
        """See `Transport`."""
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + deadline_s
        source = self._source(descriptor)
        with _held(source), _held(destination):
            for start in range(0, descriptor.num_bytes, CHUNK_BYTES):
                end = min(start + CHUNK_BYTES, descriptor.num_bytes)
                write(destination, start, read(source, start, end))
                await asyncio.sleep(0)  # others' turn, and where a cancel arrives
                self._source(descriptor)  # the peer and the lease must hold to the end
                if loop.time() > ends_at:
                    raise DeadlineExceeded(f"{end} of {descriptor.num_bytes} bytes were copied")

    def kind_for(self, incarnation: str) -> str:
        """See `Transport`."""
        return BACKEND

    async def close(self, timeout_s: float) -> bool:
        """See `Transport`."""
        self._peers.clear()
        return True

    def _source(self, descriptor: Descriptor) -> Buffer:
        peer = self._peers.get(descriptor.incarnation)
        if peer is None:
            raise PeerLost(f"{descriptor.incarnation} is not a peer (any more)")
        table = _table_at(peer.address)
        if table.incarnation != descriptor.incarnation:
            raise PeerLost(f"{peer.address} is {table.incarnation} now")
        return table.buffer_of(descriptor.lease_id)


@contextmanager
def _held(buffer: Buffer) -> Iterator[None]:
    buffer.hold()
    try:
        yield
    finally:
        buffer.unhold()
