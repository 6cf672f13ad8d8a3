"""Sequences in the order of their arrival."""

from __future__ import annotations

from bisect import bisect_left
from operator import attrgetter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from redserve.scheduling.sequence import Sequence

_arrival = attrgetter("arrival")


class ArrivalQueue:
    """A set of sequences, iterated oldest first; adding the youngest is the cheap case."""

    __slots__ = ("_sequences",)

    def __init__(self) -> None:
        self._sequences: list[Sequence] = []

    def __len__(self) -> int:
        return len(self._sequences)

    def __iter__(self) -> Iterator[Sequence]:
        return iter(self._sequences)

    def __reversed__(self) -> Iterator[Sequence]:
        return reversed(self._sequences)

    def __contains__(self, sequence: Sequence) -> bool:
        n = self._place(sequence)
        return n < len(self._sequences) and self._sequences[n] is sequence

    def add(self, sequence: Sequence) -> None:
        """Put a sequence in its place; it must not be there yet."""
        if not self._sequences or self._sequences[-1].arrival < sequence.arrival:
            self._sequences.append(sequence)
        else:
            self._sequences.insert(self._place(sequence), sequence)

    def remove(self, sequence: Sequence) -> None:
        """Take a sequence out; nothing happens if it is not there."""
        n = self._place(sequence)
        if n < len(self._sequences) and self._sequences[n] is sequence:
            del self._sequences[n]

    def oldest(self) -> Sequence | None:
        """The one that came first."""
        return self._sequences[0] if self._sequences else None

    def snapshot(self) -> tuple[Sequence, ...]:
        """All of them, oldest first, as they are now."""
        return tuple(self._sequences)

    def _place(self, sequence: Sequence) -> int:
        return bisect_left(self._sequences, sequence.arrival, key=_arrival)
