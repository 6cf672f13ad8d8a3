"""A model without weights: the whole service runs on it, on any machine, in milliseconds.

Its next token is a digest of everything that should decide it: the tokens so far, and every byte
of the embedding rows. So a service that loses, swaps or overwrites a row, or computes a position
twice, gives another answer, just as with a real model.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TYPE_CHECKING

import numpy as np

from redserve.domain import SamplingParams
from redserve.errors import InternalError
from redserve_llm.delivery import RowShape
from redserve_llm.model import Model, ModelInfo
from redserve_llm.runner.interface import ITEM_SIZES, ItemRows, SampledToken

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from redserve.domain import SequenceKey, SequenceRequest
    from redserve.scheduling import MicroBatch, ScheduledChunk
    from redserve_llm.detokenizer import Vocabulary
    from redserve_llm.runner.interface import RowSource

_NO_ROW = b""


@dataclass
class FakeRunner:
    """A `ModelRunner` whose "KV cache" holds a digest per block and offset.

    Attributes:
        num_blocks: Blocks.
        block_size: Slots per block.
        first_token: Tokens that it makes are `first_token` up to `first_token + num_tokens - 1`.
        num_tokens: How many different ones.
        before_step: Called in the engine's thread before each step: to wait, or to raise.
        num_steps: Steps run.
    """

    num_blocks: int
    block_size: int
    first_token: int = 32
    num_tokens: int = 64
    before_step: Callable[[MicroBatch], None] | None = None
    num_steps: int = 0
    _slots: dict[int, bytes] = field(default_factory=dict)
    _known: set[SequenceKey] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, request: SequenceRequest) -> None:
        """See `ModelRunner`."""
        with self._lock:
            self._known.add(request.key)

    def remove(self, key: SequenceKey) -> None:
        """See `ModelRunner`."""
        with self._lock:
            self._known.discard(key)

    @property
    def num_known(self) -> int:
        """Sequences added and not removed."""
        return len(self._known)

    def run(self, batch: MicroBatch, rows: RowSource) -> Mapping[SequenceKey, SampledToken]:
        """See `ModelRunner`."""
        if self.before_step is not None:
            self.before_step(batch)
        self.num_steps += 1
        sampled = {}
        for chunk in batch.chunks:
            if chunk.key not in self._known:
                raise InternalError(f"{chunk.key} was never added, or is gone")
            state = self._compute(chunk, rows)
            if chunk.samples:
                token = self.first_token + int.from_bytes(state[:4], "little") % self.num_tokens
                sampled[chunk.key] = SampledToken(token)
        return sampled

    def warm_up(self) -> None:
        """See `ModelRunner`."""

    def _compute(self, chunk: ScheduledChunk, rows: RowSource) -> bytes:
        """The digest after the chunk's last token; reads and writes the blocks of the table."""
        taken = [_NO_ROW] * chunk.num_tokens
        for slice_ in chunk.rows:
            item = rows(chunk.key, slice_.item_index)
            for row in range(slice_.row_start, slice_.row_end):
                taken[slice_.offset + row - slice_.row_start] = row_bytes(item, row)
        state = self._slots[self._slot(chunk, chunk.start - 1)] if chunk.start else b""
        for offset, token_id in enumerate(chunk.token_ids):
            state = absorb(state, token_id, taken[offset])
            self._slots[self._slot(chunk, chunk.start + offset)] = state
        return state

    def _slot(self, chunk: ScheduledChunk, position: int) -> int:
        index, offset = divmod(position, self.block_size)
        return chunk.block_table[index] * self.block_size + offset


def row_bytes(rows: ItemRows, row: int) -> bytes:
    """One row of every layer."""
    row_size = rows.hidden_size * ITEM_SIZES[rows.dtype]
    layers = np.asarray(rows.data).reshape(rows.num_layers, rows.num_rows, row_size)
    return layers[:, row].tobytes()


def absorb(state: bytes, token_id: int, row: bytes) -> bytes:
    """The state after one more position; a row counts instead of its placeholder."""
    digest = blake2b(state, digest_size=16)
    digest.update(b"row" + row if row else b"token" + token_id.to_bytes(8, "little"))
    return digest.digest()


def fake_answer(
    request: SequenceRequest,
    rows: Sequence[ItemRows],
    num_outputs: int,
    first_token: int = 32,
    num_tokens: int = 64,
) -> list[int]:
    """What a `FakeRunner` should make of a request whose items have these rows."""
    placed: dict[int, bytes] = {}
    for item in request.items:
        positions = [p for span in item.spans for p in range(span.start, span.end)]
        for row, position in enumerate(positions):
            placed[position] = row_bytes(rows[item.index], row)
    state = b""
    for position, token_id in enumerate(request.token_ids):
        state = absorb(state, token_id, placed.get(position, _NO_ROW))
    outputs: list[int] = []
    while len(outputs) < num_outputs:
        outputs.append(first_token + int.from_bytes(state[:4], "little") % num_tokens)
        state = absorb(state, outputs[-1], _NO_ROW)
    return outputs


def fake_model(
    vocabulary: Vocabulary,
    *,
    num_blocks: int = 64,
    block_size: int = 4,
    max_model_length: int = 200,
    shape: RowShape | None = None,
    atomic_items: bool = False,
) -> Model:
    """A model that answers at once; its rows are float32."""
    info = ModelInfo(
        fingerprint="fake",
        family="fake",
        shape=shape or RowShape(1, 8),
        dtype="float32",
        num_blocks=num_blocks,
        block_size=block_size,
        max_model_length=min(max_model_length, num_blocks * block_size),
        end_token_ids=(2,),
        sampling=SamplingParams(max_tokens=max_model_length),
        atomic_items=atomic_items,
    )
    runner = FakeRunner(num_blocks, block_size)
    return Model(info, runner, vocabulary, (1e-4, 1e-6, 0.0, 1e-6, 0.0))
