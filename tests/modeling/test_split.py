"""Rows encoded apart and a prompt prefilled in chunks: the whole model's tokens, exactly."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from transformers import DynamicCache

from redserve.modeling.parts import load_language, load_vision
from redserve.modeling.positions import prompt_positions
from redserve.modeling.processing import ItemProcessor
from redserve.modeling.prompt import PromptRenderer
from tests.modeling.conftest import conversation, pictures
from tests.support.tiny_checkpoints import reference_generate, reference_inputs, whole_model

if TYPE_CHECKING:
    from pathlib import Path

    from redserve.modeling.language import LanguagePart


def _chunks(ids: list[int], part: LanguagePart, size: int) -> list[tuple[int, int]]:
    """Cuts after `size` tokens, moved out of spans for bidirectional items."""
    cuts, start = [], 0
    row = part.image_token_id
    while start < len(ids):
        end = min(start + size, len(ids))
        if part.family.bidirectional_items:
            while end < len(ids) and ids[end - 1] == ids[end] == row:
                end += 1
        cuts.append((start, end))
        start = end
    return cuts


@torch.inference_mode()
def _generate_split(path: Path, chunk: int, num_tokens: int) -> tuple[torch.Tensor, list[int]]:
    """Prefill in chunks from rows that were encoded apart, then greedy decoding."""
    renderer, part = PromptRenderer.from_checkpoint(path), load_language(path)
    processor = ItemProcessor.from_checkpoint(path)
    items = [processor.process(image) for image in pictures()]
    ids, _ = renderer.expand_and_tokenize(
        renderer.render(conversation(len(items))),
        replacements=[item.metadata.replacement_text for item in items],
    )
    embeddings = load_vision(path).encode([item.pixels for item in items])
    rows = torch.cat([embedding.rows for embedding in embeddings], dim=1)
    positions, delta = prompt_positions(part, ids, [item.metadata.grid for item in items])
    is_row = torch.tensor(ids) == part.image_token_id
    cache = DynamicCache(config=part.model.config.get_text_config())
    logits: list[torch.Tensor] = []

    def step(tokens: list[int], where: torch.Tensor, rows_here: torch.Tensor, end: int) -> None:
        extra: dict[str, Any] = {}
        if rows_here.shape[1]:
            extra["mm_encoder_outputs"] = part.image_rows(rows_here)
        if part.family.bidirectional_items and end <= len(ids):
            extra["token_type_ids"] = is_row[None, :end].long()
        output = part.model(
            input_ids=torch.tensor([tokens]),
            position_ids=where[:, None] if part.family.mrope else where,
            attention_mask=torch.ones(1, end, dtype=torch.long),
            past_key_values=cache,
            use_cache=True,
            **extra,
        )
        logits.append(output.logits[0])

    for start, end in _chunks(ids, part, chunk):
        first, last = int(is_row[:start].sum()), int(is_row[:end].sum())
        step(ids[start:end], positions[:, start:end], rows[:, first:last], end)
    prompt_logits = torch.cat(logits)
    tokens = [int(prompt_logits[-1].argmax())]
    while len(tokens) < num_tokens:
        at = len(ids) + len(tokens) - 1
        where = torch.full((positions.shape[0], 1), at + delta)
        step([tokens[-1]], where, rows[:, :0], at + 1)
        tokens.append(int(logits[-1][-1].argmax()))
    return prompt_logits, tokens


@pytest.mark.parametrize("chunk", [7, 1000])
def test_split_and_chunked_equals_the_whole_model_alone(path: Path, chunk: int) -> None:
    messages, images = conversation(len(pictures())), pictures()
    inputs = reference_inputs(path, messages, images)
    with torch.inference_mode():
        expected = whole_model(path)(**inputs).logits[0]
    logits, tokens = _generate_split(path, chunk, 10)
    torch.testing.assert_close(logits, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))
    assert tokens == reference_generate(path, messages, images, 10)
    assert len(set(tokens)) > 2, "a constant output would prove nothing"


def test_pictures_change_what_the_reference_says(path: Path) -> None:
    messages, images = conversation(len(pictures())), pictures()
    swapped = [images[3], *images[1:3], images[0], images[4]]  # equal sizes, other pixels
    said = reference_generate(path, messages, images, 10)
    assert reference_generate(path, messages, swapped, 10) != said
