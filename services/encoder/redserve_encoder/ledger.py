"""Every delivery that is not gone, by request."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from redserve_encoder.delivery import Delivery, Phase

if TYPE_CHECKING:
    from collections.abc import Collection


class Ledger:
    """Knows whom a cancellation concerns, and when the encoder is idle."""

    def __init__(self) -> None:
        self._by_request: dict[str, dict[Delivery, None]] = {}
        self._size = 0
        self._empty = asyncio.Event()
        self._empty.set()

    def __len__(self) -> int:
        return self._size

    @property
    def num_waiting(self) -> int:
        """Deliveries that are queued, prepared or encoded."""
        return sum(
            delivery.phase is Phase.WAITING
            for deliveries in self._by_request.values()
            for delivery in deliveries
        )

    def open(self, delivery: Delivery) -> None:
        """A delivery has come in."""
        self._by_request.setdefault(delivery.tag.request_id, {})[delivery] = None
        self._size += 1
        self._empty.clear()

    def close(self, delivery: Delivery) -> None:
        """A delivery is gone."""
        request_id = delivery.tag.request_id
        deliveries = self._by_request[request_id]
        del deliveries[delivery]
        if not deliveries:
            del self._by_request[request_id]
        self._size -= 1
        if self._size == 0:
            self._empty.set()

    def of_request(self, request_id: str, item_indices: Collection[int] = ()) -> list[Delivery]:
        """Deliveries of these items of a request; of all its items if none is named."""
        return [
            delivery
            for delivery in self._by_request.get(request_id, {})
            if not item_indices or delivery.tag.item_index in item_indices
        ]

    def all(self) -> list[Delivery]:
        """Every delivery."""
        return [delivery for deliveries in self._by_request.values() for delivery in deliveries]

    async def wait_empty(self) -> None:
        """Return when everything has been handed over or dropped."""
        await self._empty.wait()
