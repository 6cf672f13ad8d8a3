"""The pictures and questions of the demonstration, drawn by the same code as everything else.

Run ``python -m demo_model.examples`` to write ``examples/images`` and ``examples/questions.yaml``.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from PIL import Image

from demo_model import pictures, questions
from demo_model.pictures import Scene

if TYPE_CHECKING:
    from collections.abc import Sequence

FOLDER = Path(__file__).resolve().parents[1] / "examples"
IMAGE_PX = 256

IMAGES = {
    "red-circle": Scene("red", "circle"),
    "blue-digit-7": Scene("blue", "7"),
    "three-green-squares": Scene("green", "square", count=3),
    "yellow-star-top-left": Scene("yellow", "star", place="top left"),
    "purple-triangle": Scene("purple", "triangle"),
    "orange-digit-4": Scene("orange", "4"),
    "five-blue-circles": Scene("blue", "circle", count=5),
    "red-cross-bottom-right": Scene("red", "cross", place="bottom right"),
    "green-star": Scene("green", "star"),
    "two-purple-stars": Scene("purple", "star", count=2),
}
"""File name without suffix to what the picture shows."""


@dataclass(frozen=True, slots=True)
class Ask:
    """A question of the demonstration: its kind, its pictures, and which of them (from 1)."""

    kind: str
    images: tuple[str, ...]
    number: int = 1


_EIGHT = tuple(IMAGES)[:8]
_FOUR = ("purple-triangle", "five-blue-circles", "green-star", "blue-digit-7")

QUESTIONS = (
    Ask("what", ("red-circle",)),
    Ask("digit", ("blue-digit-7",)),
    Ask("count", ("three-green-squares",)),
    Ask("where", ("yellow-star-top-left",)),
    Ask("what", ("green-star", "orange-digit-4"), 2),
    Ask("colour", ("two-purple-stars", "red-circle", "blue-digit-7"), 1),
    Ask("count", _FOUR, 2),
    Ask("what", _FOUR, 3),
    Ask("where", _EIGHT, 8),
    Ask("number", _EIGHT),
    Ask("all", _EIGHT),
)


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of ``questions.yaml``.

    Attributes:
        images: picture files, relative to the file.
        question: what to ask about them.
        answer: the exact answer.
    """

    images: tuple[str, ...]
    question: str
    answer: str

    def open_images(self, folder: Path) -> list[Image.Image]:
        """The pictures, read from below ``folder``."""
        return [Image.open(folder / name).convert("RGB") for name in self.images]


def entries() -> list[Entry]:
    """The questions of the demonstration, in their order."""
    listed = []
    for item in QUESTIONS:
        asked = questions.ask(item.kind, item.number - 1, [IMAGES[name] for name in item.images])
        files = tuple(f"images/{name}.png" for name in item.images)
        listed.append(Entry(files, asked.text, asked.answer))
    return listed


def seeds() -> range:
    """The seeds of ``IMAGES``, in their order."""
    return pictures.HELD_OUT_SEEDS[: len(IMAGES)]


def write_examples(folder: Path) -> None:
    """Write ``images/*.png`` and ``questions.yaml`` below ``folder``."""
    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    for (name, scene), seed in zip(IMAGES.items(), seeds(), strict=True):
        pictures.draw(scene, seed, IMAGE_PX).save(images / f"{name}.png", optimize=True)
    plain = [
        {"images": list(entry.images), "question": entry.question, "answer": entry.answer}
        for entry in entries()
    ]
    head = "# Questions of the demonstration with their exact answers; paths start here.\n"
    text = yaml.safe_dump(plain, sort_keys=False, width=100)
    folder.joinpath("questions.yaml").write_text(head + text, encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> int:
    """Write the examples."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=FOLDER)
    write_examples(parser.parse_args(argv).out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
