"""Keys and values of every layer, in blocks. Who owns which block is the scheduler's matter."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from redserve.modeling.language import KVLayer


def block_bytes(layers: Sequence[KVLayer], block_size: int, dtype: torch.dtype) -> int:
    """Bytes of one block over all layers, keys and values."""
    width = sum(layer.num_kv_heads * (layer.head_dim + layer.value_dim) for layer in layers)
    return width * block_size * dtype.itemsize


class KVCache:
    """Memory for `num_blocks` blocks; block ids are those of the scheduler's pool.

    Per layer, K is [num_blocks, block_size, kv_heads, head_dim] and V likewise with value_dim:
    the layout that varlen and flashinfer kernels page through as well.

        block b, offset o   <->   slot b * block_size + o

    Args:
        layers: One entry per attention layer, by rising layer_idx from 0.
        num_blocks: Blocks per layer.
        block_size: Slots per block.
        dtype: Of the model.
        device: Of the model.
    """

    def __init__(
        self,
        layers: Sequence[KVLayer],
        num_blocks: int,
        block_size: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self.num_blocks = num_blocks
        self.block_size = block_size
        slots = (num_blocks, block_size)
        self.num_bytes = num_blocks * block_bytes(layers, block_size, dtype)
        # Zeroed, not empty: a recycled page may hold NaN, and masked NaN is still NaN.
        self._layers = tuple(
            (
                torch.zeros(
                    (*slots, layer.num_kv_heads, layer.head_dim), dtype=dtype, device=device
                ),
                torch.zeros(
                    (*slots, layer.num_kv_heads, layer.value_dim), dtype=dtype, device=device
                ),
            )
            for layer in layers
        )

    def layer(self, layer_idx: int) -> tuple[Tensor, Tensor]:
        """K and V of one layer; written in place."""
        return self._layers[layer_idx]
