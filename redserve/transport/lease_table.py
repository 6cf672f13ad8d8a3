"""What a producer offers, and who reads it until when.

    offer(key) ─► prepare(key) ─► lease ─► release(consumed) | reap (ttl + grace passed)
        │              ▲  any number of leases at once
        └─ withdraw(key): no new leases; those under way go on

The table never frees a buffer: its owner does, whenever it likes. A lease holds the buffer, so
the pages return to the pool only after the last reader is done.
"""

from __future__ import annotations

import secrets
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from redserve.errors import CorruptTransfer, TensorGone
from redserve.telemetry.log import get_logger
from redserve.transport.base import Descriptor
from redserve.transport.buffer import checksum as checksum_of
from redserve.transport.buffer import read

if TYPE_CHECKING:
    from collections.abc import Callable

    from redserve.transport.buffer import Buffer
    from redserve.transport.pool import Pool

log = get_logger()

GRACE_S: Final = 2.0
"""How long after its ttl a lease still holds the memory: a reader stops at ttl by its own clock,
and the last bytes of a one-sided read may be on their way then."""


@dataclass(frozen=True, slots=True)
class _Offer:
    """A tensor that may be leased."""

    key: str
    buffer: Buffer
    checksum: int | None
    on_released: Callable[[str, bool], None]


@dataclass(frozen=True, slots=True)
class _Lease:
    """One reader of one tensor."""

    lease_id: int
    offer: _Offer
    consumer: str
    ends_at: float


