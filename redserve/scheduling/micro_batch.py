"""What one forward pass computes: the frozen value between scheduler and runner."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from redserve.domain.request import SequenceKey


@dataclass(frozen=True, slots=True)
class RowSlice:
    """Rows [row_start, row_end) of an item go to consecutive positions of a chunk.

    Attributes:
        item_index: Item of the request.
        row_start: First row.
        row_end: One past the last row.
        offset: Position inside the chunk where the first row goes.
    """

    item_index: int
    row_start: int
    row_end: int
    offset: int


@dataclass(frozen=True, slots=True)
class ScheduledChunk:
    """Positions [start, end) of one sequence, to be computed in one pass.

    Attributes:
        key: The sequence.
        start: First position; everything below is computed, or in an earlier batch in flight.
        end: One past the last position.
        token_ids: Tokens of the positions; placeholders where rows go.
        block_table: Blocks of positions [0, end).
        rows: Embedding rows of the chunk, by offset. They stay until the batch is updated.
        samples: Whether the last token of the chunk produces an output token.
        is_decode: Whether the chunk is one output token of the sequence.
    """

    key: SequenceKey
    start: int
    end: int
    token_ids: tuple[int, ...]
    block_table: tuple[int, ...]
    rows: tuple[RowSlice, ...]
    samples: bool
    is_decode: bool

    @property
    def num_tokens(self) -> int:
        """Tokens of the chunk."""
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """Chunks of one forward pass, at most one per sequence, decodes first.

    Attributes:
        batch_id: Counts up; batches are updated in this order.
        chunks: At least one.
    """

    batch_id: int
    chunks: tuple[ScheduledChunk, ...]

    @property
    def num_tokens(self) -> int:
        """Tokens of the pass."""
        return sum(chunk.end - chunk.start for chunk in self.chunks)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a chunk with `samples` produced.

    Attributes:
        token_id: The token chosen.
        finished: Whether it is the last one of the sequence.
    """

    token_id: int
    finished: bool = False
