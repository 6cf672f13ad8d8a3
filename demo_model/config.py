"""The demo model's tokenizer, image processor and architecture.

All three are ordinary members of a supported family (Qwen2.5-VL), only very small: the serving
path must not be able to tell this checkpoint from a large one.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2_5_VLConfig, Qwen2VLImageProcessorPil

from demo_model.pictures import COLOURS, DIGITS, PLACES, SHAPES
from demo_model.questions import NUMBERS, PLURALS, WORDINGS

if TYPE_CHECKING:
    from collections.abc import Iterator

IMAGE_PX = 48
"""Side of a picture as the model sees it; the image processor resizes whatever arrives."""
PATCH_PX = 8
MERGE = 2
GRID_PATCHES = IMAGE_PX // PATCH_PX
TOKENS_PER_IMAGE = (GRID_PATCHES // MERGE) ** 2

HIDDEN = 128
LANGUAGE_LAYERS = 4
VISION_LAYERS = 3
HEADS = 4
INITIALIZER_RANGE = 0.08
"""The library's 0.02 suits widths of thousands; at 128 it keeps the loss on a plateau."""

PAD, UNKNOWN, START, END = "<pad>", "<unk>", "<|im_start|>", "<|im_end|>"
VISION_START, VISION_END = "<|vision_start|>", "<|vision_end|>"
IMAGE_PAD, VIDEO_PAD = "<|image_pad|>", "<|video_pad|>"
SPECIALS = (PAD, UNKNOWN, START, END, VISION_START, VISION_END, IMAGE_PAD, VIDEO_PAD)

PUNCTUATION = (".", ",", ":", "?", "!")
SYSTEM_PROMPT = "you are a helpful assistant."
_MARK = "\u2581"
_SYNONYMS = {
    "color": "colour",
    "colors": "colour",
    "center": "centre",
    "picture": "image",
    "pictures": "images",
    "photo": "image",
    "photos": "images",
}

_TEMPLATE_FILE = Path(__file__).with_name("chat_template.jinja")


def vocabulary() -> dict[str, int]:
    """Token to id: the special tokens, punctuation, then every word of the language."""
    words = dict.fromkeys(word for text in _sentences() for word in re.findall(r"[a-z0-9]+", text))
    tokens = [*SPECIALS, *PUNCTUATION, *(_MARK + word for word in words)]
    return {token: index for index, token in enumerate(tokens)}


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A word-level tokenizer in which every word carries its own leading space.

    Decoding is therefore plain concatenation: the text of a prefix of the ids is a prefix of the
    text, which a server that streams needs.  Case and the space before punctuation do not matter,
    and a few spellings are folded together.
    """
    tokenizer = Tokenizer(models.WordLevel(vocabulary(), unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.Lowercase(),
            *(
                normalizers.Replace(Regex(rf"\b{spelling}\b"), word)
                for spelling, word in _SYNONYMS.items()
            ),
            *(normalizers.Replace(Regex(rf"\s*{re.escape(mark)}"), mark) for mark in PUNCTUATION),
            normalizers.Replace(Regex(r"\s+"), " "),
            normalizers.Strip(),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Metaspace(replacement=_MARK, prepend_scheme="always"),
            pre_tokenizers.Punctuation(behavior="isolated"),
        ]
    )
    tokenizer.decoder = decoders.Metaspace(replacement=_MARK, prepend_scheme="always")
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token=UNKNOWN,
        pad_token=PAD,
        eos_token=END,
        extra_special_tokens={
            "image_token": IMAGE_PAD,
            "video_token": VIDEO_PAD,
            "vision_start_token": VISION_START,
            "vision_end_token": VISION_END,
            "turn_start_token": START,
        },
        clean_up_tokenization_spaces=False,
        model_max_length=2048,
    )
    fast.chat_template = _TEMPLATE_FILE.read_text(encoding="utf-8")
    return fast


def build_image_processor() -> Qwen2VLImageProcessorPil:
    """The family's own image processor, set to show every square picture at ``IMAGE_PX``."""
    pixels = IMAGE_PX * IMAGE_PX
    return Qwen2VLImageProcessorPil(
        patch_size=PATCH_PX,
        merge_size=MERGE,
        size={"shortest_edge": pixels, "longest_edge": pixels},
    )


def model_config() -> Qwen2_5_VLConfig:
    """The architecture; ids come from ``vocabulary``."""
    ids = vocabulary()
    head_dim = HIDDEN // HEADS
    third = head_dim // 6
    return Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(ids),
            "hidden_size": HIDDEN,
            "intermediate_size": HIDDEN * 3,
            "num_hidden_layers": LANGUAGE_LAYERS,
            "num_attention_heads": HEADS,
            "num_key_value_heads": HEADS // 2,
            "max_position_embeddings": 2048,
            "tie_word_embeddings": True,
            "initializer_range": INITIALIZER_RANGE,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10_000.0,
                "mrope_section": [head_dim // 2 - 2 * third, third, third],
            },
            "bos_token_id": None,
            "eos_token_id": ids[END],
            "pad_token_id": ids[PAD],
        },
        vision_config={
            "depth": VISION_LAYERS,
            "hidden_size": HIDDEN,
            "intermediate_size": HIDDEN * 2,
            "out_hidden_size": HIDDEN,
            "num_heads": HEADS,
            "patch_size": PATCH_PX,
            "spatial_merge_size": MERGE,
            "temporal_patch_size": 2,
            "window_size": IMAGE_PX,
            "fullatt_block_indexes": list(range(VISION_LAYERS)),
            "initializer_range": INITIALIZER_RANGE,
        },
        image_token_id=ids[IMAGE_PAD],
        video_token_id=ids[VIDEO_PAD],
        vision_start_token_id=ids[VISION_START],
        vision_end_token_id=ids[VISION_END],
        tie_word_embeddings=True,
    )


def _sentences() -> Iterator[str]:
    """Text that, taken together, holds every word the model knows."""
    yield f"system user assistant image {SYSTEM_PROMPT}"
    yield from (re.sub(r"\{\w+\}", " ", text) for texts in WORDINGS.values() for text in texts)
    yield " ".join([*COLOURS, *SHAPES, *PLURALS.values(), *NUMBERS, *DIGITS, *PLACES])
    yield "a an small digit is are the at in and or which has shows please tell me"
