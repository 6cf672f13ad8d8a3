"""What the router knows of its replicas and of a request when it chooses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from redserve.domain.content_chain import ContentChain
from redserve.domain.layout import MediaLayout

if TYPE_CHECKING:
    from redserve.domain.item import Item

PREFIX_STRIDE = 256
"""Prompt tokens per prefix digest: coarser than a block, since the router keeps many of them."""


@dataclass(frozen=True, slots=True)
class EncoderSnapshot:
    """One encoder as last seen.

    Attributes:
        address: Where it listens; also breaks ties.
        serving: Whether it takes work.
        queued_rows: Embedding rows it has been asked for and has not begun.
        in_flight_rows: Rows that it is encoding.
        cached: Hashes of contents lately sent there (the router's own memory, so a guess).
    """

    address: str
    serving: bool = True
    queued_rows: int = 0
    in_flight_rows: int = 0
    cached: frozenset[bytes] = frozenset()

    @property
    def load_rows(self) -> int:
        """Rows to be encoded before a new item."""
        return self.queued_rows + self.in_flight_rows


@dataclass(frozen=True, slots=True)
class LlmSnapshot:
    """One LLM replica as last seen.

    Attributes:
        address: Where it listens; also breaks ties.
        serving: Whether it takes work.
        schedulable_tokens: Tokens that could run there now.
        waiting_tokens: Tokens of requests that hold no KV blocks yet.
        blocks_free: KV blocks that could be handed out.
        blocks_total: KV blocks.
        block_size: Tokens per block.
        num_running: Sequences that hold blocks.
        recent_prefixes: Prefix digests lately sent there (the router's own memory, so a guess).
    """

    address: str
    serving: bool = True
    schedulable_tokens: int = 0
    waiting_tokens: int = 0
    blocks_free: int = 0
    blocks_total: int = 0
    block_size: int = 16
    num_running: int = 0
    recent_prefixes: frozenset[bytes] = frozenset()


@dataclass(frozen=True, slots=True)
class ItemFacts:
    """What the choice of an encoder depends on.

    Attributes:
        index: Position among the items of the request.
        content_hash: Cache key.
        num_rows: Embedding rows, the measure of encoding work.
    """

    index: int
    content_hash: bytes
    num_rows: int


@dataclass(frozen=True, slots=True)
class RequestFacts:
    """What the choice of an LLM replica depends on.

    Attributes:
        num_prompt_tokens: With every placeholder expanded.
        max_tokens: Most tokens to generate.
        prefixes: Digest of the first n * PREFIX_STRIDE tokens for n = 1, 2, ..., media included.
    """

    num_prompt_tokens: int
    max_tokens: int
    prefixes: tuple[bytes, ...] = ()

    @classmethod
    def of(
        cls, token_ids: tuple[int, ...], items: tuple[Item, ...], max_tokens: int
    ) -> RequestFacts:
        """The facts of a prompt."""
        chain = ContentChain(token_ids, MediaLayout(items), PREFIX_STRIDE)
        return cls(
            num_prompt_tokens=len(token_ids),
            max_tokens=max_tokens,
            prefixes=tuple(chain.digest(n) for n in range(len(token_ids) // PREFIX_STRIDE)),
        )
