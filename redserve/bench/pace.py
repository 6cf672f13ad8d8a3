"""How many tokens came with the first piece: the pace is that of those after it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pieces:
    """Some pieces of an answer.

    Attributes:
        num_tokens: One for each piece, or as many as the service said.
        length: Of their text, characters.
    """

    num_tokens: int = 0
    length: int = 0

    def and_one(self, num_tokens: int, length: int) -> Pieces:
        """These and one more."""
        return Pieces(self.num_tokens + num_tokens, self.length + length)


def tokens_of_first(
    total: int, first: Pieces, pieces: Pieces, first_total: int | None = None
) -> int:
    """Tokens that came at once when the answer began.

    A service may put many tokens into a piece, and not say how many. Each piece has one at least;
    what is left over is spread by the length of texts.

    Args:
        total: Tokens of the answer.
        first: What came at once.
        pieces: All that came.
        first_total: What the service counted when the first had come, if it told.

    Returns:
        `total` if nothing came later, else less than it.
    """
    if first == pieces:
        return total
    if first_total is not None and 0 < first_total < total:
        return first_total
    share = first.length / pieces.length if pieces.length else 0.0
    left_over = max(0, total - pieces.num_tokens)
    return max(0, min(total - 1, first.num_tokens + round(left_over * share)))
