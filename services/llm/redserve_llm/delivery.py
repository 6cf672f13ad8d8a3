"""One announced embedding on its way into the arena, and the item that it is for."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, cast

from redserve.errors import InvalidArgument
from redserve_llm.runner.interface import ITEM_SIZES, ItemRows

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from redserve.domain import SequenceKey
    from redserve.modeling.device_slab import DevicePiece, DeviceSlab
    from redserve.telemetry.timeline import Bar
    from redserve.transport.base import PeerInfo
    from redserve.transport.pool import Region


@dataclass(frozen=True, slots=True)
class RowShape:
    """What every embedding of a model looks like.

    Attributes:
        num_layers: 1 + number of deepstack layers.
        hidden_size: Columns.
    """

    num_layers: int
    hidden_size: int

    def num_bytes(self, num_rows: int, dtype: str) -> int:
        """Bytes of an embedding of `num_rows` rows."""
        return self.num_layers * num_rows * self.hidden_size * ITEM_SIZES[dtype]

    def check(self, shape: Sequence[int], dtype: str, num_rows: int) -> None:
        """Refuse an embedding that is not what the prompt reserves room for.

        Raises:
            InvalidArgument: Shape or dtype is another.
        """
        if dtype not in ITEM_SIZES:
            raise InvalidArgument(
                f"unknown dtype {dtype!r}; send one of {', '.join(ITEM_SIZES)}", field="dtype"
            )
        wanted = (self.num_layers, num_rows, self.hidden_size)
        if tuple(shape) != wanted:
            raise InvalidArgument(
                f"the prompt reserves {list(wanted)} [layers, rows, columns], got {list(shape)}; "
                "do encoder and LLM replica serve the same checkpoint?",
                field="shape",
            )


@dataclass(frozen=True, slots=True)
class Announcement:
    """An embedding that a producer has.

    Attributes:
        attempt: How often the router has dispatched the item; newer ones count.
        tensor_key: What the producer calls it.
        producer: Who has it.
        shape: [num_layers, rows, hidden_size].
        dtype: Of the elements.
    """

    attempt: int
    tensor_key: str
    producer: PeerInfo
    shape: tuple[int, ...]
    dtype: str

    @property
    def is_question(self) -> bool:
        """Whether it was announced before: the producer asks whether it is still wanted."""
        return not self.producer.incarnation


class State(Enum):
    """Where a delivery stands.

    ANNOUNCED --room--> PULLING --all bytes--> LANDED
        ^                  |
        +---room needed----+      for an item that is needed earlier
    """

    ANNOUNCED = "announced"
    PULLING = "pulling"
    LANDED = "landed"


@dataclass(eq=False, slots=True)
class ItemSlot:
    """One item of a live request: at most one delivery at a time.

    Attributes:
        key: The request.
        index: Position among its items.
        num_rows: Rows that the prompt reserves.
        priority: Lower is needed earlier.
        needed: Whether the engine waits for its rows, or has them and has not used them all.
        last_attempt: Newest attempt that was announced; None before the first.
        delivery: The embedding that is coming or here.
        lost_why: Why the rows that were here were given up, until the router has been told.
    """

    key: SequenceKey
    index: int
    num_rows: int
    priority: tuple[int, int]
    needed: bool
    last_attempt: int | None = None
    delivery: Delivery | None = None
    lost_why: str = ""

    def told_again(self, announcement: Announcement) -> str | None:
        """Why its last attempt is not wanted any more; None while it is in line or under way."""
        delivery = self.delivery
        if delivery is None or delivery.announcement.tensor_key != announcement.tensor_key:
            return f"attempt {announcement.attempt} was announced already"
        return "its rows are here already" if delivery.state is State.LANDED else None


@dataclass(eq=False, slots=True)
class Delivery:
    """One announced embedding.

    Attributes:
        slot: What it is for; `slot.delivery is self` until it is discarded.
        announcement: Where it is.
        num_bytes: Room that it takes.
        state: See there.
        region: Where it lands or has landed; the delivery frees it.
        task: The pull.
        is_put: Whether the engine has been given the rows.
        in_line_ns: Since when it waits for room or for its turn, while it is ANNOUNCED.
    """

    slot: ItemSlot
    announcement: Announcement
    num_bytes: int
    state: State = State.ANNOUNCED
    region: Region | None = None
    task: asyncio.Task[None] | None = None
    is_put: bool = False
    in_line_ns: int = 0

    @property
    def gives_way(self) -> bool:
        """Whether its pull has been cancelled and has not ended yet."""
        return self.task is not None and (
            self.slot.delivery is not self or self.state is State.ANNOUNCED
        )

    def rows(self) -> ItemRows:
        """The rows as they lie in the arena."""
        assert self.region is not None
        num_layers, num_rows, hidden_size = self.announcement.shape
        dtype = self.announcement.dtype
        return ItemRows(_bytes(self.region), num_layers, num_rows, hidden_size, dtype)

    def free(self) -> None:
        """Give the region back, if there is one."""
        if self.region is not None:
            self.region.free()
            self.region = None


class Shelf:
    """The items of one live request.

    Args:
        slots: One per item.
        deadline: When the request is over, in event loop time; None for never.

    Attributes:
        bars: Transfers and waits for room so far.
    """

    __slots__ = ("bars", "deadline", "slots")

    def __init__(self, slots: Sequence[ItemSlot], deadline: float | None) -> None:
        self.slots = tuple(slots)
        self.deadline = deadline
        self.bars: list[Bar] = []

    @property
    def is_complete(self) -> bool:
        """Whether every item that is needed is here."""
        return all(
            slot.delivery is not None and slot.delivery.state is State.LANDED
            for slot in self.slots
            if slot.needed
        )

    @property
    def held(self) -> tuple[Delivery, ...]:
        """What is here and was not given to the engine."""
        return tuple(
            slot.delivery
            for slot in self.slots
            if slot.delivery is not None
            and slot.delivery.state is State.LANDED
            and not slot.delivery.is_put
        )


def _bytes(region: Region) -> NDArray[np.uint8] | DevicePiece:
    slab = region.pool.slab
    if slab.host is not None:
        return region.view
    # There is one kind of device memory, and its module imports torch, which a fake does without.
    return cast("DeviceSlab", slab).piece(region.offset, region.offset + region.num_bytes)
