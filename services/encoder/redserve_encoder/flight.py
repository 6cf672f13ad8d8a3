"""Work on one content: everybody who waits for it, and how far it is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from redserve.errors import InternalError

if TYPE_CHECKING:
    import asyncio

    from redserve_encoder.cache import Embedding
    from redserve_encoder.delivery import Delivery
    from redserve_encoder.pictures import PreparedPicture
    from redserve_encoder.vision import Prepared


@dataclass(slots=True, eq=False)
class Flight:
    """One picture that left the queue and is being prepared or encoded.

    Whoever asks for the same content meanwhile joins it: one encode serves all.

    Attributes:
        content_hash: sha256 of the picture.
        num_rows: Rows that its first delivery reserves.
        deliveries: Who waits for it.
        preparing: The task that prepares its pixels.
        picture: The prepared pixels, or None while they are being prepared.
        embedding: Where it goes in the pool, pinned; None until there is room.
        encode_start_ns: When its batch began, nanoseconds since the Unix epoch; 0 before that.
        encode_end_ns: When its batch was done; 0 before that.
        joined: Deliveries that found the work under way.
    """

    content_hash: bytes
    num_rows: int
    deliveries: list[Delivery]
    preparing: asyncio.Task[None] | None = None
    picture: PreparedPicture | None = None
    embedding: Embedding | None = None
    encode_start_ns: int = 0
    encode_end_ns: int = 0
    joined: set[Delivery] = field(default_factory=set)

    @property
    def pixels(self) -> Prepared:
        """The prepared picture. Raises InternalError before it is there."""
        if self.picture is None:
            raise InternalError(f"{self.content_hash.hex()} is not prepared")
        return self.picture.prepared

    @property
    def actual_rows(self) -> int:
        """Rows that the picture really has. Raises InternalError before it is prepared."""
        return self.pixels.metadata.num_rows

    @property
    def reserved(self) -> Embedding:
        """Its room in the pool. Raises InternalError before it is reserved."""
        if self.embedding is None:
            raise InternalError(f"{self.content_hash.hex()} has no room")
        return self.embedding

    @property
    def destination_idle(self) -> bool:
        """Whether one of the LLM replicas that wait has nothing else to do."""
        return any(delivery.destination_idle for delivery in self.deliveries)

    def join(self, delivery: Delivery) -> None:
        """Wait for it too."""
        self.deliveries.append(delivery)
        self.joined.add(delivery)
