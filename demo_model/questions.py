"""What can be asked about one to eight pictures, and the one right answer to each question.

Every answer follows from the scenes alone.  The sentences below are the whole language of the
demo model; its tokenizer takes its vocabulary from them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    from demo_model.pictures import Scene

MAX_IMAGES = 8
NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight")
PLURALS = {
    "circle": "circles",
    "square": "squares",
    "triangle": "triangles",
    "star": "stars",
    "cross": "crosses",
}

WORDINGS: dict[str, tuple[str, ...]] = {
    "what": (
        "what is in image {k}?",
        "what do you see in image {k}?",
        "what does image {k} show?",
        "describe image {k}.",
    ),
    "colour": (
        "what colour {is_the} {things} in image {k}?",
        "what is the colour of the {things} in image {k}?",
    ),
    "digit": ("which digit is in image {k}?", "what digit is in image {k}?"),
    "count": (
        "how many {plural} are in image {k}?",
        "how many {plural} are there in image {k}?",
        "count the {plural} in image {k}.",
    ),
    "where": ("where is the {things} in image {k}?",),
    "number": ("how many images are there?", "how many images do you see?"),
    "all": ("describe all images.", "describe the images.", "what is in the images?"),
}
"""Question kind to the ways of asking it; the first is the one the documentation uses."""

HELD_OUT_WEIGHTS = {
    "what": 5.0,
    "colour": 2.0,
    "digit": 2.0,
    "count": 3.0,
    "where": 3.0,
    "number": 1.0,
    "all": 4.0,
}
"""How often each kind is asked when the model is scored."""


@dataclass(frozen=True, slots=True)
class Question:
    """One question about a list of pictures.

    Attributes:
        kind: a key of ``WORDINGS``.
        text: the question as a user would type it.
        answer: the exact text that counts as right.
    """

    kind: str
    text: str
    answer: str


def describe(scene: Scene) -> str:
    """A scene in words, such as ``a red circle`` or ``three green squares``."""
    article = "an" if scene.colour[0] in "aeiou" else "a"
    if scene.is_digit:
        return f"{article} {scene.colour} digit {scene.thing}"
    if scene.count > 1:
        return f"{NUMBERS[scene.count - 1]} {scene.colour} {PLURALS[scene.thing]}"
    if scene.place is not None:
        return f"a small {scene.colour} {scene.thing} {_locate(scene.place)}"
    return f"{article} {scene.colour} {scene.thing}"


def describe_all(scenes: Sequence[Scene]) -> str:
    """All scenes in words, in their order."""
    return ", ".join(f"image {k}: {describe(scene)}" for k, scene in enumerate(scenes, start=1))


def targets(kind: str, scenes: Sequence[Scene]) -> list[int]:
    """Which pictures (from 0) a question of this kind can be about; [0] for one about all."""
    if kind in ("number", "all"):
        return [0]
    if kind in ("what", "colour"):
        return list(range(len(scenes)))
    if kind == "digit":
        return [k for k, scene in enumerate(scenes) if scene.is_digit]
    if kind == "count":
        return [k for k, scene in enumerate(scenes) if not scene.is_digit]
    if kind == "where":
        return [k for k, scene in enumerate(scenes) if scene.place is not None]
    raise ValueError(f"unknown question kind {kind!r}; the kinds are {', '.join(WORDINGS)}")


def ask(kind: str, target: int, scenes: Sequence[Scene], wording: str | None = None) -> Question:
    """The question of this kind about picture ``target`` (from 0), with its answer.

    Args:
        kind: a key of ``WORDINGS``.
        target: one of ``targets(kind, scenes)``; ignored by questions about all pictures.
        scenes: what the pictures show.
        wording: one of ``WORDINGS[kind]``; the first when None.

    Raises:
        ValueError: the kind cannot be asked about that picture.
    """
    possible = targets(kind, scenes)
    if target not in possible:
        raise ValueError(f"cannot ask {kind!r} about picture {target}; possible: {possible}")
    scene = scenes[target]
    noun = "digit" if scene.is_digit else scene.thing
    plural = PLURALS.get(noun, noun)
    is_many = scene.count > 1
    things = plural if is_many else noun
    text = (wording or WORDINGS[kind][0]).format(
        k=target + 1,
        is_the="are the" if is_many else "is the",
        things=things,
        plural=plural,
    )
    answers = {
        "what": describe(scene),
        "colour": scene.colour,
        "digit": scene.thing,
        "count": NUMBERS[scene.count - 1],
        "where": _locate(scene.place or "centre"),
        "number": NUMBERS[len(scenes) - 1],
        "all": describe_all(scenes),
    }
    return Question(kind, text, answers[kind])


def random_question(
    rng: random.Random, scenes: Sequence[Scene], weights: dict[str, float]
) -> Question:
    """A question of a kind that these scenes allow, drawn by ``weights``, in any wording."""
    kinds = [kind for kind in weights if targets(kind, scenes)]
    kind = rng.choices(kinds, [weights[kind] for kind in kinds])[0]
    target = rng.choice(targets(kind, scenes))
    return ask(kind, target, scenes, rng.choice(WORDINGS[kind]))


def _locate(place: str) -> str:
    return "in the centre" if place == "centre" else f"at the {place}"
