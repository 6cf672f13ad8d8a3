"""The training loop: a curriculum of conversations about drawn pictures, on one CPU core.

Three stages share one schedule of learning rates.  *Seeing*: one picture per prompt.  *Pointing*:
more and more pictures, while the vision tower rests and its visual tokens are computed only once,
which halves the cost of the longest stage.  *Both*: everything learns together.
"""

from __future__ import annotations

import math
import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows

from demo_model import batches, fast, pictures, questions
from demo_model.batches import Batch, Encoder, Pool
from demo_model.validation import Validation

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor
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
        seeing_until: share of the steps after which prompts have several pictures.
        all_from: share of the steps after which prompts have up to all eight.
        pointing_until: share of the steps after which the vision tower learns again.
    """

    num_steps: int = 4200
    num_pictures: int = 24_000
    seed: int = 0
    matrix_rate: float = 4e-3
    other_rate: float = 1.5e-3
    warmup_steps: int = 100
    seeing_until: float = 0.1
    all_from: float = 0.4
    pointing_until: float = 0.7

    def rate_factor(self, step: int) -> float:
        """Multiplier of both learning rates: warm-up, then a cosine down to 2 %."""
        warm = min(1.0, (step + 1) / self.warmup_steps)
        return warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / self.num_steps)))

    def max_images(self, step: int) -> int:
        """Pictures per prompt at most: one, then more and more."""
        done = step / self.num_steps
        if done < self.seeing_until:
            return 1
        grown = (done - self.seeing_until) / (self.all_from - self.seeing_until)
        return min(questions.MAX_IMAGES, 2 + int(grown * (questions.MAX_IMAGES - 1)))

    def vision_rests(self, step: int) -> bool:
        """Whether this step belongs to the stage that only learns to point."""
        return self.seeing_until <= step / self.num_steps < self.pointing_until


class Trainer:
    """A model on its way: weights, optimisers, random numbers and the number of steps taken."""

    def __init__(self, plan: Plan, pool: Pool) -> None:
        """Start from random weights; ``pool`` stays the caller's and is only read."""
        torch.manual_seed(plan.seed)
        self.model: Qwen2_5_VLForConditionalGeneration = fast.build_model()
        self.num_done = 0
        self._plan = plan
        self._pool = pool
        self._encoder = Encoder()
        self._rng = random.Random(f"training conversations {plan.seed}")
        self._optimizers = _optimizers(self.model, plan)
        self._peaks = (plan.matrix_rate, plan.other_rate)
        self._resting: Tensor | None = None

    def step(self) -> float:
        """Take one optimiser step on fresh conversations; returns the loss before it."""
        return self.step_on(self.next_batch())

    def next_batch(self) -> Batch:
        """Conversations for the next step, all of them about equally many pictures."""
        num_images = self._rng.randint(1, self._plan.max_images(self.num_done))
        chosen = [
            batches.random_conversation(self._rng, self._pool, num_images)
            for _ in range(IMAGES_PER_STEP // num_images)
        ]
        return batches.build_batch(chosen, self._encoder)

    def step_on(self, batch: Batch) -> float:
        """Take one optimiser step on ``batch``; returns the loss before it."""
        for optimizer, peak in zip(self._optimizers, self._peaks, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = peak * self._plan.rate_factor(self.num_done)
        logits, wanted = fast.answer_logits(self.model, batch, self._visual_tokens(batch))
        weights = batch.weights[batch.weights > 0]
        loss = F.cross_entropy(logits, wanted, reduction="none") @ (weights / weights.sum())
        self.model.zero_grad()  # None, not zero: the optimisers pass over a tower that rests
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self._optimizers:
            optimizer.step()
        self.num_done += 1
        return loss.item()

    def save(self, file: Path) -> None:
        """Write everything that ``restore`` needs to go on."""
        state = {
            "plan": repr(self._plan),
            "num_done": self.num_done,
            "rng": self._rng.getstate(),
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self._optimizers],
        }
        partial = file.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(file)

    def restore(self, file: Path) -> None:
        """Go on from a saved state.

        Raises:
            ValueError: the state belongs to another plan.
        """
        state: dict[str, Any] = torch.load(file, weights_only=True)
        if state["plan"] != repr(self._plan):
            raise ValueError(f"{file} belongs to another plan ({state['plan']}); remove it")
        self.num_done = state["num_done"]
        self._rng.setstate(state["rng"])
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self._optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)

    def _visual_tokens(self, batch: Batch) -> Tensor:
        if not self._plan.vision_rests(self.num_done):
            self._resting = None
            return fast.encode_pictures(self.model, self._pool.pixels(batch.images))
        if self._resting is None:
            with torch.no_grad():
                every = torch.split(torch.arange(len(self._pool.frames)), 512)
                parts = [
                    fast.encode_pictures(self.model, self._pool.pixels(part)) for part in every
                ]
            self._resting = torch.cat(parts)
        return self._resting[batch.images]


def train(plan: Plan, state: Path | None = None) -> Qwen2_5_VLForConditionalGeneration:
    """Draw the pictures and train a model, printing progress; returns it in evaluation mode.

    Args:
        plan: what to do.
        state: file to save progress in now and then, and to go on from when it exists.
    """
    rng = random.Random(f"training pictures {plan.seed}")
    seeds = pictures.TRAINING_SEEDS
    began = time.monotonic()
    pool = batches.prepare_pool(plan.num_pictures, seeds, rng)
    unseen = batches.prepare_pool(_NUM_VALIDATION_PICTURES, seeds[plan.num_pictures :], rng)
    print(f"{plan.num_pictures} pictures drawn in {time.monotonic() - began:.0f} s", flush=True)
    trainer = Trainer(plan, pool)
    if state is not None and state.exists():
        trainer.restore(state)
    validation = Validation(unseen, Encoder())
    began, cpu = time.monotonic(), time.process_time()
    recent: list[float] = []
    while trainer.num_done < plan.num_steps:
        recent.append(trainer.step())
        if trainer.num_done % _PRINT_EVERY == 0:
            print(
                f"step {trainer.num_done}/{plan.num_steps}: "
                f"loss {sum(recent) / len(recent):.4f}, wall {time.monotonic() - began:.0f} s, "
                f"cpu {time.process_time() - cpu:.0f} s",
                flush=True,
            )
            recent = []
        if trainer.num_done % _VALIDATE_EVERY == 0:
            print("  " + ", ".join(validation.score(trainer.model).lines()), flush=True)
            if state is not None:
                trainer.save(state)
    return trainer.model.eval()


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
