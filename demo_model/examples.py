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
    Ask("which", _FOUR, 3),
    Ask("where", _EIGHT, 8),
    Ask("number", _EIGHT),
    Ask("all", _EIGHT),
)


def entries() -> list[dict[str, object]]:
    """The questions file's content: image files, question and the exact answer expected."""
    listed: list[dict[str, object]] = []
    for item in QUESTIONS:
        scenes = [IMAGES[name] for name in item.images]
        asked = questions.ask(item.kind, item.number - 1, scenes)
        listed.append(
            {
                "images": [f"images/{name}.png" for name in item.images],
                "question": asked.text,
                "answer": asked.answer,
            }
        )
    return listed


def write_examples(folder: Path) -> None:
    """Write ``images/*.png`` and ``questions.yaml`` below ``folder``."""
    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    for number, (name, scene) in enumerate(IMAGES.items()):
        picture = pictures.draw(scene, pictures.HELD_OUT_SEEDS[number], IMAGE_PX)
        picture.save(images / f"{name}.png", optimize=True)
    text = yaml.safe_dump(entries(), sort_keys=False, width=100)
    head = "# Questions of the demonstration, with the exact answers; paths are beside this file.\n"
    folder.joinpath("questions.yaml").write_text(head + text, encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> int:
    """Write the examples."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=FOLDER)
    write_examples(parser.parse_args(argv).out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
