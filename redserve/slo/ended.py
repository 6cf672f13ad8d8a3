"""What is known of a request when it has ended."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final


class End(Enum):
    """How a request ended, as far as promises are concerned.

    COMPLETE: The whole answer left.
    FAILED: The service did not deliver: an error of its own, no room, or its own deadline.
    EXPIRED: The client's own deadline passed.
    REFUSED: The request was wrong; nobody could have answered it.
    LEFT: The client went away.
    """

    COMPLETE = "complete"
    FAILED = "failed"
    EXPIRED = "expired"
    REFUSED = "refused"
    LEFT = "left"


_ENDS: Final = {
    "OK": End.COMPLETE,
    "CANCELLED": End.LEFT,
    "INVALID_ARGUMENT": End.REFUSED,
    "NOT_FOUND": End.REFUSED,
    "OUT_OF_RANGE": End.REFUSED,
    "PERMISSION_DENIED": End.REFUSED,
    "UNAUTHENTICATED": End.REFUSED,
}


def end_of(code: str, *, own_deadline: bool) -> End:
    """The end behind a canonical gRPC code.

    Args:
        code: Its name; one that is not known is a failure.
        own_deadline: Whether the client set the deadline of the request.
    """
    if code == "DEADLINE_EXCEEDED":
        return End.EXPIRED if own_deadline else End.FAILED
    return _ENDS.get(code, End.FAILED)


class ItemEnd(Enum):
    """What became of an item that was sent to encoders.

    PUBLISHED: It was encoded, perhaps after several attempts.
    CACHED: An encoder had its embedding already.
    FAILED: It was given up.
    WAITING: It was on its way when the request ended.
    """

    PUBLISHED = "published"
    CACHED = "cached"
    FAILED = "failed"
    WAITING = "waiting"


@dataclass(frozen=True, slots=True)
class EndedItem:
    """One item that was sent to encoders.

    Attributes:
        end: What became of it.
        waited_s: From its first dispatch to its end or to that of the request, seconds.
    """

    end: ItemEnd
    waited_s: float


@dataclass(frozen=True, slots=True)
class Ended:
    """One request; all times are seconds since it came in.

    Attributes:
        end: How it ended.
        duration_s: When it ended.
        deadline_s: The deadline that the client set; None if it set none.
        first_token_s, last_token_s: When tokens left; None if none did.
        num_tokens: Tokens that left.
        items: Those that were sent to encoders; what the prefix cache covers is not. Whoever
            keeps books leaves out those that were judged when they were published.
    """

    end: End
    duration_s: float
    deadline_s: float | None = None
    first_token_s: float | None = None
    last_token_s: float | None = None
    num_tokens: int = 0
    items: tuple[EndedItem, ...] = ()

    @property
    def time_per_output_token_s(self) -> float | None:
        """Mean time between tokens, seconds; None with fewer than two."""
        if self.num_tokens < 2 or self.first_token_s is None or self.last_token_s is None:
            return None
        return (self.last_token_s - self.first_token_s) / (self.num_tokens - 1)

    @property
    def encode_latency_s(self) -> float | None:
        """The longest that one of its items took which no encoder had; None without one."""
        waits = (item.waited_s for item in self.items if item.end is not ItemEnd.CACHED)
        return max(waits, default=None)
