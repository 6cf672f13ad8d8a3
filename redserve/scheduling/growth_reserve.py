"""How many blocks the running sequences will still ask for.

Admission leaves these blocks alone. What is left of a prompt is certain and counts in full; the
outputs are not, so a ratio of what `max_tokens` allows counts. The ratio sinks while it goes well
and rises with every preemption (the adaptive ratio of SGLang and gLLM).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from redserve.scheduling.sequence import Sequence

_LOWEST_SHARE = 0.25
_FALL_PER_UPDATE = 0.001
_RISE_PER_PREEMPTION = 0.1


class GrowthReserve:
    """Blocks to keep for growth.

    Args:
        ratio: Share of the outputs still allowed that is expected at first; 0 expects none.
        prompts: Whether the rest of running prompts is reserved as well.
        block_size: Tokens per block.
    """

    def __init__(self, ratio: float, *, prompts: bool, block_size: int) -> None:
        self._ratio = ratio
        self._lowest = ratio * _LOWEST_SHARE
        self._adaptive = ratio > 0
        self._prompts = prompts
        self._block_size = block_size

    @property
    def ratio(self) -> float:
        """Share of the outputs still allowed that is expected now."""
        return self._ratio

    def stepped(self) -> None:
        """A micro-batch was computed."""
        self._ratio = max(self._lowest, self._ratio - _FALL_PER_UPDATE)

    def preempted(self) -> None:
        """A sequence lost its blocks: less was expected than came."""
        if self._adaptive:
            self._ratio = min(1.0, self._ratio + _RISE_PER_PREEMPTION)

    def end_of(self, sequence: Sequence) -> int:
        """The position that the sequence is expected to grow to."""
        known = sequence.num_tokens if self._prompts else sequence.next_start
        return known + int(self._ratio * max(0, sequence.num_outputs_left - 1))

    def num_blocks(self, running: Iterable[Sequence]) -> int:
        """Blocks that these sequences will take beyond those they hold."""
        size = self._block_size
        return sum(
            max(0, -(-self.end_of(sequence) // size) - len(sequence.block_table))
            for sequence in running
        )
