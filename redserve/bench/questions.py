"""What is asked: a function of the seed and the request's number."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Final

from redserve.bench.numbers import IntRange
from redserve.bench.pictures import PictureSize, draw_png

WORDS: Final = (
    "what", "is", "the", "colour", "of", "image", "and", "how", "small", "square", "in", "a",
    "star", "or", "which", "circle",
)  # fmt: skip
ONE_IMAGE: Final = IntRange(1, 1)
DEFAULT_TOKENS: Final = IntRange(64, 64)
DEFAULT_SIZE: Final = PictureSize(448, 448)


@dataclass(frozen=True, slots=True)
class Question:
    """One request.

    Attributes:
        pictures: Encoded; they come before the text.
        max_tokens: Most tokens of the answer.
    """

    pictures: tuple[bytes, ...]
    text: str
    max_tokens: int


@dataclass(frozen=True, slots=True)
class Workload:
    """Makes questions. What the third one is does not depend on whether the second was asked.

    Attributes:
        seed: Same seed, same questions.
        images: Pictures per question.
        max_tokens: Most tokens of an answer.
        size: Of pictures that are drawn.
        gallery: Pictures to choose from; when empty each one is drawn and never comes again.
        prompt: The text; when None it is made of `num_words` words.
        num_words: Of a text that is made.
    """

    seed: int = 0
    images: IntRange = ONE_IMAGE
    max_tokens: IntRange = DEFAULT_TOKENS
    size: PictureSize = DEFAULT_SIZE
    gallery: tuple[bytes, ...] = ()
    prompt: str | None = None
    num_words: int = 32

    def question(self, index: int, phase: str = "run") -> Question:
        """Question number `index`; those of another phase (warm-up) share no drawn picture."""
        name = f"{self.seed} {phase} {index}"
        rng = Random(f"question {name}")
        num_pictures = self.images.draw(rng)
        max_tokens = self.max_tokens.draw(rng)
        text = self.prompt
        if text is None:
            text = " ".join(rng.choice(WORDS) for _ in range(self.num_words))
        pictures = tuple(
            rng.choice(self.gallery)
            if self.gallery
            else draw_png(self.size, f"picture {name} {number}")
            for number in range(num_pictures)
        )
        return Question(pictures, text, max_tokens)
