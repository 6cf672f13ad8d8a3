"""Embeddings in the transport pool: pinned while somebody needs them, then cached.

    try_reserve ─▶ pinned, being written ─commit─▶ pinned ─last unpin─▶ cached ─▶ evicted
                          └─last unpin─▶ freed        ▲────── get ────────┘

The pool is cache and transfer source at once: publishing costs no copy. Only cached embeddings are
evicted, the least recently used first. When all are pinned, `try_reserve` says so and the encoder
waits: the pace is that of the LLM replicas which take them.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from redserve.errors import InternalError, PolicyViolation
from redserve_encoder.dropped import DroppedContents

if TYPE_CHECKING:
    from collections.abc import Callable

    from redserve.transport.pool import Pool, Region


@dataclass(slots=True, eq=False)
class Embedding:
    """The rows of one content.

    Attributes:
        content_hash: sha256 of the picture.
        num_rows: Rows per layer.
        region: [num_layers, num_rows, hidden_size], contiguous; owned by the cache.
        num_pins: Who needs it; changed by the cache only.
        committed: Whether the rows have been written.
    """

    content_hash: bytes
    num_rows: int
    region: Region
    num_pins: int = field(default=1, init=False)
    committed: bool = field(default=False, init=False)


class EmbeddingCache:
    """Owns every region of the pool. Not thread-safe: the event loop owns it."""

    def __init__(
        self,
        pool: Pool,
        on_evicted: Callable[[], None] = lambda: None,
        on_returned: Callable[[], None] = lambda: None,
    ) -> None:
        """Start empty.

        Args:
            pool: Probes take room of it for a moment, nobody else does; who owns this has
                `pages_returned` called when room comes back.
            on_evicted: Called for every eviction.
            on_returned: Called when an embedding is asked for that was evicted to make room; not
                again before it has been evicted again.
        """
        self._pool = pool
        self._on_evicted = on_evicted
        self._on_returned = on_returned
        self._dropped = DroppedContents()
        self._on_room: Callable[[], None] = lambda: None
        self._committed: dict[bytes, Embedding] = {}
        self._evictable: OrderedDict[bytes, Embedding] = OrderedDict()
        self._num_pinned = 0

    @property
    def used_bytes(self) -> int:
        """Bytes of the pool that embeddings occupy, pinned or cached."""
        return self._pool.used_bytes

    @property
    def num_pinned(self) -> int:
        """Embeddings that somebody needs."""
        return self._num_pinned

    def __contains__(self, content_hash: bytes) -> bool:
        return content_hash in self._committed

    def on_room(self, callback: Callable[[], None]) -> None:
        """Call `callback` whenever a reservation that failed may succeed."""
        self._on_room = callback

    def check_fits(self, num_bytes: int) -> None:
        """Refuse what could never be held.

        Raises:
            PolicyViolation: The embedding is larger than the pool.
        """
        if num_bytes > self._pool.num_bytes:
            raise PolicyViolation(
                f"the picture's embedding takes {num_bytes} bytes, more than the encoder's pool of "
                f"{self._pool.num_bytes}: send a smaller picture, or raise spec.encoder.poolSize "
                "(poolBytes)"
            )

    def get(self, content_hash: bytes) -> Embedding | None:
        """The embedding, pinned for the caller, or None if it must be encoded."""
        embedding = self._committed.get(content_hash)
        if embedding is not None:
            self.pin(embedding)
        elif self._dropped.take(content_hash):
            self._on_returned()
        return embedding

    def try_reserve(self, content_hash: bytes, num_rows: int, num_bytes: int) -> Embedding | None:
        """Room for an embedding, pinned for the caller, who writes and commits it.

        Returns:
            None when pinned embeddings or a probe occupy the room; the callback of `on_room` will
            be called.

        Raises:
            PolicyViolation: The embedding is larger than the pool.
        """
        self.check_fits(num_bytes)
        while (region := self._pool.try_alloc(num_bytes)) is None:
            if not self._evictable:
                if self._pool.used_bytes:
                    return None
                region = self._pool.try_alloc(num_bytes)  # the last of it came back just now
                if region is None:
                    raise InternalError(
                        f"an empty pool of {self._pool.num_bytes} bytes has no room for {num_bytes}"
                    )
                break
            self._dropped.add(self._evict_oldest())
        self._num_pinned += 1
        return Embedding(content_hash, num_rows, region)

    def commit(self, embedding: Embedding) -> None:
        """The rows are written: from now on others may get it."""
        if self._committed.get(embedding.content_hash) is not None:
            raise InternalError(f"{embedding.content_hash.hex()} was encoded twice at once")
        embedding.committed = True
        self._committed[embedding.content_hash] = embedding

    def pin(self, embedding: Embedding) -> None:
        """Keep it for one more user."""
        if embedding.num_pins == 0:
            if self._evictable.pop(embedding.content_hash, None) is None:
                raise InternalError(f"{embedding.content_hash.hex()} was pinned after eviction")
            self._num_pinned += 1
        embedding.num_pins += 1

    def unpin(self, embedding: Embedding) -> None:
        """One user is done with it."""
        if embedding.num_pins <= 0:
            raise InternalError(f"{embedding.content_hash.hex()} was unpinned too often")
        embedding.num_pins -= 1
        if embedding.num_pins > 0:
            return
        self._num_pinned -= 1
        if embedding.committed:
            self._evictable[embedding.content_hash] = embedding
        else:
            embedding.region.free()
        self._on_room()

    def pages_returned(self) -> None:
        """Pages of an evicted embedding, or of a probe, have become free."""
        self._on_room()

    def clear(self) -> None:
        """Evict everything that nobody needs."""
        while self._evictable:
            self._evict_oldest()

    def check_integrity(self) -> None:
        """Prove that the books agree with the pool.

        Raises:
            InternalError: They do not.
        """
        pinned = [e for e in self._committed.values() if e.num_pins > 0]
        cached = [e for e in self._committed.values() if e.num_pins == 0]
        if set(cached) != set(self._evictable.values()):
            raise InternalError("cached and evictable embeddings differ")
        if len(pinned) > self._num_pinned:
            raise InternalError(f"{len(pinned)} embeddings are pinned, {self._num_pinned} counted")
        leaked = self._pool.used_bytes - self._pool.quarantined_bytes
        if self._num_pinned == 0 and not cached and leaked != 0:
            raise InternalError(f"nothing is held, but {leaked} bytes are in use")

    def _evict_oldest(self) -> bytes:
        content_hash, embedding = self._evictable.popitem(last=False)
        del self._committed[content_hash]
        embedding.region.free()
        self._on_evicted()
        return content_hash
