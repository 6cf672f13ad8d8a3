"""What the engine tells the outside of its thread, as frozen values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redserve.domain import FinishReason, SequenceKey, TokenOutput, Usage
    from redserve.errors import RedServeError
    from redserve.scheduling.config import SchedulerStats
    from redserve.telemetry.timeline import Bar


@dataclass(frozen=True, slots=True)
class Delta:
    """New tokens of a sequence and the text that they complete."""

    key: SequenceKey
    text: str
    tokens: tuple[TokenOutput, ...]


@dataclass(frozen=True, slots=True)
class Begun:
    """The first chunk of a sequence has run, in a step that started then."""

    key: SequenceKey
    start_ns: int


@dataclass(frozen=True, slots=True)
class Worked:
    """What was just done for a sequence that is watched; `Ended` has these bars again."""

    key: SequenceKey
    bars: tuple[Bar, ...]


@dataclass(frozen=True, slots=True)
class Ended:
    """A sequence is complete, or was cancelled; nothing follows but `Gone`.

    Attributes:
        bars: What the engine did for it: queue, prefill, decode.
    """

    key: SequenceKey
    reason: FinishReason
    usage: Usage
    bars: tuple[Bar, ...]


@dataclass(frozen=True, slots=True)
class Failed:
    """A sequence cannot be completed; nothing follows but `Gone`.

    Attributes:
        bars: As of `Ended`.
    """

    key: SequenceKey
    error: RedServeError
    bars: tuple[Bar, ...] = ()


@dataclass(frozen=True, slots=True)
class RowsUsed:
    """Rows of an item below `row_end` are computed."""

    key: SequenceKey
    item_index: int
    row_end: int


@dataclass(frozen=True, slots=True)
class RowsNeeded:
    """Rows of items must be put (again), all of them."""

    key: SequenceKey
    item_indices: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Gone:
    """No step reads anything of the sequence any more; its rows may be freed."""

    key: SequenceKey


Notice = Delta | Begun | Worked | Ended | Failed | RowsUsed | RowsNeeded | Gone


class Outlet(Protocol):
    """Where notices go. Called from the engine's thread and from its callers, never concurrently.

    Implementations hand over and return at once: the engine's lock is held.
    """

    def notify(self, notices: Sequence[Notice]) -> None:
        """Take notices, in the order in which they happened."""
        ...

    def load(self, stats: SchedulerStats) -> None:
        """Take the current load."""
        ...

    def broken(self, error: BaseException) -> None:
        """The engine will run no more step; all its sequences have failed."""
        ...
