"""Where a prefill chunk ends, and whether it is worth its step."""

from __future__ import annotations

from typing import TYPE_CHECKING

from redserve.scheduling.micro_batch import RowSlice, ScheduledChunk

if TYPE_CHECKING:
    from redserve.scheduling.config import SchedulerConfig
    from redserve.scheduling.sequence import Sequence


class ChunkRule:
    """Cuts prompts into chunks.

    Args:
        config: Gives `atomic_items`, `min_chunk` and `max_held_back`.
    """

    def __init__(self, config: SchedulerConfig) -> None:
        self._atomic = config.atomic_items
        self._min_chunk = config.min_chunk
        self._max_held_back = config.max_held_back

    def end(self, sequence: Sequence, start: int, max_tokens: int) -> int:
        """The end of the longest chunk from `start` that is ready and allowed; may be `start`."""
        end = min(start + max_tokens, sequence.ready_end)
        if self._atomic and end > start:
            segment = sequence.layout.segment_at(end)
            if segment is not None and segment.start < end:
                end = segment.start
        return max(end, start)

    def smallest_end(self, sequence: Sequence, start: int) -> int:
        """The end of the shortest chunk from `start` that is allowed."""
        segment = sequence.layout.segment_at(start) if self._atomic else None
        return start + 1 if segment is None else segment.end

    def is_overdue(self, sequence: Sequence) -> bool:
        """Whether the sequence was passed over so often that it goes first now."""
        return sequence.num_held_back >= self._max_held_back

    def is_worth_a_step(self, sequence: Sequence, num_tokens: int, budget: int) -> bool:
        """Whether a chunk may cost the decodes beside it their time (*ours*).

        Overlap makes many small chunks, and every one of them stretches a step that decodes wait
        for. So while items are still being encoded a chunk must bring `min_chunk` tokens; once
        all is here, what is left is taken as it comes.
        """
        return (
            num_tokens >= min(self._min_chunk, budget)
            or not sequence.is_encoding
            or self.is_overdue(sequence)
        )


def make_chunk(sequence: Sequence, end: int) -> ScheduledChunk:
    """The frozen form of positions [next_start, end) of a sequence."""
    start = sequence.next_start
    num_tokens = sequence.num_tokens
    rows = tuple(
        RowSlice(
            segment.item_index,
            segment.rows_below(start),
            segment.rows_below(end),
            max(segment.start - start, 0),
        )
        for segment in sequence.layout.overlapping(start, end)
    )
    return ScheduledChunk(
        key=sequence.key,
        start=start,
        end=end,
        token_ids=tuple(sequence.token_ids[start:end]),
        block_table=tuple(sequence.block_table),
        rows=rows,
        samples=end == num_tokens,
        is_decode=num_tokens - start == 1 and sequence.num_outputs > 0,
    )
