"""The family's own model, arranged so that one CPU core trains it quickly.

The modules and weights are the library's.  Only three inner loops are replaced, because all
training pictures have one size: attention per picture, causal attention (the backward pass of the
fused CPU kernel is several times slower than plain products at these sizes), and the patch
embedding, which as a convolution is slow and as a matrix product is not.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows
from torch import Tensor
from transformers import AttentionInterface, Qwen2_5_VLForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.vision_utils import get_vision_position_ids

from demo_model import config
from demo_model.batches import IGNORED, Batch

_PICTURE_ATTENTION, _TEXT_ATTENTION = "demo_pictures", "demo_text"
_PATCHES = config.GRID_PATCHES**2


def build_model() -> Qwen2_5_VLForConditionalGeneration:
    """A new model in float32, in training mode, with random weights."""
    AttentionInterface.register(_PICTURE_ATTENTION, picture_attention)
    AttentionInterface.register(_TEXT_ATTENTION, text_attention)
    model = Qwen2_5_VLForConditionalGeneration(config.model_config()).float().train()
    model.set_attn_implementation(
        {"text_config": _TEXT_ATTENTION, "vision_config": _PICTURE_ATTENTION}
    )
    projection = model.model.visual.patch_embed.proj

    def embed(pixels: Tensor) -> Tensor:
        return F.linear(pixels, projection.weight.view(projection.out_channels, -1))

    model.model.visual.patch_embed.forward = embed
    return model


def picture_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    **_: object,
) -> tuple[Tensor, None]:
    """Attention inside each picture, when all pictures have equally many patches.

    Args:
        module: not used.
        query: [1, heads, pictures * patches, width], as are ``key`` and ``value``.
        key: see ``query``.
        value: see ``query``.
        attention_mask: not used.
        scaling: factor of the products.

    Returns:
        [1, pictures * patches, heads, width] and None for the weights.
    """
    del module, attention_mask
    heads, width = query.shape[1], query.shape[3]
    query, key, value = (x.reshape(heads, -1, _PATCHES, width) for x in (query, key, value))
    weights = torch.softmax((query * scaling) @ key.transpose(-1, -2), dim=-1)
    out = weights.to(value.dtype) @ value
    return out.reshape(1, heads, -1, width).transpose(1, 2), None


def text_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    **_: object,
) -> tuple[Tensor, None]:
    """Causal attention with grouped key-value heads; padding must be on the right.

    Args:
        module: not used.
        query: [batch, heads, tokens, width].
        key: [batch, key-value heads, tokens, width], as is ``value``.
        value: see ``key``.
        attention_mask: not used.
        scaling: factor of the products.

    Returns:
        [batch, tokens, heads, width] and None for the weights.
    """
    del module, attention_mask
    groups = query.shape[1] // key.shape[1]
    key, value = (x.repeat_interleave(groups, dim=1) for x in (key, value))
    length = query.shape[2]
    future = torch.full((length, length), -torch.inf, dtype=query.dtype).triu(1)
    weights = torch.softmax((query * scaling) @ key.transpose(-1, -2) + future, dim=-1)
    return (weights.to(value.dtype) @ value).transpose(1, 2), None


def encode_pictures(model: Qwen2_5_VLForConditionalGeneration, pixels: Tensor) -> Tensor:
    """Visual tokens of pictures that all have the one training size.

    Args:
        model: from ``build_model``.
        pixels: [pictures * patches, patch features].

    Returns:
        [pictures * tokens per picture, hidden size].
    """
    grid = torch.tensor([[1, config.GRID_PATCHES, config.GRID_PATCHES]])
    num_pictures = pixels.shape[0] // _PATCHES
    as_one_picture = torch.tensor([0, pixels.shape[0]], dtype=torch.int32)
    features: Tensor = model.model.visual(
        pixels,
        grid_thw=grid,
        position_ids=get_vision_position_ids(grid, config.MERGE).repeat(num_pictures, 1),
        cu_seqlens=as_one_picture,
        cu_window_seqlens=as_one_picture,
        window_index=torch.arange(num_pictures * config.TOKENS_PER_IMAGE),
    ).pooler_output
    return features


def answer_logits(model: Qwen2_5_VLForConditionalGeneration, batch: Batch) -> tuple[Tensor, Tensor]:
    """Logits [answer tokens, vocabulary] and the right token of each [answer tokens]."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features = encode_pictures(model, batch.pixels)
        hidden = model.model(
            input_ids=batch.input_ids,
            position_ids=batch.position_ids,
            mm_encoder_outputs={"image": BaseModelOutputWithPooling(pooler_output=(features,))},
            use_cache=False,
        ).last_hidden_state
    wanted = batch.labels[:, 1:]
    counted = wanted != IGNORED
    return model.lm_head(hidden[:, :-1][counted].float()), wanted[counted]
