"""What one forward pass tells its attention calls.

transformers runs embeddings, norms, projections, rotary positions, MLPs and head on one flat
batch [1, T] of tokens and knows nothing of sequences. Only attention does, through an
`AttentionStep`. It travels in a context variable: every engine runs its forward passes in a
thread (and so in a context) of its own, and two engines in one process never see each other's.
"""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from redserve.errors import InternalError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from redserve_llm.runner.kv_cache import KVCache


@dataclass(slots=True)
class SequencePart:
    """One sequence's share of a flat batch: rows [row_start, row_end) of it.

    Attributes:
        row_start: First row in the flat batch.
        row_end: One past the last row.
        num_context: Tokens in the cache after this step wrote its own, so the rows are positions
            [num_context - num_rows, num_context).
        block_table: Blocks of positions [0, num_context).
        bidirectional: Position ranges inside the rows whose tokens see each other in both
            directions (images of Gemma 3); each lies in the rows as a whole.
        masks, indices: Masks and block indices made so far; a backend keeps here what all layers
            share.
    """

    row_start: int
    row_end: int
    num_context: int
    block_table: tuple[int, ...]
    bidirectional: tuple[tuple[int, int], ...] = ()
    masks: dict[tuple[int | None, int], Tensor | None] = field(default_factory=dict)
    indices: dict[int, Tensor | slice] = field(default_factory=dict)

    @property
    def num_rows(self) -> int:
        """Rows in the flat batch."""
        return self.row_end - self.row_start

    @property
    def position_start(self) -> int:
        """Position of the first row in its sequence."""
        return self.num_context - self.num_rows


class AttentionBackend(Protocol):
    """Computes attention of all rows of a step in one layer."""

    def __call__(
        self,
        query: Tensor,
        key_blocks: Tensor,
        value_blocks: Tensor,
        step: AttentionStep,
        *,
        scaling: float | None,
        sliding_window: int | None,
        softcap: float | None,
    ) -> Tensor:
        """Attend.

        Args:
            query: [heads, T, head_dim].
            key_blocks: [num_blocks, block_size, kv_heads, head_dim], this step's keys included.
            value_blocks: [num_blocks, block_size, kv_heads, value_dim].
            step: Which rows belong to which sequence.
            scaling: Factor on the scores; None is head_dim ** -0.5.
            sliding_window: Tokens that a row sees, itself included; None for all.
            softcap: c of c * tanh(score / c); None for none.

        Returns:
            [T, heads, value_dim].
        """
        ...


@dataclass(slots=True)
class AttentionStep:
    """One forward pass.

    Attributes:
        cache: Keys and values of all layers.
        slots: [T] int64 on the cache's device: block * block_size + offset of each row's K and V.
        parts: Sequences in the order of their rows; together they cover all T rows.
        backend: Who computes.
    """

    cache: KVCache
    slots: Tensor
    parts: tuple[SequencePart, ...]
    backend: AttentionBackend


_STEP: ContextVar[AttentionStep] = ContextVar("redserve_attention_step")


@contextmanager
def attention_step(step: AttentionStep) -> Iterator[None]:
    """Make `step` the one that attention calls of this thread see."""
    token = _STEP.set(step)
    try:
        yield
    finally:
        _STEP.reset(token)


def current_step() -> AttentionStep:
    """The step of the forward pass that is running.

    Raises:
        InternalError: The model was called outside `attention_step`.
    """
    try:
        return _STEP.get()
    except LookupError:
        raise InternalError("paged attention was called outside a forward pass") from None
