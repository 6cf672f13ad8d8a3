"""The KV-cache blocks of one replica, as ids. Sole owner of which block is free.

free ---allocate---> owned (references >= 1) ---release---> free
                       ^  |
                 acquire  release, if the prefix cache keeps it
                       |  v
                     cached (no reference, content kept) ---evict, oldest first---> owned
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import TYPE_CHECKING

from redserve.errors import InternalError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


class BlockPool:
    """Hands out block ids, counts references, takes them back.

    Args:
        num_blocks: Blocks in the KV cache, ids 0 to num_blocks - 1.
        block_size: Tokens per block.
        on_evict: Called with the id of a kept block when its content is given up.
    """

    def __init__(
        self, num_blocks: int, block_size: int, on_evict: Callable[[int], None] | None = None
    ) -> None:
        self.num_blocks = num_blocks
        self.block_size = block_size
        self._on_evict = on_evict
        self._free = deque(range(num_blocks))
        self._references = [0] * num_blocks
        self._kept: set[int] = set()
        self._cached: OrderedDict[int, None] = OrderedDict()

    @property
    def num_available(self) -> int:
        """Blocks that `allocate` can give: free, or cached without a reference."""
        return len(self._free) + len(self._cached)

    @property
    def num_cached(self) -> int:
        """Blocks without a reference whose content is kept."""
        return len(self._cached)

    def references(self, block: int) -> int:
        """How many sequences hold the block."""
        return self._references[block]

    def blocks_for(self, num_tokens: int) -> int:
        """Blocks that `num_tokens` tokens occupy."""
        return -(-num_tokens // self.block_size)

    def allocate(self, count: int) -> list[int] | None:
        """Hand out `count` blocks, each with one reference; cached ones are evicted oldest first.

        Returns:
            None, and nothing has changed, when fewer are available.
        """
        if count > self.num_available:
            return None
        blocks = []
        for _ in range(count):
            if self._free:
                block = self._free.popleft()
            else:
                block, _ = self._cached.popitem(last=False)
                self._kept.discard(block)
                if self._on_evict is not None:
                    self._on_evict(block)
            self._references[block] = 1
            blocks.append(block)
        return blocks

    def acquire(self, blocks: Iterable[int]) -> None:
        """Add a reference to blocks whose content is kept.

        Raises:
            InternalError: A block is not kept, so its content may be anything.
        """
        for block in blocks:
            if block not in self._kept:
                raise InternalError(f"block {block} is shared, but its content is not kept")
            self._cached.pop(block, None)
            self._references[block] += 1

    def release(self, blocks: Iterable[int]) -> None:
        """Take a reference back; the first block given is the first to be evicted.

        Raises:
            InternalError: Nobody holds a block.
        """
        for block in blocks:
            if self._references[block] == 0:
                raise InternalError(f"block {block} is released, but nobody holds it")
            self._references[block] -= 1
            if self._references[block]:
                continue
            if block in self._kept:
                self._cached[block] = None
            else:
                self._free.append(block)

    def keep(self, block: int) -> None:
        """Keep the content of a held block after its last release, until it is evicted.

        Raises:
            InternalError: Nobody holds the block.
        """
        if self._references[block] == 0:
            raise InternalError(f"block {block} is to be kept, but nobody holds it")
        self._kept.add(block)

    def touch(self, blocks: Iterable[int]) -> None:
        """Make cached blocks the last to be evicted, the first one given the very last."""
        for block in reversed(tuple(blocks)):
            if block in self._cached:
                self._cached.move_to_end(block)

    def check_integrity(self, tables: Iterable[Iterable[int]]) -> None:
        """Prove that every block has exactly one place.

        Args:
            tables: The block tables of all who hold blocks.

        Raises:
            InternalError: A block leaked, is in two places, or is held by the wrong number.
        """
        counted = [0] * self.num_blocks
        for table in tables:
            for block in table:
                counted[block] += 1
        if counted != self._references:
            wrong = [n for n in range(self.num_blocks) if counted[n] != self._references[n]]
            raise InternalError(f"references of blocks {wrong} differ from the block tables")
        idle = [n for n in range(self.num_blocks) if not counted[n]]
        if sorted([*self._free, *self._cached]) != idle:
            raise InternalError("free and cached blocks are not exactly those that nobody holds")
        if not self._kept.issuperset(self._cached) or not self._kept.isdisjoint(self._free):
            raise InternalError("a cached block is not kept, or a free one is")
