"""One item of a request over all its attempts."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from redserve.telemetry.clock import now_ns

if TYPE_CHECKING:
    from redserve.domain import Item
    from redserve.errors import RedServeError
    from redserve.slo import EndedItem
    from redserve_router.media.collect import Picture


class Outcome(Enum):
    """What became of an item; the label of `redserve_items_total`."""

    PREFIX_COVERED = "prefix_covered"
    ENCODED = "encoded"
    ENCODER_CACHED = "encoder_cached"
    FAILED = "failed"


@dataclass(slots=True, eq=False)
class ItemState:
    """What is known of one item now.

    Attributes:
        dispatched_ns: When it was sent to an encoder, the first of the attempts without success
            since the last success; 0 before that.
        ended_ns: When its embedding was published or it was given up; 0 while it is on its way.
        attempt: How often it was dispatched. The LLM replica's `lost_attempt` is compared with it,
            so it counts on over generations and is 0 for an item that was never dispatched.
        outcome: As known now; None while it is on its way.
        first: What it was when it was first published; None before that.
        avoid: Addresses of encoders on which it failed, until all have been tried.
        num_retries: Failures in a row; decides how long to back off.
        num_lost: How often the LLM replica could not get what was published; the same.
        failures: Failures by reason, those of connections left out.
        last_error: The last of either kind.
        judged: What promises have heard of it. That is once, when it is first published: an item
            that is needed again is no second event.
    """

    item: Item
    picture: Picture
    dispatched_ns: int = 0
    ended_ns: int = 0
    attempt: int = 0
    outcome: Outcome | None = None
    first: Outcome | None = None
    avoid: set[str] = field(default_factory=set)
    num_retries: int = 0
    num_lost: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    last_error: RedServeError | None = None
    judged: EndedItem | None = None

    @property
    def index(self) -> int:
        """Position among the items, in prompt order."""
        return self.item.index

    @property
    def is_judged(self) -> bool:
        """Whether promises have heard of it."""
        return self.judged is not None

    @property
    def whole(self) -> Outcome | None:
        """What became of it over the whole request; None if it was on its way to the end.

        What was encoded once was encoded, although it is in a cache when it is needed again.
        """
        if self.outcome in (None, Outcome.FAILED):
            return self.outcome
        return self.first or self.outcome

    def begin_attempt(self) -> None:
        """It is dispatched (again)."""
        self.attempt += 1
        if self.outcome is not None or not self.dispatched_ns:
            self.dispatched_ns, self.ended_ns = now_ns(), 0
        self.outcome = None

    def arrived(self, *, cached: bool) -> None:
        """The LLM replica has been told where to get it."""
        self.outcome = Outcome.ENCODER_CACHED if cached else Outcome.ENCODED
        self.first = self.first or self.outcome
        self.ended_ns = now_ns()
        self.num_retries = 0

    def given_up(self) -> None:
        """No encoder can deliver it."""
        self.outcome = Outcome.FAILED
        self.ended_ns = now_ns()

    def failed_on(self, address: str, error: RedServeError) -> None:
        """An encoder did not deliver it; another one may."""
        self.last_error = error
        self.avoid.add(address)
        self.num_retries += 1
