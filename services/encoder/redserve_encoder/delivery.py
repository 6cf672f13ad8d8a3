"""One item of one Encode call: the unit that is queued, published and held.

    WAITING ──▶ PUBLISHING ──▶ HELD ──▶ GONE
       └────────────┴─────────────────────▲

WAITING      queued, being prepared, being encoded, or joined to such work
PUBLISHING   its embedding is in the pool and pinned; the LLM replica is being told
HELD         the LLM replica knows; the bytes stay until it has them
GONE         failed, withdrawn, refused, released or expired: nothing is kept for it
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from redserve.errors import InternalError, RedServeError
from redserve.telemetry.tracing import NO_ORIGIN, Origin

if TYPE_CHECKING:
    from collections.abc import Callable

    from redserve.telemetry.timeline import Bar


class Phase(Enum):
    """Where a delivery stands."""

    WAITING = "waiting"
    PUBLISHING = "publishing"
    HELD = "held"
    GONE = "gone"


TRANSITIONS: dict[Phase, frozenset[Phase]] = {
    Phase.WAITING: frozenset({Phase.PUBLISHING, Phase.GONE}),
    Phase.PUBLISHING: frozenset({Phase.HELD, Phase.GONE}),
    Phase.HELD: frozenset({Phase.GONE}),
    Phase.GONE: frozenset(),
}
"""Every arrow of the drawing above."""


@dataclass(frozen=True, slots=True)
class GenerationTag:
    """Names one delivery; whatever carries an older one is late."""

    request_id: str
    generation: int
    item_index: int
    attempt: int


@dataclass(frozen=True, slots=True)
class Published:
    """The LLM replica has been told.

    Attributes:
        tag: Which delivery.
        cached: Whether it came from the cache or joined work in flight.
        bars: What was done for it, and when.
    """

    tag: GenerationTag
    cached: bool
    bars: tuple[Bar, ...]


@dataclass(frozen=True, slots=True)
class Failed:
    """It will not be published.

    Attributes:
        tag: Which delivery.
        reason: Word of the error tree, or CONTENT_MISSING.
        message: A sentence for the client.
    """

    tag: GenerationTag
    reason: str
    message: str


Outcome = Published | Failed


@dataclass(slots=True, eq=False)
class Delivery:
    """One item on its way from an Encode call to an LLM replica.

    Equality is identity: two deliveries of the same content or even the same tag stay apart.

    Attributes:
        tag: Its name.
        content_hash: sha256 of the picture.
        num_rows: Rows that the prompt reserves.
        destination: host:port of the LLM replica.
        destination_idle: Whether that replica has nothing else to do.
        received_ns: When the request came in, nanoseconds since the Unix epoch.
        submitted_ns: When this item came in, nanoseconds since the Unix epoch.
        deadline_s: When the request's time is up, seconds of the monotonic clock.
        report: Takes the outcome, once.
        origin: What it belongs to, for logs and traces.
        data: The encoded picture while it may still be needed, else None.
        phase: Where it stands; changed by `move_to` only.
        on_gone: Told when it is gone; set by the engine.
    """

    tag: GenerationTag
    content_hash: bytes
    num_rows: int
    destination: str
    destination_idle: bool
    received_ns: int
    submitted_ns: int
    deadline_s: float
    report: Callable[[Outcome], None]
    origin: Origin = NO_ORIGIN
    data: bytes | None = None
    phase: Phase = field(default=Phase.WAITING, init=False)
    on_gone: Callable[[Delivery], None] = field(default=lambda _: None, init=False)

    def move_to(self, phase: Phase) -> None:
        """Follow an arrow.

        Raises:
            InternalError: There is no such arrow.
        """
        if phase not in TRANSITIONS[self.phase]:
            raise InternalError(f"{self.tag}: no way from {self.phase.value} to {phase.value}")
        self.phase = phase
        self.data = None
        if phase is Phase.GONE:
            self.on_gone(self)

    def fail(self, error: RedServeError) -> None:
        """End it with a typed failure."""
        self.move_to(Phase.GONE)
        self.report(Failed(self.tag, error.reason, str(error)))
