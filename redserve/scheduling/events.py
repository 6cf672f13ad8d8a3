"""What the scheduler tells its driver besides the micro-batches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from redserve.domain.request import SequenceKey


@dataclass(frozen=True, slots=True)
class RowsReleased:
    """Rows of an item below `row_end` are not needed any more: the arena may reuse them."""

    key: SequenceKey
    item_index: int
    row_end: int


@dataclass(frozen=True, slots=True)
class ItemsNeeded:
    """Items must be delivered (again), from row 0 on.

    Whatever the arena still has of them is of no use, and what an earlier delivery still sends is
    late: a new delivery begins, which `put_rows` counts from zero.
    """

    key: SequenceKey
    item_indices: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Preempted:
    """The sequence gave its blocks up and will be computed again; its outputs stay."""

    key: SequenceKey


@dataclass(frozen=True, slots=True)
class Resumed:
    """A preempted sequence runs again, from position `num_cached_tokens` on."""

    key: SequenceKey
    num_cached_tokens: int


@dataclass(frozen=True, slots=True)
class Finished:
    """The sequence is gone: none of its blocks or rows is in flight or held any more.

    Attributes:
        key: The sequence; its rows in the arena are free, deliveries for it are late.
        num_output_tokens: Outputs, resumed ones included.
        num_cached_tokens: Prompt tokens that the prefix cache had at first admission.
        num_preemptions: How often it was preempted.
        aborted: Whether `abort` ended it.
    """

    key: SequenceKey
    num_output_tokens: int
    num_cached_tokens: int
    num_preemptions: int
    aborted: bool


Event = RowsReleased | ItemsNeeded | Preempted | Resumed | Finished
