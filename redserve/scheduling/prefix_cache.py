"""Which block holds the KV of which prefix."""

from __future__ import annotations

from typing import TYPE_CHECKING

from redserve.errors import InternalError

if TYPE_CHECKING:
    from redserve.domain.content_chain import ContentChain


class PrefixCache:
    """Maps the digest of a prefix to the block that holds its last `block_size` tokens.

    Holds no block itself: `BlockPool` decides what lives, and `forget` follows it.
    """

    def __init__(self) -> None:
        self._block_of: dict[bytes, int] = {}
        self._digest_of: dict[int, bytes] = {}

    def __len__(self) -> int:
        return len(self._block_of)

    def __contains__(self, digest: bytes) -> bool:
        return digest in self._block_of

    def lookup(self, chain: ContentChain, max_blocks: int) -> list[int]:
        """The cached blocks of the longest cached prefix of at most `max_blocks` blocks."""
        blocks: list[int] = []
        while len(blocks) < max_blocks:
            block = self._block_of.get(chain.digest(len(blocks)))
            if block is None:
                break
            blocks.append(block)
        return blocks

    def insert(self, digest: bytes, block: int) -> bool:
        """Remember that `block` holds the prefix `digest`.

        Returns:
            False if another block holds it already; that one stays, this one is not remembered.

        Raises:
            InternalError: The block is remembered for another prefix, which it cannot hold too.
        """
        if self._digest_of.get(block, digest) != digest:
            raise InternalError(f"block {block} is cached for another prefix")
        if self._block_of.setdefault(digest, block) != block:
            return False
        self._digest_of[block] = digest
        return True

    def forget(self, block: int) -> None:
        """The content of `block` is given up."""
        del self._block_of[self._digest_of.pop(block)]
