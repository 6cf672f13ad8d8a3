"""Scores a checkpoint on held-out pictures with the modelling library alone, no service.

Run ``python -m demo_model.evaluate --local``.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from transformers import (
    AutoImageProcessor,
    AutoTokenizer,
    Qwen2_5_VLForConditionalGeneration,
)

from demo_model import scoring

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL import Image

CHECKPOINT = Path(__file__).resolve().parents[1] / "examples" / "demo-model"
TARGET = 0.95
"""Least share of exact answers of a demo model that may be published."""

_MAX_NEW_TOKENS = 96


class LocalModel:
    """A checkpoint folder that answers questions in this process."""

    def __init__(self, path: Path, dtype: torch.dtype = torch.float32) -> None:
        """Load tokenizer, image processor and weights from ``path``."""
        self._tokenizer = AutoTokenizer.from_pretrained(path)
        self._processor = AutoImageProcessor.from_pretrained(path, backend="pil")
        self._model = Qwen2_5_VLForConditionalGeneration.from_pretrained(path, dtype=dtype).eval()

    @torch.inference_mode()
    def answer(self, images: Sequence[Image.Image], question: str) -> str:
        """Greedy answer to one question about the pictures, as a chat completion would give it."""
        content = [{"type": "image"} for _ in images] + [{"type": "text", "text": question}]
        text = self._tokenizer.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
        )
        seen = self._processor(images=list(images), return_tensors="pt")
        grids = seen["image_grid_thw"]
        placeholder = self._tokenizer.image_token
        # The template writes one placeholder per picture; the model wants one per visual token.
        expanded, *tail = text.split(placeholder)
        for grid, rest in zip(grids, tail, strict=True):
            num_tokens = int(grid.prod()) // self._processor.merge_size**2
            expanded += placeholder * num_tokens + rest
        ids = torch.tensor([self._tokenizer.encode(expanded, add_special_tokens=False)])
        generated = self._model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            pixel_values=seen["pixel_values"],
            image_grid_thw=grids,
            mm_token_type_ids=(ids == self._model.config.image_token_id).int(),
            max_new_tokens=_MAX_NEW_TOKENS,
            do_sample=False,
        )
        decoded: str = self._tokenizer.decode(
            generated[0, ids.shape[1] :], skip_special_tokens=True
        )
        return decoded


def evaluate_local(
    path: Path, count: int, seed: int, dtype: torch.dtype = torch.float32
) -> scoring.Score:
    """Score the checkpoint in ``path`` on ``count`` held-out prompts."""
    model = LocalModel(path, dtype)
    return scoring.score(scoring.held_out(count, seed), model.answer)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the score; 0 when it reaches the target, else 1."""
    parser = argparse.ArgumentParser(description=__doc__)
    how = parser.add_mutually_exclusive_group(required=True)
    how.add_argument("--local", action="store_true", help="answer in this process")
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT)
    parser.add_argument("--prompts", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    arguments = parser.parse_args(argv)
    result = evaluate_local(
        arguments.checkpoint, arguments.prompts, arguments.seed, getattr(torch, arguments.dtype)
    )
    for mistake in result.mistakes:
        print(f"{mistake.question}\n  wanted: {mistake.wanted}\n  got:    {mistake.got}")
    print("\n".join(result.lines()))
    return 0 if result.accuracy >= TARGET else 1


if __name__ == "__main__":
    sys.exit(main())
