"""Backend: gather a sequence's blocks, then torch's scaled_dot_product_attention.

Runs on any device that torch does. On a CPU it is the fastest of the ways tried: gathering whole
blocks beats gathering slots, and one call per sequence beats one padded call for all. There is
never a mask over more than one sequence: a step needs O(rows of one tile x its context) bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from torch import Tensor

    from redserve_llm.attention.step import AttentionStep, SequencePart

MAX_MASK_ELEMENTS = 1 << 22
"""Rows are tiled so that one mask has at most so many elements (one byte each)."""


def attend(
    query: Tensor,
    key_blocks: Tensor,
    value_blocks: Tensor,
    step: AttentionStep,
    *,
    scaling: float | None,
    sliding_window: int | None,
    softcap: float | None,
) -> Tensor:
    """See `AttentionBackend`."""
    num_heads, num_rows, _ = query.shape
    out = query.new_empty(num_rows, num_heads, value_blocks.shape[-1])
    for part in step.parts:
        first = _first_position(part.position_start, sliding_window, key_blocks.shape[1])
        keys = _gather(key_blocks, part, first)
        values = _gather(value_blocks, part, first)
        if part.num_rows == 1:
            rows = query[:, part.row_start]
            out[part.row_start] = _attend_one(
                rows, keys, values, part, first, scaling, sliding_window, softcap
            )
            continue
        for start, end in _tiles(part):
            rows = query[:, start:end]
            mask = _mask(part, start, end, first, sliding_window, query.device)
            out[start:end] = _attend_tile(rows, keys, values, mask, scaling, softcap)
    return out


def _first_position(position_start: int, window: int | None, block_size: int) -> int:
    """First position of the first block that any row sees."""
    if window is None:
        return 0
    return max(0, position_start - window + 1) // block_size * block_size


def _gather(blocks: Tensor, part: SequencePart, first: int) -> Tensor:
    """Keys or values of positions [first, num_context) as [heads, n, dim]; a view if it can be."""
    index = part.indices.get(first)
    if index is None:
        index = _block_index(part.block_table[first // blocks.shape[1] :], blocks.device)
        part.indices[first] = index
    chosen = blocks[index] if isinstance(index, slice) else blocks.index_select(0, index)
    flat = chosen.reshape(-1, *blocks.shape[2:])
    return flat[: part.num_context - first].transpose(0, 1)


def _block_index(table: tuple[int, ...], device: torch.device) -> Tensor | slice:
    """A slice where the blocks lie side by side, as those of a prompt often do: no copy then."""
    run = range(table[0], table[0] + len(table))
    if table == tuple(run):
        return slice(run.start, run.stop)
    return torch.tensor(table, device=device)


def _tiles(part: SequencePart) -> list[tuple[int, int]]:
    """Row ranges of the flat batch, each with a mask of bounded size."""
    size = max(1, MAX_MASK_ELEMENTS // part.num_context)
    return [
        (start, min(start + size, part.row_end))
        for start in range(part.row_start, part.row_end, size)
    ]


def _mask(
    part: SequencePart,
    start: int,
    end: int,
    first: int,
    window: int | None,
    device: torch.device,
) -> Tensor | None:
    """Which of the positions [first, num_context) rows [start, end) see; None is plain causal.

    Made once per step and window when all rows are one tile, else anew for every layer: the time
    is small beside the attention itself, the memory would not be.
    """
    single = (start, end) == (part.row_start, part.row_end)
    cached = (window, start)
    if single and cached in part.masks:
        return part.masks[cached]
    mask = _make_mask(part, start, end, first, window, device)
    if single:
        part.masks[cached] = mask
    return mask


def _make_mask(
    part: SequencePart,
    start: int,
    end: int,
    first: int,
    window: int | None,
    device: torch.device,
) -> Tensor | None:
    shift = part.position_start - part.row_start
    whole = end - start == part.num_context
    if whole and not part.bidirectional and (window is None or part.num_context <= window):
        return None
    rows = torch.arange(start + shift, end + shift, device=device)[:, None]
    columns = torch.arange(first, part.num_context, device=device)[None]
    mask = columns <= rows
    for low, high in part.bidirectional:
        top, bottom = max(low, start + shift), min(high, end + shift)
        if top < bottom:
            mask[
                top - start - shift : bottom - start - shift, max(low - first, 0) : high - first
            ] = True
    if window is not None:
        mask &= columns > rows - window
    return mask


def _attend_one(
    row: Tensor,
    keys: Tensor,
    values: Tensor,
    part: SequencePart,
    first: int,
    scaling: float | None,
    window: int | None,
    softcap: float | None,
) -> Tensor:
    """One row [heads, dim], which sees everything before it: no mask.

    The heads that share a KV head are packed into its query rows: torch's `enable_gqa` with one
    query row is nine times slower in bfloat16 on a CPU.
    """
    if window is not None:
        visible = max(0, part.num_context - window - first)
        keys, values = keys[:, visible:], values[:, visible:]
    num_heads, dim = row.shape
    packed = row.view(keys.shape[0], -1, dim)
    if softcap is not None:
        return _softcapped(packed, keys, values, None, scaling, softcap).reshape(num_heads, -1)
    out = functional.scaled_dot_product_attention(
        packed[None], keys[None], values[None], scale=scaling
    )
    return out.reshape(num_heads, -1)


def _attend_tile(
    rows: Tensor,
    keys: Tensor,
    values: Tensor,
    mask: Tensor | None,
    scaling: float | None,
    softcap: float | None,
) -> Tensor:
    """Rows [heads, n, dim] -> [n, heads, value_dim]."""
    num_groups = rows.shape[0] // keys.shape[0]
    if softcap is not None:
        if mask is None:
            size = rows.shape[1]
            mask = torch.ones(size, size, dtype=torch.bool, device=rows.device).tril()
        grouped = rows.reshape(keys.shape[0], num_groups * rows.shape[1], rows.shape[2])
        out = _softcapped(
            grouped, keys, values, mask.repeat(num_groups, 1), scaling, softcap
        ).reshape(rows.shape[0], rows.shape[1], -1)
        return out.transpose(0, 1)
    out = functional.scaled_dot_product_attention(
        rows[None],
        keys[None],
        values[None],
        attn_mask=mask,
        is_causal=mask is None,
        scale=scaling,
        enable_gqa=num_groups > 1,
    )
    return out[0].transpose(0, 1)


def _softcapped(
    rows: Tensor,
    keys: Tensor,
    values: Tensor,
    mask: Tensor | None,
    scaling: float | None,
    softcap: float,
) -> Tensor:
    """Attention by hand, [kv_heads, n, dim] -> [kv_heads, n, value_dim]: no fused kernel caps."""
    scale = rows.shape[-1] ** -0.5 if scaling is None else scaling
    scores = (rows @ keys.transpose(1, 2)).float() * scale
    scores = torch.tanh(scores / softcap) * softcap
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    return scores.softmax(-1).to(values.dtype) @ values
