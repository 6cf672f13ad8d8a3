"""What makes each tiny checkpoint the family that it is: model config, image settings, tokens.

All towers see 16x16 tiles of 4x4 patches or grids of 4x4 patches, all decoders are 64 wide and
three layers deep; dimensions are small, structure is the real one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

CONTROL = ("<pad>", "<s>", "</s>", "<unk>", "<|im_start|>", "<|im_end|>")
"""Ids 0 to 5 of every vocabulary."""


@dataclass(frozen=True)
class TinyFamily:
    """Recipe of one checkpoint.

    `config(ids, vocab_size)` gives the model config's arguments, `ids` maps special tokens to ids.
    `seed` was chosen so that pictures decide the very first token and outputs do not repeat.
    """

    name: str
    config: Callable[[dict[str, int], int], dict[str, Any]]
    image_processor: dict[str, Any]
    specials: tuple[str, ...]
    image_markup: str
    row_token: str
    processor: dict[str, Any] = field(default_factory=dict)
    token_names: dict[str, str] = field(default_factory=dict)
    bos_by_tokenizer: bool = False
    bos_by_template: bool = False
    seed: int = 0


def _text(vocab_size: int, **more: Any) -> dict[str, Any]:
    return {
        "vocab_size": vocab_size,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        **more,
    }


def _mrope_text(vocab_size: int, **more: Any) -> dict[str, Any]:
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]}
    return _text(vocab_size, rope_parameters={**rope, **more.pop("rope", {})}, **more)


_CLIP = {
    "model_type": "clip_vision_model",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 4,
    "projection_dim": 32,
}
_SIGLIP = {
    "model_type": "siglip_vision_model",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 4,
}
_GRID_TOWER = {
    "num_heads": 2,
    "patch_size": 4,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "in_channels": 3,
}
_GRID_IMAGES = {
    "patch_size": 4,
    "temporal_patch_size": 2,
    "merge_size": 2,
    "size": {"shortest_edge": 256, "longest_edge": 4096},
}
_SQUARE = {"height": 16, "width": 16}
_PINPOINTS = [[16, 32], [32, 16], [32, 32], [16, 48], [48, 16]]


def _qwen_ids(ids: dict[str, int]) -> dict[str, int]:
    return {
        "image_token_id": ids["<|image_pad|>"],
        "video_token_id": ids["<|video_pad|>"],
        "vision_start_token_id": ids["<|vision_start|>"],
        "vision_end_token_id": ids["<|vision_end|>"],
    }


def _qwen2_vl(ids: dict[str, int], vocab_size: int) -> dict[str, Any]:
    tower = {**_GRID_TOWER, "depth": 2, "embed_dim": 32, "hidden_size": 64, "mlp_ratio": 2}
    return {"text_config": _mrope_text(vocab_size), "vision_config": tower, **_qwen_ids(ids)}


def _qwen2_5_vl(ids: dict[str, int], vocab_size: int) -> dict[str, Any]:
    tower = {
        **_GRID_TOWER,
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 64,
        "out_hidden_size": 64,
        "window_size": 16,
        "fullatt_block_indexes": [1],
    }
    return {"text_config": _mrope_text(vocab_size), "vision_config": tower, **_qwen_ids(ids)}


def _qwen3_vl(ids: dict[str, int], vocab_size: int) -> dict[str, Any]:
    tower = {
        **_GRID_TOWER,
        "depth": 3,
        "hidden_size": 32,
        "intermediate_size": 64,
        "out_hidden_size": 64,
        "deepstack_visual_indexes": [0, 1],
        "num_position_embeddings": 64,
    }
    text = _mrope_text(vocab_size, head_dim=16, rope={"mrope_interleaved": True})
    return {"text_config": text, "vision_config": tower, **_qwen_ids(ids)}


def _glm4v(ids: dict[str, int], vocab_size: int) -> dict[str, Any]:
    tower = {
        **_GRID_TOWER,
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 64,
        "out_hidden_size": 64,
        "image_size": 32,
    }
    return {
        "text_config": _mrope_text(vocab_size, rope={"partial_rotary_factor": 1.0}),
        "vision_config": tower,
        "image_token_id": ids["<|image|>"],
        "video_token_id": ids["<|video|>"],
        "image_start_token_id": ids["<|begin_of_image|>"],
        "image_end_token_id": ids["<|end_of_image|>"],
        "video_start_token_id": ids["<|begin_of_video|>"],
        "video_end_token_id": ids["<|end_of_video|>"],
    }


def _llava(ids: dict[str, int], vocab_size: int) -> dict[str, Any]:
    return {
        "text_config": _text(vocab_size, model_type="llama"),
        "vision_config": _CLIP,
        "image_token_index": ids["<image>"],
        "image_seq_length": 16,
    }


def _llava_next(ids: dict[str, int], vocab_size: int) -> dict[str, Any]:
    return {
        "text_config": _text(vocab_size, model_type="llama"),
        "vision_config": _CLIP,
        "image_token_index": ids["<image>"],
        "image_grid_pinpoints": _PINPOINTS,
    }


def _llava_onevision(ids: dict[str, int], vocab_size: int) -> dict[str, Any]:
    return {
        "text_config": _text(vocab_size, model_type="qwen2"),
        "vision_config": _SIGLIP,
        "image_token_index": ids["<image>"],
        "video_token_index": ids["<video>"],
        "vision_feature_layer": -1,
        "vision_feature_select_strategy": "full",
        "image_grid_pinpoints": _PINPOINTS,
        "vision_aspect_ratio": "anyres_max_9",
    }


def _idefics(ids: dict[str, int], vocab_size: int) -> dict[str, Any]:
    tower = {key: value for key, value in _SIGLIP.items() if key != "model_type"}
    return {
        "text_config": _text(vocab_size, model_type="llama"),
        "vision_config": tower,
        "image_token_id": ids["<image>"],
        "scale_factor": 2,
        "pad_token_id": 0,
    }


def _internvl(ids: dict[str, int], vocab_size: int) -> dict[str, Any]:
    tower = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": [16, 16],
        "patch_size": [4, 4],
        "use_absolute_position_embeddings": True,
    }
    return {
        "text_config": _text(vocab_size, model_type="qwen2"),
        "vision_config": tower,
        "image_token_id": ids["<IMG_CONTEXT>"],
        "image_seq_length": 4,
        "downsample_ratio": 0.5,
    }


_MIXED_LAYERS = ["sliding_attention", "full_attention", "sliding_attention"]


def _aya_vision(ids: dict[str, int], vocab_size: int) -> dict[str, Any]:
    text = _text(
        vocab_size,
        model_type="cohere2",
        sliding_window=24,
        layer_types=_MIXED_LAYERS,
        logit_scale=0.25,
    )
    return {
        "text_config": text,
        "vision_config": _SIGLIP,
        "image_token_index": ids["<|IMG_PATCH|>"],
        "downsample_factor": 2,
        "vision_feature_layer": -1,
        "vision_feature_select_strategy": "full",
    }


def _mistral3(ids: dict[str, int], vocab_size: int) -> dict[str, Any]:
    tower = {
        "model_type": "pixtral",
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 64,
        "patch_size": 4,
        "head_dim": 16,
    }
    return {
        "text_config": _text(vocab_size, model_type="mistral", head_dim=16, sliding_window=None),
        "vision_config": tower,
        "image_token_index": ids["[IMG]"],
        "spatial_merge_size": 2,
        "vision_feature_layer": -1,
    }


def _gemma3(ids: dict[str, int], vocab_size: int) -> dict[str, Any]:
    text = _text(
        vocab_size,
        head_dim=16,
        sliding_window=12,
        layer_types=_MIXED_LAYERS,
        query_pre_attn_scalar=16,
    )
    return {
        "text_config": text,
        "vision_config": _SIGLIP,
        "mm_tokens_per_image": 4,
        "image_token_index": ids["<image_soft_token>"],
        "boi_token_index": ids["<start_of_image>"],
        "eoi_token_index": ids["<end_of_image>"],
    }


_QWEN: dict[str, Any] = {
    "image_processor": {"image_processor_type": "Qwen2VLImageProcessor", **_GRID_IMAGES},
    "specials": ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"),
    "image_markup": "<|vision_start|><|image_pad|><|vision_end|>",
    "row_token": "<|image_pad|>",
}
_LLAVA_IMAGES = {"size": {"shortest_edge": 16}, "crop_size": _SQUARE}
_LLAVA: dict[str, Any] = {
    "specials": ("<image>",),
    "image_markup": "<image>\n",
    "row_token": "<image>",
    "processor": {
        "patch_size": 4,
        "vision_feature_select_strategy": "default",
        "num_additional_image_tokens": 1,
    },
    "bos_by_tokenizer": True,
}
_IDEFICS_SPECIALS = (
    "<image>",
    "<fake_token_around_image>",
    "<global-img>",
    "<end_of_utterance>",
    *(f"<row_{row}_col_{col}>" for row in range(1, 5) for col in range(1, 5)),
)
_IDEFICS: dict[str, Any] = {
    "config": _idefics,
    "specials": _IDEFICS_SPECIALS,
    "image_markup": "<image>",
    "row_token": "<image>",
    "processor": {"image_seq_len": 4},
}
_IDEFICS_IMAGES = {"size": {"longest_edge": 48}, "max_image_size": {"longest_edge": 16}}
_CROP_IMAGES = {
    "image_processor_type": "GotOcr2ImageProcessor",
    "size": _SQUARE,
    "crop_to_patches": True,
    "min_patches": 1,
    "max_patches": 4,
}

TINY_FAMILIES: dict[str, TinyFamily] = {
    family.name: family
    for family in (
        TinyFamily("qwen2_vl", _qwen2_vl, **_QWEN),
        TinyFamily("qwen2_5_vl", _qwen2_5_vl, **_QWEN),
        TinyFamily("qwen3_vl", _qwen3_vl, seed=27, **_QWEN),
        TinyFamily(
            "glm4v",
            _glm4v,
            {"image_processor_type": "Glm4vImageProcessor", **_GRID_IMAGES},
            (
                *("<|begin_of_image|>", "<|image|>", "<|end_of_image|>"),
                *("<|begin_of_video|>", "<|video|>", "<|end_of_video|>"),
            ),
            "<|begin_of_image|><|image|><|end_of_image|>",
            "<|image|>",
        ),
        TinyFamily(
            "llava",
            _llava,
            {"image_processor_type": "CLIPImageProcessor", **_LLAVA_IMAGES},
            **_LLAVA,
        ),
        TinyFamily(
            "llava_next",
            _llava_next,
            {
                "image_processor_type": "LlavaNextImageProcessor",
                "image_grid_pinpoints": _PINPOINTS,
                **_LLAVA_IMAGES,
            },
            **_LLAVA,
        ),
        TinyFamily(
            "llava_onevision",
            _llava_onevision,
            {
                "image_processor_type": "LlavaOnevisionImageProcessor",
                "image_grid_pinpoints": _PINPOINTS,
                "size": _SQUARE,
            },
            ("<image>", "<video>"),
            "<image>\n",
            "<image>",
            {
                "num_image_tokens": 16,
                "vision_feature_select_strategy": "full",
                "vision_aspect_ratio": "anyres_max_9",
            },
        ),
        TinyFamily(
            "idefics3",
            image_processor={"image_processor_type": "Idefics3ImageProcessor", **_IDEFICS_IMAGES},
            bos_by_tokenizer=True,
            **_IDEFICS,
        ),
        TinyFamily(
            "smolvlm",
            image_processor={"image_processor_type": "SmolVLMImageProcessor", **_IDEFICS_IMAGES},
            **_IDEFICS,
        ),
        TinyFamily(
            "internvl",
            _internvl,
            _CROP_IMAGES,
            ("<img>", "</img>", "<IMG_CONTEXT>", "<video>"),
            "<IMG_CONTEXT>\n",
            "<IMG_CONTEXT>",
            {"image_seq_length": 4},
            {
                "start_image_token": "<img>",
                "end_image_token": "</img>",
                "context_image_token": "<IMG_CONTEXT>",
                "video_token": "<video>",
            },
        ),
        TinyFamily(
            "aya_vision",
            _aya_vision,
            _CROP_IMAGES,
            (
                *("<image>", "<|START_OF_IMG|>", "<|END_OF_IMG|>", "<|IMG_PATCH|>"),
                *("<|IMG_LINE_BREAK|>", "TILE", "TILE_GLOBAL"),
            ),
            "<image>",
            "<|IMG_PATCH|>",
            {"patch_size": 4, "img_size": 16, "downsample_factor": 2},
            bos_by_tokenizer=True,
            bos_by_template=True,
            seed=4,
        ),
        TinyFamily(
            "mistral3",
            _mistral3,
            {
                "image_processor_type": "PixtralImageProcessor",
                "patch_size": 4,
                "size": {"longest_edge": 64},
            },
            ("[IMG]", "[IMG_BREAK]", "[IMG_END]"),
            "[IMG]",
            "[IMG]",
            {
                "processor_class": "PixtralProcessor",
                "patch_size": 4,
                "spatial_merge_size": 2,
            },
            bos_by_tokenizer=True,
            bos_by_template=True,
        ),
        TinyFamily(
            "gemma3",
            _gemma3,
            {"image_processor_type": "Gemma3ImageProcessor", "size": _SQUARE},
            ("<start_of_image>", "<end_of_image>", "<image_soft_token>"),
            "<start_of_image>",
            "<image_soft_token>",
            {"image_seq_length": 4},
            {
                "boi_token": "<start_of_image>",
                "eoi_token": "<end_of_image>",
                "image_token": "<image_soft_token>",
            },
            bos_by_tokenizer=True,
            bos_by_template=True,
            seed=27,
        ),
    )
}
"""Every served family, by model_type."""
