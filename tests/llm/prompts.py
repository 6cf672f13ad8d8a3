"""Requests of one tiny checkpoint, each with what transformers alone answers to it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from redserve.domain import Item, SamplingParams, SequenceKey, SequenceRequest
from redserve.modeling.parts import load_vision
from redserve.modeling.processing import ItemProcessor
from redserve.modeling.prompt import PromptRenderer
from redserve_llm.runner.interface import ItemRows
from tests.support.tiny_checkpoints import reference_generate

if TYPE_CHECKING:
    from pathlib import Path

SIZES = ((30, 50), (64, 64), (40, 20), (17, 90), (48, 24))
"""(height, width) that together hit tiles, grids and padding."""


@dataclass(frozen=True)
class Prompt:
    """A request, its embedding rows, and the right answer."""

    token_ids: tuple[int, ...]
    items: tuple[Item, ...]
    rows: tuple[np.ndarray[Any, Any], ...]
    answer: tuple[int, ...]

    def request(self, request_id: str, **sampling: Any) -> SequenceRequest:
        params = SamplingParams(**{"max_tokens": len(self.answer), **sampling})
        return SequenceRequest(SequenceKey(request_id), self.token_ids, self.items, params)

    def item_rows(self, index: int) -> ItemRows:
        """A fresh copy, so that whoever frees it may scribble over it."""
        rows = self.rows[index]
        data = np.frombuffer(bytearray(rows.tobytes()), np.uint8)
        num_layers, num_rows, hidden_size = rows.shape
        return ItemRows(data, num_layers, num_rows, hidden_size, "float32")


def picture(seed: int) -> Image.Image:
    height, width = SIZES[seed % len(SIZES)]
    noise = np.random.default_rng(seed)
    return Image.fromarray(noise.integers(0, 256, (height, width, 3), dtype=np.uint8))


def conversation(seed: int, num_images: int) -> list[dict[str, Any]]:
    """Images side by side and apart, text of differing length around them."""
    parts: list[dict[str, Any]] = [{"type": "text", "text": "Look " * (1 + seed % 7)}]
    for index in range(num_images):
        parts.append({"type": "image"})
        if (index + seed) % 2:
            parts.append({"type": "text", "text": f" number {index}, "})
    parts.append({"type": "text", "text": f"what is {seed}?"})
    return [{"role": "user", "content": parts}]


@lru_cache(maxsize=2)
def halves(path: Path) -> tuple[Any, ItemProcessor, PromptRenderer]:
    return (
        load_vision(path),
        ItemProcessor.from_checkpoint(path),
        PromptRenderer.from_checkpoint(path),
    )


def make_prompt(path: Path, seed: int, num_images: int, num_tokens: int) -> Prompt:
    """Build a request as router and encoder would, and ask transformers for the answer."""
    vision, processor, renderer = halves(path)
    images = [picture(seed * 10 + index) for index in range(num_images)]
    messages = conversation(seed, num_images)
    processed = [processor.process(image) for image in images]
    text = renderer.render(messages)
    expanded = renderer.expand_and_tokenize(
        text, replacements=[item.metadata.replacement_text for item in processed]
    )
    items = tuple(
        Item(
            index=index,
            content_hash=hashlib.sha256(images[index].tobytes()).digest(),
            num_rows=processed[index].metadata.num_rows,
            spans=tuple(spans),
            grid=processed[index].metadata.grid,
        )
        for index, spans in enumerate(expanded.spans)
    )
    embeddings = [vision.encode([item.pixels])[0].rows.numpy() for item in processed]
    return Prompt(
        token_ids=tuple(expanded.token_ids),
        items=items,
        rows=tuple(embeddings),
        answer=tuple(reference_generate(path, messages, images, num_tokens)),
    )