class LeaseTable:
    """Leases on the buffers of one pool. Thread-safe; callbacks run in the caller's thread.

    Args:
        pool: Where the buffers are.
        incarnation: Of this producer.
        ttl_s: How long a lease is good for, seconds.
        clock: Monotonic seconds.
        grace_s: See `GRACE_S`.
    """

    def __init__(
        self,
        pool: Pool,
        incarnation: str,
        ttl_s: float,
        clock: Callable[[], float] = time.monotonic,
        *,
        grace_s: float = GRACE_S,
    ) -> None:
        self.pool = pool
        self.incarnation = incarnation
        self.ttl_s = ttl_s
        self.grace_s = grace_s
        self._clock = clock
        self._lock = threading.Lock()
        self._offers: dict[str, _Offer] = {}
        self._leases: dict[int, _Lease] = {}  # by age: all live equally long

    def offer(
        self,
        key: str,
        buffer: Buffer,
        on_released: Callable[[str, bool], None],
        *,
        checksum: bool = True,
    ) -> None:
        """Let consumers lease `buffer` under `key`.

        The caller keeps owning it and must not change its bytes from now on.

        Args:
            key: New at this producer.
            buffer: The tensor's bytes, in one region or in many (`RegionList`).
            on_released: Called as `(key, consumed)` whenever a lease ends: consumed is True when
                the reader has the bytes, False when it failed or vanished. The offer stays until
                it is withdrawn, so that others may read.
            checksum: Compute xxh3_64 now (37 GB/s), for the consumer to check; never of device
                memory, which it would copy.

        Raises:
            ValueError: The key is offered already.
        """
        has_checksum = checksum and self.pool.slab.host is not None
        offer = _Offer(key, buffer, checksum_of(buffer) if has_checksum else None, on_released)
        with self._lock:
            if key in self._offers:
                raise ValueError(f"{key!r} is offered already")
            self._offers[key] = offer

    def withdraw(self, key: str) -> bool:
        """End an offer; idempotent. The owner may free the buffer at once in any case.

        Returns:
            True when nobody reads it: its pages are reusable as soon as it is freed. False when
            leases are under way: they stay valid, and the pages return after the last of them.
        """
        with self._lock:
            offer = self._offers.pop(key, None)
            return offer is None or not any(lease.offer is offer for lease in self._leases.values())

    def prepare(self, key: str, consumer: str) -> Descriptor:
        """Lease a tensor to `consumer` for `ttl_s`.

        Raises:
            TensorGone: The key is not offered (any more).
        """
        now = self._clock()
        self.reap(now)
        with self._lock:
            offer = self._offers.get(key)
            if offer is None:
                raise TensorGone(f"{self.incarnation} does not offer {key!r} (any more)")
            if offer.buffer.freed:
                raise TensorGone(f"{key!r} was freed without being withdrawn")
            offer.buffer.hold()
            lease = _Lease(self._new_id(), offer, consumer, now + self.ttl_s)
            self._leases[lease.lease_id] = lease
        return Descriptor(
            incarnation=self.incarnation,
            segments=offer.buffer.segments,
            lease_id=lease.lease_id,
            ttl_s=self.ttl_s,
            checksum=offer.checksum,
        )

    def buffer_of(self, lease_id: int) -> Buffer:
        """The leased bytes.

        Raises:
            CorruptTransfer: There is no such lease, or its time is over.
        """
        with self._lock:
            return self._running(lease_id).offer.buffer

    def copy_of(self, lease_id: int, start: int, stop: int) -> bytes:
        """A copy of bytes `start` to `stop` of what is leased; what is beyond its end is left out.

        Raises:
            CorruptTransfer: There is no such lease, or its time is over.
        """
        with self._lock:  # as long as it is held the lease does not end, and holds the bytes
            buffer = self._running(lease_id).offer.buffer
            return bytes(read(buffer, start, min(stop, buffer.num_bytes)))

    def num_bytes_of(self, lease_id: int) -> int:
        """Size of what is leased; 0 when there is no such lease (any more)."""
        lease = self._leases.get(lease_id)
        return 0 if lease is None else lease.offer.buffer.num_bytes

    def release(self, lease_id: int, consumed: bool) -> bool:
        """End a lease.

        Args:
            lease_id: Which.
            consumed: Whether the reader has the bytes.

        Returns:
            True if the lease still held. False: its time was over or it was unknown, and what was
            read may be garbage.
        """
        with self._lock:
            lease = self._leases.pop(lease_id, None)
            in_time = lease is not None and self._clock() < lease.ends_at
        if lease is not None:
            self._end(lease, consumed=consumed and in_time)
        return in_time

    def reap(self, now: float | None = None) -> int:
        """End leases whose ttl and grace have passed; returns how many.

        `prepare` does it too, and every server of this table when a lease it gave out is due.
        """
        due_at = (self._clock() if now is None else now) - self.grace_s
        with self._lock:
            due = [lease for lease in self._leases.values() if lease.ends_at <= due_at]
            for lease in due:
                del self._leases[lease.lease_id]
        for lease in due:
            try:
                self._end(lease, consumed=False)
            except Exception:  # of one owner: the memory of the other leases must come back
                log.exception("telling of a lease's end failed", key=lease.offer.key)
        return len(due)

    @property
    def next_due_s(self) -> float | None:
        """Seconds until the oldest lease is to be reaped, not negative; None without leases."""
        with self._lock:
            oldest = next(iter(self._leases.values()), None)
        return None if oldest is None else max(oldest.ends_at + self.grace_s - self._clock(), 0.0)

    @property
    def num_leases(self) -> int:
        """Leases under way, those in their grace included."""
        return len(self._leases)

    @property
    def num_offers(self) -> int:
        """Tensors that can be leased."""
        return len(self._offers)

    def _running(self, lease_id: int) -> _Lease:
        lease = self._leases.get(lease_id)
        if lease is None or self._clock() >= lease.ends_at:
            raise CorruptTransfer(f"lease {lease_id} is over; prepare the tensor again")
        return lease

    def _new_id(self) -> int:
        """Nobody guesses it: whoever knows a lease's id may read what is leased, and end it.

        One of an earlier process at this address means nothing here.
        """
        while True:
            lease_id = secrets.randbits(64)
            if lease_id and lease_id not in self._leases:
                return lease_id

    def _end(self, lease: _Lease, *, consumed: bool) -> None:
        lease.offer.buffer.unhold()
        lease.offer.on_released(lease.offer.key, consumed)
