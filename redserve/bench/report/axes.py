"""Axes and the frame that charts are drawn in."""

from __future__ import annotations

from dataclasses import dataclass
from math import floor, log10
from typing import Final

from redserve.bench.report.svg import tag, text

WIDTH: Final = 640
HEIGHT: Final = 240
LEFT: Final = 56
RIGHT: Final = 16
TOP: Final = 12
BOTTOM: Final = 44
NUM_STEPS: Final = 6
"""Steps of an axis, at most."""


def ticks(top: float) -> tuple[float, ...]:
    """Round numbers from 0 up to one that is not below `top`, which is above 0."""
    raw = top / NUM_STEPS
    unit = 10.0 ** floor(log10(raw))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= raw * (1 - 1e-9))
    found = [0.0]
    while found[-1] < top * (1 - 1e-9):
        found.append(len(found) * step)
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Axis:
    """From 0 to the last tick.

    Attributes:
        label: What it measures, unit included.
        ticks: Values that are named, ascending; the first is 0 and the last above 0.
        unit: What one of the label's unit is in that of the values.
    """

    label: str
    ticks: tuple[float, ...]
    unit: float = 1.0

    @classmethod
    def of_seconds(cls, what: str, top_s: float) -> Axis:
        """In milliseconds if that reads better."""
        top_s = top_s if top_s > 0 else 1.0
        if top_s < 1:
            return cls(f"{what}, ms", ticks(top_s), 1e-3)
        return cls(f"{what}, s", ticks(top_s))

    @classmethod
    def of_counts(cls, what: str, top: int) -> Axis:
        """Whole numbers."""
        whole = tuple(value for value in ticks(max(1, top)) if value == int(value))
        return cls(what, whole)

    @property
    def top(self) -> float:
        """The largest value that is inside."""
        return self.ticks[-1]

    def name(self, value: float) -> str:
        """A tick in the label's unit."""
        return f"{value / self.unit:.6g}"


PERCENT: Final = Axis("requests, %", (0.0, 0.25, 0.5, 0.75, 1.0), 0.01)


@dataclass(frozen=True, slots=True)
class Frame:
    """Values to places, and the lines around them."""

    x: Axis
    y: Axis

    def px(self, value: float) -> float:
        """Place along the width."""
        return LEFT + (WIDTH - LEFT - RIGHT) * value / self.x.top

    def py(self, value: float) -> float:
        """Place along the height; values grow upwards."""
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * value / self.y.top

    def svg(self, name: str, *marks: str) -> str:
        """The whole chart; `name` is what a screen reader says."""
        return tag(
            "svg",
            *self._grid(),
            *marks,
            viewBox=f"0 0 {WIDTH} {HEIGHT}",
            role="img",
            aria_label=name,
        )

    def _grid(self) -> list[str]:
        right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
        parts = []
        for value in self.y.ticks:
            y = self.py(value)
            parts.append(tag("line", class_="grid", x1=LEFT, y1=y, x2=right, y2=y))
            label = text(self.y.name(value))
            parts.append(tag("text", label, class_="y", x=LEFT - 8, y=y + 4))
        for value in self.x.ticks:
            label = text(self.x.name(value))
            parts.append(tag("text", label, class_="x", x=self.px(value), y=bottom + 18))
        middle = (LEFT + right) / 2
        parts.append(tag("text", text(self.x.label), class_="x label", x=middle, y=HEIGHT - 6))
        turn = f"translate(14 {(TOP + bottom) / 2:g}) rotate(-90)"
        parts.append(tag("text", text(self.y.label), class_="x label", transform=turn))
        return parts
