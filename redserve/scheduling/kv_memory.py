"""Blocks and prefix cache seen from a sequence: match, attach, grow, commit, free."""

from __future__ import annotations

from typing import TYPE_CHECKING

from redserve.scheduling.block_pool import BlockPool
from redserve.scheduling.prefix_cache import PrefixCache

if TYPE_CHECKING:
    from collections.abc import Iterable

    from redserve.scheduling.sequence import Sequence


class KvMemory:
    """Gives sequences their blocks.

    Args:
        num_blocks: Blocks in the KV cache.
        block_size: Tokens per block.
        prefix_cache: Whether computed prefixes are shared.
        whole_spans: A cached prefix never ends inside a span.
    """

    def __init__(
        self, num_blocks: int, block_size: int, *, prefix_cache: bool, whole_spans: bool
    ) -> None:
        self.pool = BlockPool(num_blocks, block_size, on_evict=self._evicted)
        self._cache = PrefixCache() if prefix_cache else None
        self._whole_spans = whole_spans
        # Who counts on which cached block. Dicts, not sets: their order is the same in every run.
        self._watchers: dict[int, dict[Sequence, None]] = {}
        self._disappointed: dict[Sequence, None] = {}

    def match(self, sequence: Sequence) -> int:
        """Find the cached prefix of a sequence without blocks and let it count on it.

        The blocks are not held: they may be evicted, and then `take_disappointed` tells.

        Returns:
            Tokens of the prefix; at least one known token is always left to compute.
        """
        self.unmatch(sequence)
        if self._cache is None:
            return 0
        size = self.pool.block_size
        blocks = self._cache.lookup(sequence.chain, (sequence.num_tokens - 1) // size)
        if self._whole_spans:
            while blocks:
                segment = sequence.layout.segment_at(len(blocks) * size)
                if segment is None or segment.start == len(blocks) * size:
                    break
                del blocks[segment.start // size :]
        self.pool.touch(blocks)
        sequence.hint = tuple(blocks)
        for block in blocks:
            self._watchers.setdefault(block, {})[sequence] = None
        return len(blocks) * size

    def is_outdated(self, sequence: Sequence) -> bool:
        """Whether `match` could find more or less than it did. Cheap, however long the prefix."""
        if self._cache is None:
            return False
        if sequence in self._disappointed:
            return True
        num_blocks = len(sequence.hint)
        if num_blocks >= (sequence.num_tokens - 1) // self.pool.block_size:
            return False
        return sequence.chain.digest(num_blocks) in self._cache

    def unmatch(self, sequence: Sequence) -> None:
        """Stop counting on cached blocks."""
        for block in sequence.hint:
            watchers = self._watchers.get(block)
            if watchers is not None:
                watchers.pop(sequence, None)
                if not watchers:
                    del self._watchers[block]
        sequence.hint = ()
        self._disappointed.pop(sequence, None)

    def take_disappointed(self) -> tuple[Sequence, ...]:
        """Sequences that lost a block they counted on, once each."""
        lost = tuple(self._disappointed)
        self._disappointed.clear()
        return lost

    def attach(self, sequence: Sequence) -> int:
        """Hold the cached blocks that the sequence counted on as the start of its table.

        Returns:
            Tokens that they hold.
        """
        blocks = sequence.hint
        self.unmatch(sequence)
        self.pool.acquire(blocks)
        sequence.block_table.extend(blocks)
        sequence.num_committed = len(blocks)
        return len(blocks) * self.pool.block_size

    def blocks_missing(self, sequence: Sequence, end: int) -> int:
        """Blocks that positions [0, end) need beyond those of the table."""
        return max(0, self.pool.blocks_for(end) - len(sequence.block_table))

    def blocks_missing_for_hint(self, sequence: Sequence, end: int) -> int:
        """Available blocks that attaching the hint and then growing to `end` would take."""
        idle = sum(1 for block in sequence.hint if self.pool.references(block) == 0)
        return max(0, self.pool.blocks_for(end) - len(sequence.hint)) + idle

    def end_that_fits(self, sequence: Sequence, end: int) -> int:
        """The largest position up to `end` that the table can grow to now."""
        blocks = len(sequence.block_table) + self.pool.num_available
        return min(end, blocks * self.pool.block_size)

    def grow(self, sequence: Sequence, end: int) -> bool:
        """Extend the table to hold positions [0, end).

        Returns:
            False, and nothing has changed, when too few blocks are available.
        """
        missing = self.blocks_missing(sequence, end)
        if missing == 0:
            return True
        blocks = self.pool.allocate(missing)
        if blocks is None:
            return False
        sequence.block_table.extend(blocks)
        return True

    def commit(self, sequence: Sequence) -> None:
        """Offer blocks that have become full of computed tokens to the prefix cache."""
        if self._cache is None:
            return
        num_full = sequence.num_computed // self.pool.block_size
        for n in range(sequence.num_committed, num_full):
            block = sequence.block_table[n]
            if self._cache.insert(sequence.chain.digest(n), block):
                self.pool.keep(block)
        sequence.num_committed = max(sequence.num_committed, num_full)

    def free(self, sequence: Sequence) -> None:
        """Give all blocks of the sequence back, the tail of a cached prefix to go first."""
        self.pool.release(reversed(sequence.block_table))
        sequence.block_table.clear()
        sequence.num_committed = 0

    def check_integrity(self, sequences: Iterable[Sequence]) -> None:
        """Prove that the block tables of these sequences account for every block.

        Raises:
            InternalError: They do not.
        """
        self.pool.check_integrity(sequence.block_table for sequence in sequences)

    def _evicted(self, block: int) -> None:
        assert self._cache is not None  # without it no block is ever kept
        self._cache.forget(block)
        for sequence in self._watchers.pop(block, {}):
            self._disappointed[sequence] = None
