"""A quick score during training, on pictures that the loss does not see."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import torch

from demo_model import batches, fast, questions
from demo_model.batches import Batch, Conversation, Encoder, Pool
from demo_model.scoring import Score

if TYPE_CHECKING:
    from transformers import Qwen2_5_VLForConditionalGeneration

_PER_BATCH = 24
_NUM_BATCHES = 16


class Validation:
    """The same single-turn questions every time, so that scores compare."""

    def __init__(self, pool: Pool, encoder: Encoder) -> None:
        """Choose the questions."""
        rng = random.Random("validation conversations")
        self._pool = pool
        self._batches: list[tuple[list[Conversation], Batch]] = []
        for index in range(_NUM_BATCHES):
            num_images = 1 + index % questions.MAX_IMAGES
            asked = [_single_turn(rng, pool, num_images) for _ in range(_PER_BATCH)]
            self._batches.append((asked, batches.build_batch(asked, encoder)))

    @torch.inference_mode()
    def score(self, model: Qwen2_5_VLForConditionalGeneration) -> Score:
        """Exact answers by teacher forcing.

        Greedy decoding gives exactly the wanted answer if and only if each of its tokens is the
        most likely one after those before it, so one forward pass decides.
        """
        by_kind: dict[str, tuple[int, int]] = {}
        for asked, batch in self._batches:
            seen = fast.encode_pictures(model, self._pool.pixels(batch.images))
            logits, wanted = fast.answer_logits(model, batch, seen)
            hits = logits.argmax(-1) == wanted
            lengths = [last - first for ((first, last),) in batch.answers]
            for conversation, answer in zip(asked, torch.split(hits, lengths), strict=True):
                kind = conversation.turns[0][1].kind
                right, total = by_kind.get(kind, (0, 0))
                by_kind[kind] = (right + int(answer.all()), total + 1)
        return Score(dict(sorted(by_kind.items())))


def _single_turn(rng: random.Random, pool: Pool, num_images: int) -> Conversation:
    chosen = pool.sample(rng, num_images)
    scenes = [scene for _, scene in chosen]
    question = questions.random_question(rng, scenes, questions.HELD_OUT_WEIGHTS)
    images = tuple(index for index, _ in chosen)
    return Conversation(images, ((num_images, question),), with_system_prompt=False)
