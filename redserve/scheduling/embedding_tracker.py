"""Which embedding rows of one sequence are here, hence how far its prompt may be prefilled.

Per item, rows are delivered from the first on and used in the same order:

    row      0          released        arrived        num_rows
             |  released   |    held      |   missing     |

Rows are released when the chunk that used them has been computed, so an embedding lives on the
LLM side from its arrival to its use only (RServe, section on schedulable tokens).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from redserve.errors import InvalidArgument

if TYPE_CHECKING:
    from redserve.domain.layout import MediaLayout


class EmbeddingTracker:
    """Readiness of the items of one sequence.

    Args:
        layout: Where the items lie in the prompt.
        num_tokens: Length of the prompt.
        whole_spans: A span counts as ready only when all of its rows are here.
    """

    __slots__ = (
        "_arrived",
        "_asked",
        "_covered",
        "_frontier",
        "_layout",
        "_num_tokens",
        "_ready",
        "_released",
        "_whole_spans",
    )

    def __init__(self, layout: MediaLayout, num_tokens: int, *, whole_spans: bool = False) -> None:
        self._layout = layout
        self._num_tokens = num_tokens
        self._whole_spans = whole_spans
        self._arrived = [0] * len(layout.items)
        self._released = [0] * len(layout.items)
        self._asked = [False] * len(layout.items)
        self._covered = 0
        self._frontier = 0  # first segment that is not ready as a whole
        self._ready = 0
        self._advance()

    @property
    def covered(self) -> int:
        """Positions below need no embeddings: computed, or promised by the prefix cache."""
        return self._covered

    @property
    def num_held(self) -> int:
        """Rows here and not released, over all items."""
        return sum(
            max(0, arrived - released)
            for arrived, released in zip(self._arrived, self._released, strict=True)
        )

    def held(self, item_index: int) -> int:
        """Rows of one item that are here and not released."""
        return max(0, self._arrived[item_index] - self._released[item_index])

    def arrived(self, item_index: int) -> int:
        """Rows of the current delivery of an item that have come; 0 for an item unknown."""
        return self._arrived[item_index] if 0 <= item_index < len(self._arrived) else 0

    def released(self, item_index: int) -> int:
        """Rows of one item, from the first, that are not needed any more."""
        return self._released[item_index]

    def ready_prefix(self) -> int:
        """The largest p such that every position below p is text, covered, or has its row."""
        return self._ready

    def missing_items(self) -> tuple[int, ...]:
        """Items that were asked for and are not here to the last row they are needed for."""
        return tuple(
            item.index
            for item in self._layout.items
            if self._asked[item.index]
            and max(self._arrived[item.index], self._released[item.index]) < item.num_rows
        )

    def put(self, item_index: int, num_rows: int) -> bool:
        """Record that rows [0, num_rows) of the current delivery of an item are here.

        Returns:
            False if the rows are of no use: never asked for, or all of them used already. The
            caller then drops them. A delivery told twice is True and changes nothing.

        Raises:
            InvalidArgument: There is no such item, or it has fewer rows.
        """
        if not 0 <= item_index < len(self._arrived):
            raise InvalidArgument(
                f"there is no item {item_index}, the request has {len(self._arrived)}",
                field="item_index",
            )
        limit = self._layout.items[item_index].num_rows
        if not 0 < num_rows <= limit:
            raise InvalidArgument(
                f"item {item_index} has {limit} rows, so 1 to {limit} can be here, not {num_rows}",
                field="num_rows",
            )
        if not self._asked[item_index] or self._released[item_index] == limit:
            return False
        if num_rows > self._arrived[item_index]:
            self._arrived[item_index] = num_rows
            self._advance()
        return True

    def drop(self, item_index: int) -> bool:
        """Forget the rows of an item that are here; the item must be delivered again.

        Returns:
            False if none is here.
        """
        if not 0 <= item_index < len(self._arrived) or self.held(item_index) == 0:
            return False
        self._arrived[item_index] = 0
        self._restart()
        return True

    def cover(self, position: int) -> tuple[int, ...]:
        """Set how far the prompt needs no embeddings; may rise or fall.

        Returns:
            Items to be delivered from row 0 on: those asked for the first time, and those with
            released rows that are not covered any more. The rest of the rows of the latter is
            forgotten: a delivery always starts at row 0.
        """
        self._covered = position
        needed = []
        for item in self._layout.items:
            index = item.index
            num_covered = self._layout.rows_before(index, position)
            if num_covered == item.num_rows:
                continue
            if self._released[index] > num_covered:
                self._arrived[index] = self._released[index] = 0
            elif self._asked[index]:
                continue
            self._asked[index] = True
            needed.append(index)
        self._restart()
        return tuple(needed)

    def shed(self) -> list[tuple[int, int]]:
        """Release the rows of items that are covered as a whole: they will not be used.

        Else they could fill the arena while their sequence waits for rows behind them. Should the
        cover fall again, `cover` asks for the items again.

        Returns:
            (item, row_end) where rows below `row_end` were held until now.
        """
        freed = []
        for item in self._layout.items:
            if item.end > self._covered:
                continue
            if self.held(item.index):
                freed.append((item.index, self._arrived[item.index]))
            self._released[item.index] = item.num_rows
        return freed

    def use(self, start: int, end: int) -> list[tuple[int, int]]:
        """Record that positions below `end` are computed, those in [start, end) just now.

        Returns:
            (item, row_end) where rows below `row_end` were held until now.
        """
        freed = []
        for segment in self._layout.overlapping(start, end):
            index = segment.item_index
            row_end = segment.rows_below(end)
            if row_end <= self._released[index]:
                continue
            if self._arrived[index] > self._released[index]:
                freed.append((index, min(row_end, self._arrived[index])))
            self._released[index] = row_end
        if end > self._covered:
            self._covered = end
            self._advance()
        return freed

    def _restart(self) -> None:
        self._frontier = 0
        self._advance()

    def _advance(self) -> None:
        segments = self._layout.segments
        while self._frontier < len(segments):
            segment = segments[self._frontier]
            if segment.end > self._covered and self._arrived[segment.item_index] < segment.row_end:
                num_here = max(0, self._arrived[segment.item_index] - segment.row_start)
                here = segment.start + (0 if self._whole_spans else num_here)
                self._ready = max(here, self._covered)
                return
            self._frontier += 1
        self._ready = self._num_tokens
