"""From a micro-batch to the flat tensors of one forward pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from redserve.modeling.device_slab import DevicePiece
from redserve_llm.attention.step import SequencePart

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from redserve.domain import SequenceKey
    from redserve.scheduling.micro_batch import MicroBatch, ScheduledChunk
    from redserve_llm.runner.interface import ItemRows, RowSource

DTYPES: dict[str, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
"""torch's dtypes of embedding rows, by name."""


@dataclass(frozen=True, slots=True)
class PromptPlan:
    """What a forward pass needs of one sequence besides its chunk.

    Attributes:
        positions: [axes, n] int64 position ids of the n prompt tokens, on the CPU.
        delta: Token m >= n has position m + delta on every axis.
        bidirectional: Spans whose rows see each other in both directions, in prompt order.
    """

    positions: Tensor
    delta: int
    bidirectional: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class InputBatch:
    """One flat batch of T tokens.

    Attributes:
        input_ids: [1, T] int64.
        position_ids: [1, T] int64, or [axes, 1, T] with M-RoPE.
        slots: [T] int64, where K and V go.
        parts: Sequences in the order of their rows.
        rows: [num_layers, m, hidden] for the m image-token positions of the batch, in order; None
            if no embedding row enters.
        logits_to_keep: [k] int64, rows of the batch that sample.
        sampling_keys: Their sequences.
        sampling_ends: Per sampling row, tokens of the sequence before the sampled one.
    """

    input_ids: Tensor
    position_ids: Tensor
    slots: Tensor
    parts: tuple[SequencePart, ...]
    rows: Tensor | None
    logits_to_keep: Tensor
    sampling_keys: tuple[SequenceKey, ...]
    sampling_ends: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class BatchBuilder:
    """Builds input batches for one model.

    Attributes:
        block_size: Slots per block.
        mrope: Whether positions have three axes.
        image_token_id: Id whose positions receive rows.
        token_row: [num_layers, 1, hidden]: what the model itself would put at an image-token
            position without a row; see `_rows`.
        device: Of the model.
        dtype: Of the model.
    """

    block_size: int
    mrope: bool
    image_token_id: int
    token_row: Tensor
    device: torch.device
    dtype: torch.dtype

    def build(
        self, batch: MicroBatch, plans: Mapping[SequenceKey, PromptPlan], rows: RowSource
    ) -> InputBatch:
        """Flatten `batch`; rows are copied, so the arena's may go once this returns."""
        ids: list[int] = []
        slots: list[int] = []
        positions: list[Tensor] = []
        parts: list[SequencePart] = []
        keep: list[int] = []
        for chunk in batch.chunks:
            plan = plans[chunk.key]
            start = len(ids)
            ids += chunk.token_ids
            slots += self._slots(chunk)
            positions.append(_positions(plan, chunk))
            parts.append(_part(plan, chunk, start, len(ids)))
            if chunk.samples:
                keep.append(len(ids) - 1)
        position_ids = torch.cat(positions, dim=1)
        if self.mrope:
            position_ids = position_ids[:, None]
        sampling = [chunk for chunk in batch.chunks if chunk.samples]
        return InputBatch(
            input_ids=torch.tensor([ids]).to(self.device),
            position_ids=position_ids.to(self.device),
            slots=torch.tensor(slots).to(self.device),
            parts=tuple(parts),
            rows=self._rows(batch, rows),
            logits_to_keep=torch.tensor(keep, dtype=torch.int64).to(self.device),
            sampling_keys=tuple(chunk.key for chunk in sampling),
            sampling_ends=tuple(chunk.end for chunk in sampling),
        )

    def _slots(self, chunk: ScheduledChunk) -> list[int]:
        size = self.block_size
        slots: list[int] = []
        position = chunk.start
        while position < chunk.end:
            index, offset = divmod(position, size)
            count = min(size - offset, chunk.end - position)
            first = chunk.block_table[index] * size + offset
            slots += range(first, first + count)
            position += count
        return slots

    def _rows(self, batch: MicroBatch, rows: RowSource) -> Tensor | None:
        """Rows of all image-token positions, in the order of the flat batch.

        A model may generate the image token itself. transformers' merge takes every such id for a
        place that a row fills, so those positions get the row that changes nothing: the token's
        own embedding, and zeros for the deepstack layers.
        """
        if not any(chunk.rows for chunk in batch.chunks):
            return None  # nothing is merged: such tokens are embedded like any other
        try:
            return torch.cat(self._pieces(batch, rows), dim=1)
        finally:
            if self.device.type == "cuda":
                # Rows in memory of the device are still to be copied, or even half of them after
                # an error; a NIC that writes the next ones to their place waits for no stream.
                torch.cuda.current_stream(self.device).synchronize()

    def _pieces(self, batch: MicroBatch, rows: RowSource) -> list[Tensor]:
        pieces: list[Tensor] = []
        for chunk in batch.chunks:
            filled = 0
            for slice_ in chunk.rows:
                pieces += self._own_rows(chunk, filled, slice_.offset)
                item = as_tensor(rows(chunk.key, slice_.item_index))
                pieces.append(
                    item[:, slice_.row_start : slice_.row_end].to(self.device, self.dtype)
                )
                filled = slice_.offset + slice_.row_end - slice_.row_start
            pieces += self._own_rows(chunk, filled, chunk.num_tokens)
        return pieces

    def _own_rows(self, chunk: ScheduledChunk, start: int, end: int) -> list[Tensor]:
        count = chunk.token_ids[start:end].count(self.image_token_id)
        return [self.token_row] * count


def as_tensor(rows: ItemRows) -> Tensor:
    """[num_layers, num_rows, hidden], sharing the arena's memory, the host's or the device's."""
    shape = (rows.num_layers, rows.num_rows, rows.hidden_size)
    data = rows.data
    flat = data.tensor() if isinstance(data, DevicePiece) else torch.from_numpy(data)
    return flat.view(DTYPES[rows.dtype]).view(shape)


def _positions(plan: PromptPlan, chunk: ScheduledChunk) -> Tensor:
    """Position ids of a chunk, [axes, chunk tokens]."""
    num_prompt = plan.positions.shape[1]
    if chunk.end <= num_prompt:
        return plan.positions[:, chunk.start : chunk.end]
    first = max(chunk.start, num_prompt)
    tail = torch.arange(first + plan.delta, chunk.end + plan.delta)
    tail = tail.expand(plan.positions.shape[0], -1)
    if chunk.start >= num_prompt:
        return tail
    return torch.cat((plan.positions[:, chunk.start :], tail), dim=1)


def _part(plan: PromptPlan, chunk: ScheduledChunk, start: int, end: int) -> SequencePart:
    bidirectional = tuple(
        (low, high) for low, high in plan.bidirectional if low >= chunk.start and high <= chunk.end
    )
    return SequencePart(start, end, chunk.end, chunk.block_table, bidirectional)
