"""Exact-match scoring: prompts that training never saw, and how often an answerer is right."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from PIL import Image

from demo_model import pictures, questions

HELD_OUT_PX = 224
"""Side of a held-out picture; training never draws at this size."""

Answerer: TypeAlias = Callable[[Sequence[Image.Image], str], str]
"""Whatever answers a question about pictures: a local model, or a running service."""


class Prompt(NamedTuple):
    """One held-out question; unpacks as ``images, question, answer, kind``."""

    images: list[Image.Image]
    question: str
    answer: str
    kind: str


@dataclass(frozen=True, slots=True)
class Mistake:
    """An answer that was not exactly right."""

    question: str
    wanted: str
    got: str


@dataclass(frozen=True, slots=True)
class Score:
    """How many prompts were answered exactly.

    Attributes:
        by_kind: question kind to (right, asked), in alphabetical order.
        mistakes: every wrong answer.
    """

    by_kind: dict[str, tuple[int, int]]
    mistakes: tuple[Mistake, ...] = ()

    @property
    def num_right(self) -> int:
        """Prompts answered exactly."""
        return sum(right for right, _ in self.by_kind.values())

    @property
    def num_asked(self) -> int:
        """Prompts asked."""
        return sum(asked for _, asked in self.by_kind.values())

    @property
    def accuracy(self) -> float:
        """Share of exact answers, from 0 to 1; 0 when nothing was asked."""
        return self.num_right / self.num_asked if self.num_asked else 0.0

    def lines(self) -> list[str]:
        """The figures for people, overall first."""
        kinds = [f"{kind:>8}: {right}/{asked}" for kind, (right, asked) in self.by_kind.items()]
        overall = f"exact answers: {self.num_right}/{self.num_asked} ({self.accuracy:.1%})"
        return [overall, *kinds]


def held_out(count: int, seed: int) -> Iterator[Prompt]:
    """Prompts of one to eight pictures, each drawn from a seed that training cannot use.

    The same ``(count, seed)`` gives the same prompts; a larger count begins with the smaller one.
    """
    rng = random.Random(f"held-out prompts {seed}")
    for index in range(count):
        num_images = 1 + index % questions.MAX_IMAGES
        scenes = [pictures.random_scene(rng) for _ in range(num_images)]
        drawn = [
            pictures.draw(scene, rng.choice(pictures.HELD_OUT_SEEDS), HELD_OUT_PX)
            for scene in scenes
        ]
        asked = questions.random_question(rng, scenes, questions.HELD_OUT_WEIGHTS)
        yield Prompt(drawn, asked.text, asked.answer, asked.kind)


def is_exact(answer: str, wanted: str) -> bool:
    """Whether an answer counts: equal text, white space at the ends aside."""
    return answer.strip() == wanted


def score(prompts: Iterable[Prompt], answer: Answerer) -> Score:
    """Ask every prompt, one after the other, and count the exact answers."""
    return tally((prompt, answer(prompt.images, prompt.question)) for prompt in prompts)


def tally(answered: Iterable[tuple[Prompt, str]]) -> Score:
    """Count exact answers among prompts that were already asked, in any order."""
    by_kind: dict[str, tuple[int, int]] = {}
    mistakes = []
    for prompt, got in answered:
        exact = is_exact(got, prompt.answer)
        right, asked = by_kind.get(prompt.kind, (0, 0))
        by_kind[prompt.kind] = (right + exact, asked + 1)
        if not exact:
            mistakes.append(Mistake(prompt.question, prompt.answer, got))
    return Score(dict(sorted(by_kind.items())), tuple(mistakes))
