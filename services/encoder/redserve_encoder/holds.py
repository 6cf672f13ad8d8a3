"""Keeping the bytes that were announced until the LLM replica has them.

    open ─▶ offered under a key of its own ──┬─ Release(consumed) ─┐
                                             ├─ deadline passed ───┤
                                             ├─ wanted no more ────┼─▶ withdrawn, unpinned
                                             └─ close ─────────────┘

A key names one delivery of one content and is never used again: an LLM replica that asks for a
withdrawn one gets TENSOR_GONE, not somebody else's rows. Leases that are under way keep the memory
by themselves (`redserve.transport.lease_table`). What is wanted no more: `still_wanted`.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from redserve.telemetry.log import get_logger
from redserve_encoder.delivery import Phase
from redserve_encoder.still_wanted import Turn

if TYPE_CHECKING:
    from collections.abc import Callable

    from redserve.transport.lease_table import LeaseTable
    from redserve_encoder.cache import Embedding, EmbeddingCache
    from redserve_encoder.delivery import Delivery

log = get_logger()

_LONGEST_TIMER_S = 30 * 24 * 3600.0


@dataclass(slots=True, eq=False)
class Hold:
    """One announced embedding.

    Attributes:
        key: What it is offered as.
        delivery: For whom.
        embedding: Pinned.
        timer: Ends it at its deadline.
        turn: When its LLM replica is asked for it.
    """

    key: str
    delivery: Delivery
    embedding: Embedding
    timer: asyncio.TimerHandle
    turn: Turn

    @property
    def log_ids(self) -> dict[str, str | int]:
        """Fields of a log line about it."""
        delivery = self.delivery
        return {
            **delivery.origin.log_ids,
            "item_index": delivery.tag.item_index,
            "destination": delivery.destination,
        }


class Holds:
    """Pins embeddings for deliveries. The event loop owns it."""

    def __init__(
        self,
        lease_table: LeaseTable,
        cache: EmbeddingCache,
        on_ended: Callable[[Delivery], None],
    ) -> None:
        """Start empty.

        Args:
            lease_table: Gives out leases on what is held.
            cache: Owns the embeddings.
            on_ended: Called when a hold has ended, except by `close`.
        """
        self._leases = lease_table
        self._cache = cache
        self._on_ended = on_ended
        self._holds: dict[Delivery, Hold] = {}
        self._by_key: dict[str, Hold] = {}
        self._numbers = itertools.count(1)

    def __len__(self) -> int:
        return len(self._holds)

    def __contains__(self, delivery: Delivery) -> bool:
        return delivery in self._holds

    def open(self, delivery: Delivery, embedding: Embedding) -> str:
        """Offer an embedding for a delivery; takes over one pin of the caller.

        Returns:
            The key by which the LLM replica can prepare it.
        """
        tag = delivery.tag
        key = (
            f"{delivery.content_hash.hex()[:16]}/{tag.request_id}/{tag.generation}"
            f"/{tag.item_index}/{tag.attempt}/{next(self._numbers)}"
        )
        loop = asyncio.get_running_loop()

        def released(key: str, consumed: bool) -> None:
            # Leases may end in any thread.
            loop.call_soon_threadsafe(self._released, key, consumed)

        now_s = time.monotonic()
        remaining_s = min(max(delivery.deadline_s - now_s, 0.0), _LONGEST_TIMER_S)
        timer = loop.call_later(remaining_s, self._expired, delivery)
        hold = Hold(key, delivery, embedding, timer, Turn(now_s))
        self._leases.offer(key, embedding.region, released)
        self._holds[delivery] = self._by_key[key] = hold
        return key

    def close(self, delivery: Delivery) -> None:
        """End the hold of a delivery, if there is one."""
        hold = self._holds.pop(delivery, None)
        if hold is None:
            return
        del self._by_key[hold.key]
        hold.timer.cancel()
        self._leases.withdraw(hold.key)
        self._cache.unpin(hold.embedding)

    def settled(self) -> list[Hold]:
        """Those whose LLM replica was told and said that it would fetch."""
        return [hold for hold in self._holds.values() if hold.delivery.phase is Phase.HELD]

    def end(self, delivery: Delivery) -> bool:
        """End a hold that nobody needs any more, and say so; False if there is none (any more)."""
        if delivery not in self._holds:
            return False
        self.close(delivery)
        self._on_ended(delivery)
        return True

    def _released(self, key: str, consumed: bool) -> None:
        # The pages of an evicted embedding return with the last lease on it.
        self._cache.pages_returned()
        hold = self._by_key.get(key)
        if hold is None or not consumed:
            return
        self.end(hold.delivery)

    def _expired(self, delivery: Delivery) -> None:
        hold = self._holds[delivery]
        log.info("nobody fetched an embedding before its deadline", **hold.log_ids)
        self.end(delivery)
