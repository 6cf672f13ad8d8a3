"""The attention function that transformers' decoders call.

The name is unknown to transformers' mask functions, so it builds no masks at all; what a row may
see is decided by the backend, per sequence.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from transformers import AttentionInterface

from redserve.errors import UnsupportedModel
from redserve_llm.attention.step import current_step

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel

NAME = "redserve_paged"


def paged_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Write this step's K and V into the cache, then attend over it.

    Args:
        module: The attention module; its `layer_idx` names the layer of the cache.
        query: [1, heads, T, head_dim], rotary positions applied.
        key: [1, kv_heads, T, head_dim].
        value: [1, kv_heads, T, value_dim].
        attention_mask: None; see the module's note.
        scaling: Factor on the scores.
        dropout: 0: the model is in eval mode.
        sliding_window: Tokens that a row sees in this layer.
        softcap: Cap on the scores.
        kwargs: What else a model passes on; terms that change scores are refused.

    Returns:
        ([1, T, heads, value_dim], None).

    Raises:
        UnsupportedModel: The model has attention sinks or a position bias.
    """
    for term in ("s_aux", "position_bias"):
        if kwargs.get(term) is not None:
            raise UnsupportedModel(f"attention with {term} is not supported by the paged cache")
    step = current_step()
    keys, values = step.cache.layer(int(module.layer_idx))  # type: ignore[arg-type]
    # [pages, page, KV, D] seen as [slots, KV, D]: a view, the cache is contiguous.
    keys.view(-1, *keys.shape[2:]).index_copy_(0, step.slots, key[0].transpose(0, 1))
    values.view(-1, *values.shape[2:]).index_copy_(0, step.slots, value[0].transpose(0, 1))
    out = step.backend(
        query[0],
        keys,
        values,
        step,
        scaling=scaling,
        sliding_window=sliding_window,
        softcap=softcap,
    )
    return out[None], None


def install(model: PreTrainedModel) -> None:
    """Make the decoder of `model` call `paged_attention`; other models are not touched."""
    AttentionInterface.register(NAME, paged_attention)
    model.set_attn_implementation({"text_config": NAME})
