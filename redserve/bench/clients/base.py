"""What a client of a service under load can do."""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Protocol, Self

from redserve.bench.outcome import Answer

if TYPE_CHECKING:
    from redserve.bench.outcome import Problem
    from redserve.bench.questions import Question


@dataclass(frozen=True, slots=True)
class Manners:
    """How every question is asked.

    Attributes:
        model: Served name; empty asks the service for it.
        temperature: 0 takes the likeliest token.
        ignore_eos: Whether an answer always has its most tokens; a field that not every server
            knows.
        timeout_s: Deadline of a request, seconds.
    """

    model: str = ""
    temperature: float = 0.0
    ignore_eos: bool = False
    timeout_s: float = 300.0


class Client(Protocol):
    """An open connection to a service, used as an asynchronous context manager.

    Entering raises the error tree when the service cannot be asked at all.
    """

    @property
    def model(self) -> str:
        """Name of the model that answers."""

    async def __aenter__(self) -> Self:
        """Connect."""

    async def __aexit__(self, *_exc: object) -> None:
        """Close."""

    async def ask(self, question: Question) -> Answer:
        """Ask and read the whole answer; what goes wrong is in it, not raised.

        Its times are those of `time.perf_counter`.
        """


class Stopwatch:
    """Notes when text comes; begins when it is made."""

    def __init__(self) -> None:
        self._start_s = perf_counter()
        self._first_s: float | None = None
        self._last_s: float | None = None
        self._num_pieces = 0

    def note(self, num_tokens: int = 1) -> None:
        """So many tokens came just now."""
        self._last_s = perf_counter()
        if self._first_s is None:
            self._first_s = self._last_s
        self._num_pieces += num_tokens

    def stop(
        self, problem: Problem | None = None, *, num_tokens: int | None = None, counted: bool = True
    ) -> Answer:
        """The answer ends now.

        Args:
            problem: Why it is not whole.
            num_tokens: The service's own count; None takes what was noted.
            counted: Whether what was noted are tokens.
        """
        return Answer(
            start_s=self._start_s,
            end_s=perf_counter(),
            first_token_s=self._first_s,
            last_token_s=self._last_s,
            num_tokens=self._num_pieces if num_tokens is None else num_tokens,
            counted=counted or num_tokens is not None,
            problem=problem,
        )
