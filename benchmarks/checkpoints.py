"""Random Qwen2.5-VL checkpoints of a chosen size: speed does not care about weights."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import transformers
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

if TYPE_CHECKING:
    from pathlib import Path

SPECIALS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
CHAT_TEMPLATE = (
    "{%- for message in messages -%}<|im_start|>{{ message['role'] }}\n"
    "{%- if message['content'] is string -%}{{ message['content'] }}{%- else -%}"
    "{%- for part in message['content'] -%}"
    "{%- if part['type'] == 'text' -%}{{ part['text'] }}"
    "{%- else -%}<|vision_start|><|image_pad|><|vision_end|>{%- endif -%}"
    "{%- endfor -%}{%- endif -%}<|im_end|>\n{%- endfor -%}"
    "{%- if add_generation_prompt -%}<|im_start|>assistant\n{%- endif -%}"
)


@dataclass(frozen=True, slots=True)
class Size:
    """Dimensions of a random model.

    Attributes:
        vision_depth, vision_hidden, vision_heads, vision_inner: The vision tower.
        layers, hidden, heads, kv_heads, inner, vocab: The language model.
    """

    vision_depth: int = 11
    vision_hidden: int = 640
    vision_heads: int = 10
    vision_inner: int = 1728
    layers: int = 22
    hidden: int = 1024
    heads: int = 16
    kv_heads: int = 4
    inner: int = 2816
    vocab: int = 16000


def _tokenizer(vocab: int) -> transformers.PreTrainedTokenizerFast:
    """Byte-level, one token per byte, filled up with rare tokens so that every id decodes."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*alphabet, *(f"w{index}" for index in range(vocab - len(alphabet) - len(SPECIALS)))]
    tokenizer = Tokenizer(models.BPE(vocab={word: i for i, word in enumerate(words)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(text, special=True) for text in SPECIALS])
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens={
            "image_token": "<|image_pad|>",
            "video_token": "<|video_pad|>",
            "vision_start_token": "<|vision_start|>",
            "vision_end_token": "<|vision_end|>",
        },
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def make_checkpoint(folder: Path, size: Size, *, seed: int = 0) -> dict[str, float]:
    """Write a bfloat16 checkpoint into `folder` and return its parameter counts in millions."""
    tokenizer = _tokenizer(size.vocab)
    ids = {text: tokenizer.convert_tokens_to_ids(text) for text in SPECIALS}
    head = size.hidden // size.heads
    side = 3 * (head // 2) // 8
    every_quarter = [
        i for i in range(size.vision_depth) if (i + 1) % max(1, size.vision_depth // 4) == 0
    ]
    config = transformers.Qwen2_5_VLConfig(
        text_config={
            "vocab_size": max(size.vocab, max(ids.values()) + 1),
            "hidden_size": size.hidden,
            "intermediate_size": size.inner,
            "num_hidden_layers": size.layers,
            "num_attention_heads": size.heads,
            "num_key_value_heads": size.kv_heads,
            "max_position_embeddings": 32768,
            "tie_word_embeddings": True,
            "bos_token_id": ids["<|endoftext|>"],
            "eos_token_id": ids["<|im_end|>"],
            "pad_token_id": ids["<|endoftext|>"],
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1e6,
                "mrope_section": [head // 2 - 2 * side, side, side],
            },
        },
        vision_config={
            "depth": size.vision_depth,
            "hidden_size": size.vision_hidden,
            "intermediate_size": size.vision_inner,
            "num_heads": size.vision_heads,
            "out_hidden_size": size.hidden,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "window_size": 112,
            "fullatt_block_indexes": every_quarter,
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=True,
    )
    torch.manual_seed(seed)
    model = transformers.Qwen2_5_VLForConditionalGeneration(config).to(torch.bfloat16)
    model.generation_config = transformers.GenerationConfig(
        eos_token_id=ids["<|im_end|>"], pad_token_id=ids["<|endoftext|>"], do_sample=False
    )
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    pixels = {"shortest_edge": 56 * 56, "longest_edge": 28 * 28 * 1280}
    (folder / "preprocessor_config.json").write_text(
        json.dumps(
            {
                "image_processor_type": "Qwen2VLImageProcessor",
                "processor_class": "Qwen2_5_VLProcessor",
                "patch_size": 14,
                "temporal_patch_size": 2,
                "merge_size": 2,
                "size": pixels,
            }
        )
    )
    vision = sum(p.numel() for p in model.model.visual.parameters()) / 1e6
    total = sum(p.numel() for p in model.parameters()) / 1e6
    return {"vision_millions": round(vision, 1), "language_millions": round(total - vision, 1)}
