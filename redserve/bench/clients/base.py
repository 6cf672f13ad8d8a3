"""What a client of a service under load can do."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Final, Protocol, Self

from redserve.bench.outcome import Answer, Problem
from redserve.bench.pace import Pieces, tokens_of_first
from redserve.slo import End
from redserve.telemetry.foreign import said

if TYPE_CHECKING:
    from redserve.bench.questions import Question

NO_TOKEN: Final = Problem(End.FAILED, "NO_TOKEN", "the answer ended without a token")


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


def problem_of(end: End | None, reason: str, message: str) -> Problem:
    """What went wrong; the message has words of the other side, and can be shown all the same."""
    return Problem(end, reason, said(message))


class Client(Protocol):
    """An open connection to a service, used as an asynchronous context manager.

    Entering raises the error tree when the service cannot be asked at all.
    """

    @property
    def model(self) -> str:
        """Name of the model that answers, for people: one printable line."""

    async def __aenter__(self) -> Self:
        """Connect."""

    async def __aexit__(self, *_exc: object) -> None:
        """Close."""

    async def ask(self, question: Question) -> Answer:
        """Ask and read the whole answer; what goes wrong is in it, not raised.

        Its times are those of `time.perf_counter`.
        """


class Stopwatch:
    """Notes when text comes; begins when it is made, in a running event loop."""

    def __init__(self) -> None:
        self._start_s = perf_counter()
        self._first_s: float | None = None
        self._last_s: float | None = None
        self._first = Pieces()
        self._all = Pieces()
        self._first_total: int | None = None
        self._in_first = False

    @property
    def has_begun(self) -> bool:
        """Whether anything came."""
        return self._first_s is not None

    def note(self, num_tokens: int = 1, *, length: int = 0, total: int | None = None) -> None:
        """A piece came just now.

        What is noted before the event loop turns again came together with the first piece.

        Args:
            num_tokens: Of the piece; 1 if nobody says.
            length: Of its text, characters.
            total: Tokens until now, if the service tells.
        """
        self._last_s = perf_counter()
        if self._first_s is None:
            self._first_s = self._last_s
            self._in_first = True
            asyncio.get_running_loop().call_soon(self._end_first)
        self._all = self._all.and_one(num_tokens, length)
        if self._in_first:
            self._first = self._all
            self._first_total = total

    def stop(
        self, problem: Problem | None = None, *, num_tokens: int | None = None, counted: bool = True
    ) -> Answer:
        """The answer ends now.

        Args:
            problem: Why it is not whole.
            num_tokens: The service's own count; None takes what was noted.
            counted: Whether what was noted are tokens.
        """
        total = self._all.num_tokens if num_tokens is None else num_tokens
        return Answer(
            start_s=self._start_s,
            end_s=perf_counter(),
            first_token_s=self._first_s,
            last_token_s=self._last_s,
            num_tokens=total,
            num_first=tokens_of_first(total, self._first, self._all, self._first_total),
            counted=counted or num_tokens is not None,
            problem=problem,
        )

    def _end_first(self) -> None:
        self._in_first = False
