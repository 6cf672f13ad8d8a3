"""The values and verbs that every data path shares.

The consumer owns the destination, so it alone decides when a buffer may be reused: it reserves
room first, asks the producer for a lease (`Descriptor`), pulls, checks, releases. A backend only
moves bytes; leases, checksums and retries are the same for all of them.

    producer: Pool -> Buffer -> LeaseTable.offer(key, buffer)
    consumer: Pool -> Buffer -> Puller.pull(peer, key, buffer, deadline_s)
                                   │ Prepare(key) -> Descriptor      (control, gRPC or in-process)
                                   │ Transport.pull(descriptor, buffer)   (data, per backend)
                                   │ checksum, ttl
                                   └ Release(lease)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from redserve.errors import PeerLost

if TYPE_CHECKING:
    from redserve.transport.buffer import Buffer, Segment


@dataclass(frozen=True, slots=True)
class PeerInfo:
    """A process that takes part in transfers.

    Attributes:
        incarnation: Unique for ever; a process that restarts is another peer.
        backend: "grpc", "inproc" or "nixl".
        address: host:port of its TransportService, or the in-process name.
        metadata: Opaque to all but the backend.
        pool_address: Virtual address of its pool, for one-sided reads.
        pool_bytes: Size of its pool.
        memory: "dram" or "vram".
        device_id: Device number for vram.
        library: Package and release of what moves the bytes; both ends need the same.
    """

    incarnation: str
    backend: str
    address: str
    metadata: bytes = b""
    pool_address: int = 0
    pool_bytes: int = 0
    memory: str = "dram"
    device_id: int = 0
    library: str = ""


@dataclass(frozen=True, slots=True)
class Descriptor:
    """Where leased bytes are, and for how long.

    Attributes:
        incarnation: Of the producer.
        segments: The pieces in the producer's pool, in the order of the bytes.
        lease_id: Names the lease at the producer.
        ttl_s: How long the producer keeps the bytes, seconds from when it was made.
        checksum: xxh3_64 over the bytes; None means not computed.
    """

    incarnation: str
    segments: tuple[Segment, ...]
    lease_id: int
    ttl_s: float
    checksum: int | None

    @property
    def num_bytes(self) -> int:
        """Length of all pieces."""
        return sum(segment.num_bytes for segment in self.segments)


class PeerUnreachable(PeerLost):
    """There is no way to a peer by this data path: nothing was begun, nothing will land."""


class PeerInDoubt(PeerLost):
    """What says to be a peer may be another. That says nothing of the way to the peer itself."""


class Transport(Protocol):
    """The data path of one backend, consumer side.

    Errors of `pull`: `PeerLost`, `DeadlineExceeded`, `CorruptTransfer`, `asyncio.CancelledError`.
    After any of them the destination must be given back with `free`; a backend that still has
    bytes in flight keeps it quarantined until they have landed.
    """

    @property
    def kind(self) -> str:
        """The best that this process has: "rdma", "tcp", "grpc" or "inproc"."""
        ...

    def local_info(self) -> PeerInfo:
        """Who this process is."""
        ...

    def add_peer(self, peer: PeerInfo) -> None:
        """Make `peer` known; idempotent. Raises PeerLost if it cannot be reached.

        Called on the event loop, so it must not block: a backend that has to connect does so on
        its own thread and lets `pull` wait for it.
        """
        ...

    def remove_peer(self, incarnation: str) -> None:
        """Forget a peer; its pulls fail with PeerLost. Idempotent."""
        ...

    async def pull(self, descriptor: Descriptor, destination: Buffer, deadline_s: float) -> None:
        """Copy the leased bytes into `destination`, within `deadline_s` seconds."""
        ...

    def kind_for(self, incarnation: str) -> str:
        """What moves the bytes of this peer, one of the same words."""
        ...

    async def close(self, timeout_s: float) -> bool:
        """Stop; False when transfers were still in flight after `timeout_s` seconds."""
        ...


class Producer(Protocol):
    """The control path to one producer, as a consumer sees it."""

    async def hello(self, timeout_s: float) -> PeerInfo:
        """Ask who is there."""
        ...

    async def prepare(self, tensor_key: str, consumer: str, timeout_s: float) -> Descriptor:
        """Lease a tensor.

        Raises:
            TensorGone: The producer lives but does not have it (any more).
            PeerLost: The producer cannot be reached.
            DeadlineExceeded: No answer within `timeout_s` seconds.
        """
        ...

    async def release(self, lease_id: int, *, consumed: bool, timeout_s: float) -> bool:
        """End a lease; False when it had expired, so that what was read may be garbage."""
        ...

    async def close(self) -> None:
        """Hang up; idempotent."""
        ...
