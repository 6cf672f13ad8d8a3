"""Position ids of prompts, also of the families whose positions have three axes (M-RoPE)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from redserve.errors import InternalError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redserve.modeling.language import LanguagePart


def prompt_positions(
    part: LanguagePart, token_ids: Sequence[int], grids: Sequence[tuple[int, ...]] = ()
) -> tuple[Tensor, int]:
    """Position ids of a whole prompt; needs the grids of all its items, not their rows.

    Args:
        part: The language side that will run the prompt.
        token_ids: The expanded prompt, n tokens.
        grids: (t, h, w) in patches of every item in prompt order; unused without M-RoPE.

    Returns:
        (positions, delta): int64 on the CPU of shape [3, n] for M-RoPE families, else [1, n]. The
        token after m tokens in all (m >= n) has position m + delta on every axis.

    Raises:
        InternalError: Grids and row positions of an M-RoPE prompt do not match.
    """
    num_tokens = len(token_ids)
    if not part.family.mrope:
        return torch.arange(num_tokens)[None], 0
    if not grids:
        return torch.arange(num_tokens).expand(3, -1).clone(), 0
    ids = torch.tensor([list(token_ids)])
    is_row = ids == part.image_token_id
    merge = part.model.config.vision_config.spatial_merge_size
    num_rows = sum(math.prod(grid) // merge**2 for grid in grids)
    if num_rows != int(is_row.sum()):
        raise InternalError(
            f"{len(grids)} grids of {num_rows} rows do not match the prompt's {int(is_row.sum())}"
        )
    positions, delta = part.model.base_model.get_rope_index(
        ids,
        mm_token_type_ids=is_row.int(),
        image_grid_thw=torch.tensor([list(grid) for grid in grids]),
    )
    return positions[:, 0].contiguous(), int(delta.reshape(-1)[0])
