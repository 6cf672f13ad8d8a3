"""What may go wrong between a client and the API server: values that a `FaultProxy` acts upon."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Final

WRITES: Final = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_ASKING: Final = ("/apis/authorization.k8s.io/", "/apis/authentication.k8s.io/")
"""Posted, but nothing is stored."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request as it arrives.

    Attributes:
        method: HTTP method.
        path: Without the query.
        query: Last value of each parameter.
        headers: As they came; names in lower case.
        number: How many calls of its kind came before, plus one: writes that change the cluster are
            counted apart from everything else.
        body: Of a write; empty for others.
    """

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    number: int = 0
    body: bytes = b""

    @property
    def is_watch(self) -> bool:
        """A stream that does not end."""
        return self.query.get("watch") in ("1", "true", "True")

    @property
    def is_write(self) -> bool:
        """Changes the cluster. Leases are left out, as their writes tell time and nothing else."""
        return (
            self.method in WRITES
            and not self.path.startswith(_ASKING)
            and "/leases" not in self.path
            and "dryRun" not in self.query
        )


@dataclass(frozen=True, slots=True)
class Answer:
    """The call is not forwarded; this is the answer.

    Attributes:
        status: HTTP status, such as 429 or 500.
        retry_after_s: Whole seconds of a Retry-After header; None sends none.
    """

    status: int
    retry_after_s: int | None = None


@dataclass(frozen=True, slots=True)
class Expired:
    """For watches: they begin, and tell at once that their resource version is too old.

    So API servers say it: the HTTP status is 200, and the stream's only event is an ERROR of code
    410 (k8s.io/apiserver, `newErrWatcher` of the watch cache).
    """


@dataclass(frozen=True, slots=True)
class Cut:
    """The connection ends without an answer.

    Attributes:
        after: The call is forwarded first, and its outcome never told.
    """

    after: bool = False


@dataclass(frozen=True, slots=True)
class Kill:
    """SIGKILL for a process, which gets no answer.

    Attributes:
        pid: Which.
        after: The call is forwarded first.
    """

    pid: int
    after: bool = False

    def strike(self) -> None:
        """Kill it."""
        os.kill(self.pid, signal.SIGKILL)


@dataclass(frozen=True, slots=True)
class Delay:
    """The call is forwarded later, by this many seconds."""

    seconds: float


Fault = Answer | Expired | Cut | Kill | Delay
Rule = Callable[[Call], Fault | None]
"""Says what befalls a call; None lets it pass. Called in the order in which calls arrive."""


def no_faults(_: Call) -> Fault | None:
    """Everything passes."""
    return None


def kill_at_write(number: int, pid: int, *, after: bool) -> Rule:
    """The process dies at its `number`-th write (from 1), before or after that is forwarded."""

    def rule(call: Call) -> Fault | None:
        return Kill(pid, after) if call.is_write and call.number == number else None

    return rule


def refuse_some(share: float, statuses: Collection[int] = (429, 500), *, seed: int = 0) -> Rule:
    """A share of all calls but watches is refused; 429 asks to come back after one second."""
    dice = random.Random(seed)
    choices = sorted(statuses)

    def rule(call: Call) -> Fault | None:
        if call.is_watch or dice.random() >= share:
            return None
        status = dice.choice(choices)
        return Answer(status, retry_after_s=1 if status == 429 else None)

    return rule
