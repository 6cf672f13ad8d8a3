"""What the demo model looks at: coloured shapes and digits, drawn from a scene and a seed.

A picture is a pure function of ``(scene, seed, size_px)``.  Shades, sizes, places and grey
backgrounds vary with the seed, never what the scene says: the right answer is always visible.
"""

from __future__ import annotations

import functools
import math
import random
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (220, 40, 40),
    "green": (40, 170, 60),
    "blue": (50, 80, 220),
    "yellow": (235, 210, 40),
    "purple": (150, 50, 180),
    "orange": (240, 140, 30),
}
SHAPES = ("circle", "square", "triangle", "star", "cross")
DIGITS = tuple(str(digit) for digit in range(10))
COUNTS = (2, 3, 4, 5)

GRID = 3
"""Small things stand in the cells of a 3 x 3 grid, so that they never touch."""
PLACES: dict[str, tuple[int, int]] = {
    "top left": (0, 0),
    "top right": (0, 2),
    "centre": (1, 1),
    "bottom left": (2, 0),
    "bottom right": (2, 2),
}
"""Place name to (row, column) of the grid."""

TRAINING_SEEDS = range(1_000_000)
HELD_OUT_SEEDS = range(1_000_000, 2_000_000)
"""A picture drawn for scoring never shares its seed with a picture drawn for training."""

_BACKGROUNDS = (245, 245, 25, 120)
_SUPERSAMPLING = 2


@dataclass(frozen=True, slots=True)
class Scene:
    """What one picture shows.

    Attributes:
        colour: a key of ``COLOURS``.
        thing: one of ``SHAPES`` or ``DIGITS``.
        count: how many equal shapes; 1 for a digit.
        place: where a single small shape stands; None when the thing fills the picture.
    """

    colour: str
    thing: str
    count: int = 1
    place: str | None = None

    @property
    def is_digit(self) -> bool:
        """Whether the thing is a digit rather than a shape."""
        return self.thing in DIGITS

    @property
    def family(self) -> str:
        """Which of the four sorts of picture this is: shape, digit, count or place."""
        if self.is_digit:
            return "digit"
        if self.count > 1:
            return "count"
        return "shape" if self.place is None else "place"


def all_scenes() -> dict[str, tuple[Scene, ...]]:
    """Every scene there is, by family."""
    shapes = [Scene(colour, shape) for colour in COLOURS for shape in SHAPES]
    return {
        "shape": tuple(shapes),
        "digit": tuple(Scene(colour, digit) for colour in COLOURS for digit in DIGITS),
        "count": tuple(Scene(s.colour, s.thing, count=n) for s in shapes for n in COUNTS),
        "place": tuple(Scene(s.colour, s.thing, place=place) for s in shapes for place in PLACES),
    }


def random_scene(rng: random.Random) -> Scene:
    """A scene: first its family, then any scene of it, both with equal chances."""
    scenes = _scenes()
    return rng.choice(scenes[rng.choice(tuple(scenes))])


def draw(scene: Scene, seed: int, size_px: int) -> Image.Image:
    """Draw one square RGB picture of ``size_px`` by ``size_px`` pixels."""
    rng = random.Random(seed)
    canvas_px = size_px * _SUPERSAMPLING
    grey = rng.choice(_BACKGROUNDS) + rng.randint(-15, 8)
    image = Image.new("RGB", (canvas_px, canvas_px), (grey, grey, grey))
    pen = ImageDraw.Draw(image)
    red, green, blue = (
        max(0, min(255, channel + rng.randint(-18, 18))) for channel in COLOURS[scene.colour]
    )
    for left, top, side in _boxes(scene, rng, canvas_px):
        _draw_thing(pen, scene.thing, (left, top, side), (red, green, blue))
    return image.reduce(_SUPERSAMPLING)


@functools.cache
def _scenes() -> dict[str, tuple[Scene, ...]]:
    return all_scenes()


@functools.cache
def _font(size_px: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size_px)


def _boxes(scene: Scene, rng: random.Random, canvas_px: int) -> list[tuple[float, float, float]]:
    """Left, top and side of the square around each thing of the scene, in canvas pixels."""
    if scene.family in ("shape", "digit"):
        side = rng.uniform(0.58, 0.86) * canvas_px
        margin = 0.03 * canvas_px
        left, top = (rng.uniform(margin, canvas_px - side - margin) for _ in range(2))
        return [(left, top, side)]
    if scene.place is not None:
        cells = [PLACES[scene.place]]
    else:
        cells = rng.sample([(r, c) for r in range(GRID) for c in range(GRID)], scene.count)
    cell_px = canvas_px / GRID
    side = rng.uniform(0.74, 0.9) * cell_px
    slack = cell_px - side
    return [
        (
            column * cell_px + slack * rng.uniform(0.15, 0.85),
            row * cell_px + slack * rng.uniform(0.15, 0.85),
            side,
        )
        for row, column in cells
    ]


def _draw_thing(
    pen: ImageDraw.ImageDraw,
    thing: str,
    box: tuple[float, float, float],
    fill: tuple[int, int, int],
) -> None:
    left, top, side = box
    half = side / 2
    if thing == "circle":
        pen.ellipse((left, top, left + side, top + side), fill=fill)
    elif thing == "square":
        inset = side * 0.05
        pen.rectangle(
            (left + inset, top + inset, left + side - inset, top + side - inset), fill=fill
        )
    elif thing == "triangle":
        pen.polygon([(left + half, top), (left + side, top + side), (left, top + side)], fill=fill)
    elif thing == "star":
        pen.polygon(_star(left + half, top + half, half), fill=fill)
    elif thing == "cross":
        arm = side * 0.3
        start = half - arm / 2
        pen.rectangle((left + start, top, left + start + arm, top + side), fill=fill)
        pen.rectangle((left, top + start, left + side, top + start + arm), fill=fill)
    else:
        font = _font(round(side * 1.2))
        pen.text(
            (left + half, top + half),
            thing,
            fill=fill,
            font=font,
            anchor="mm",
            stroke_width=round(side * 0.03),
        )


def _star(centre_x: float, centre_y: float, radius: float) -> list[tuple[float, float]]:
    points = []
    for corner in range(10):
        reach = radius if corner % 2 == 0 else radius * 0.42
        angle = corner * math.pi / 5
        points.append((centre_x + reach * math.sin(angle), centre_y - reach * math.cos(angle)))
    return points
