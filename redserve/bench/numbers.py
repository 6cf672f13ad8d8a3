"""Ranges that a command line names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from random import Random


@dataclass(frozen=True, slots=True)
class IntRange:
    """Whole numbers from `least` to `most`, both included, all with equal chances.

    Raises:
        ValueError: `least` is below 0 or above `most`.
    """

    least: int
    most: int

    def __post_init__(self) -> None:
        if not 0 <= self.least <= self.most:
            raise ValueError(f"{self.least}-{self.most} is no range of numbers")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read "4" or "0-8".

        Raises:
            ValueError: It is neither.
        """
        least, dash, most = text.partition("-")
        if not (_is_number(least) and (_is_number(most) if dash else True)):
            raise ValueError(f"{text!r}: write a number (4) or a range (0-8)")
        return cls(int(least), int(most if dash else least))

    def __str__(self) -> str:
        return str(self.least) if self.least == self.most else f"{self.least}-{self.most}"

    def draw(self, rng: Random) -> int:
        """One of them."""
        return rng.randint(self.least, self.most)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= 9
