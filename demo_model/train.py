"""The training loop: a curriculum of conversations about drawn pictures, on one CPU core."""

from __future__ import annotations

import math
import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows

from demo_model import batches, fast, pictures, questions
from demo_model.batches import Batch, Conversation, Encoder, Pool
from demo_model.scoring import Score

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from transformers import Qwen2_5_VLForConditionalGeneration

IMAGES_PER_STEP = 96
_NUM_VALIDATION_PICTURES = 1600
_PRINT_EVERY, _VALIDATE_EVERY = 50, 250


@dataclass(frozen=True, slots=True)
class Plan:
    """How long and how fast to train.

    Attributes:
        num_steps: optimiser steps.
        num_pictures: training pictures to draw.
        seed: of weights, pictures and conversations.
        matrix_rate: peak learning rate of Muon, for the matrices inside the layers.
        other_rate: peak learning rate of AdamW, for everything else.
        warmup_steps: steps until the peak.
        single_until: share of the steps with one picture per prompt.
        all_from: share of the steps after which prompts have up to all eight.
    """

    num_steps: int = 3200
    num_pictures: int = 24_000
    seed: int = 0
    matrix_rate: float = 4e-3
    other_rate: float = 1.5e-3
    warmup_steps: int = 100
    single_until: float = 0.08
    all_from: float = 0.4

    def rate_factor(self, step: int) -> float:
        """Multiplier of both learning rates: warm-up, then a cosine down to 2 %."""
        warm = min(1.0, (step + 1) / self.warmup_steps)
        return warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / self.num_steps)))

    def max_images(self, step: int) -> int:
        """The curriculum: first learn to see one picture, then to point among more and more."""
        done = step / self.num_steps
        if done < self.single_until:
            return 1
        grown = (done - self.single_until) / (self.all_from - self.single_until)
        return min(questions.MAX_IMAGES, 2 + int(grown * (questions.MAX_IMAGES - 1)))


def train(plan: Plan) -> Qwen2_5_VLForConditionalGeneration:
    """Draw the pictures and train a new model, printing progress; returns it in evaluation mode."""
    torch.manual_seed(plan.seed)
    rng = random.Random(f"training pictures {plan.seed}")
    seeds = pictures.TRAINING_SEEDS
    started = time.monotonic()
    pool = batches.prepare_pool(plan.num_pictures, seeds, rng)
    validation = batches.prepare_pool(_NUM_VALIDATION_PICTURES, seeds[plan.num_pictures :], rng)
    model = fast.build_model()
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    print(
        f"{num_parameters:,} parameters; {plan.num_pictures} pictures drawn in "
        f"{time.monotonic() - started:.0f} s",
        flush=True,
    )
    encoder = Encoder()
    losses = fit(model, plan, training_batches(plan, pool, encoder))
    _print_progress(model, losses, plan.num_steps, Validation(validation, encoder))
    return model.eval()


def training_batches(plan: Plan, pool: Pool, encoder: Encoder) -> Iterator[Batch]:
    """One batch per step; all conversations of a step show equally many pictures."""
    rng = random.Random(f"training conversations {plan.seed}")
    for step in range(plan.num_steps):
        num_images = rng.randint(1, plan.max_images(step))
        chosen = [
            batches.random_conversation(rng, pool, num_images)
            for _ in range(IMAGES_PER_STEP // num_images)
        ]
        yield batches.build_batch(chosen, pool, encoder)


class Validation:
    """A quick score during training, on pictures that the loss does not see."""

    _PER_BATCH = 24
    _NUM_BATCHES = 16

    def __init__(self, pool: Pool, encoder: Encoder) -> None:
        """Draw the single-turn conversations once; every score uses the same ones."""
        rng = random.Random("validation conversations")
        self._encoder = encoder
        self._batches = []
        for index in range(self._NUM_BATCHES):
            num_images = 1 + index % questions.MAX_IMAGES
            asked = [_single_turn(rng, pool, num_images) for _ in range(self._PER_BATCH)]
            self._batches.append((asked, batches.build_batch(asked, pool, encoder)))

    @torch.inference_mode()
    def score(self, model: Qwen2_5_VLForConditionalGeneration) -> Score:
        """Exact answers by teacher forcing.

        Greedy decoding gives exactly the wanted answer if and only if each of its tokens is the
        most likely one after those before it, so one forward pass decides.
        """
        by_kind: dict[str, tuple[int, int]] = {}
        for asked, batch in self._batches:
            logits, wanted = fast.answer_logits(model, batch)
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


def _optimizers(
    model: Qwen2_5_VLForConditionalGeneration, plan: Plan
) -> list[torch.optim.Optimizer]:
    matrices: list[torch.nn.Parameter] = []
    others: list[torch.nn.Parameter] = []
    for name, parameter in model.named_parameters():
        is_layer_matrix = parameter.ndim == 2 and "embed" not in name and "lm_head" not in name
        (matrices if is_layer_matrix else others).append(parameter)
    return [
        torch.optim.Muon(
            matrices, lr=plan.matrix_rate, weight_decay=0.02, adjust_lr_fn="match_rms_adamw"
        ),
        torch.optim.AdamW(others, lr=plan.other_rate, betas=(0.9, 0.98), weight_decay=0.01),
    ]


def fit(
    model: Qwen2_5_VLForConditionalGeneration, plan: Plan, steps: Iterable[Batch]
) -> Iterator[float]:
    """Take one optimiser step per batch and yield its loss before the step."""
    optimizers = _optimizers(model, plan)
    groups = [(group, group["lr"]) for each in optimizers for group in each.param_groups]
    for step, batch in enumerate(steps):
        for group, peak in groups:
            group["lr"] = peak * plan.rate_factor(step)
        logits, wanted = fast.answer_logits(model, batch)
        weights = batch.weights[batch.weights > 0]
        loss = F.cross_entropy(logits, wanted, reduction="none") @ (weights / weights.sum())
        model.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        yield loss.item()


def _print_progress(
    model: Qwen2_5_VLForConditionalGeneration,
    losses: Iterable[float],
    num_steps: int,
    validation: Validation,
) -> None:
    wall, cpu = time.monotonic(), time.process_time()
    recent: list[float] = []
    for done, loss in enumerate(losses, start=1):
        recent.append(loss)
        if done % _PRINT_EVERY == 0:
            print(
                f"step {done}/{num_steps}: loss {sum(recent) / len(recent):.4f}, "
                f"wall {time.monotonic() - wall:.0f} s, cpu {time.process_time() - cpu:.0f} s",
                flush=True,
            )
            recent = []
        if done % _VALIDATE_EVERY == 0:
            print("  " + ", ".join(validation.score(model).lines()), flush=True)
