"""What is known of the ways from encoders to one LLM replica, and which to measure next.

a pair serves ──► due ──► checked ──┬─► measured: for as long as both stay connected
                   ▲                ├─► failed: due again after 5 s, 10 s, ... 5 min
                   └────────────────┴─► busy: none of this LLM replica is due for 5 s

Pure: times come from the caller.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from redserve_router.clients.llm import TransportSpeed

FIRST_BACKOFF_S: Final = 5.0
LONGEST_BACKOFF_S: Final = 300.0
BUSY_BACKOFF_S: Final = 5.0

Connections = tuple[int, int]
"""Of encoder and LLM replica, see `Replica.connection`: a pair with another one is a new pair."""


@dataclass(frozen=True, slots=True)
class PairReport:
    """One pair for `ListReplicas`: both serve the same checkpoint.

    Attributes:
        encoder, llm: host:port.
        transport: Data path; empty while it is not measured.
        gb_per_s: 10^9 bytes per second; 0 while it is not measured.
        error: Reason word of the last try if it failed, else empty.
    """

    encoder: str
    llm: str
    transport: str = ""
    gb_per_s: float = 0.0
    error: str = ""


@dataclass(slots=True)
class _Pair:
    """One encoder.

    Attributes:
        connections: That it was met by.
        due_at: When to check, seconds of the caller's clock; None once it is measured.
        speed: What was measured.
        error: Reason word of the last failure.
        num_failures: So far.
    """

    connections: Connections
    due_at: float | None
    speed: TransportSpeed | None = None
    error: str = ""
    num_failures: int = 0


class PairBook:
    """The pairs of one LLM replica. Times are seconds of any clock, the same for all calls.

    Args:
        llm: host:port of the LLM replica.
    """

    def __init__(self, llm: str) -> None:
        self._llm = llm
        self._pairs: dict[str, _Pair] = {}
        self._busy_until: float | None = None

    def set_partners(self, partners: Mapping[str, Connections], now: float) -> None:
        """From now on these encoders, by address, are the partners; new ones are due at once."""
        for address in self._pairs.keys() - partners.keys():
            del self._pairs[address]
        for address, connections in partners.items():
            pair = self._pairs.get(address)
            if pair is None or pair.connections != connections:
                self._pairs[address] = _Pair(connections, due_at=now)

    def due(self, now: float) -> list[str]:
        """Encoders to measure now."""
        if self._busy_until is not None and now < self._busy_until:
            return []
        return [
            address
            for address, pair in self._pairs.items()
            if pair.due_at is not None and pair.due_at <= now
        ]

    def next_due_at(self) -> float | None:
        """When the first of them is to be measured; None if none is."""
        first = min((p.due_at for p in self._pairs.values() if p.due_at is not None), default=None)
        if first is None or self._busy_until is None:
            return first
        return max(first, self._busy_until)

    def measured(self, encoder: str, connections: Connections, speed: TransportSpeed) -> None:
        """A check went well."""
        pair = self._find(encoder, connections)
        if pair is not None:
            pair.speed, pair.error, pair.due_at = speed, "", None

    def failed(self, encoder: str, connections: Connections, reason: str, now: float) -> bool:
        """A check failed; `reason` is the word of its error.

        Returns:
            Whether that is news: the last check of this pair did not fail for the same reason.
        """
        pair = self._find(encoder, connections)
        if pair is None:
            return False
        backoff_s = min(FIRST_BACKOFF_S * 2.0 ** min(pair.num_failures, 16), LONGEST_BACKOFF_S)
        pair.num_failures += 1
        pair.due_at = now + backoff_s
        is_news = pair.error != reason
        pair.error = reason
        return is_news

    def busy(self, now: float) -> None:
        """The LLM replica has better things to do; what was known of the pair stays."""
        self._busy_until = now + BUSY_BACKOFF_S

    def report(self) -> Iterator[PairReport]:
        """All pairs, by address of the encoder."""
        for address in sorted(self._pairs):
            pair = self._pairs[address]
            if pair.speed is None:
                yield PairReport(address, self._llm, error=pair.error)
            else:
                yield PairReport(address, self._llm, pair.speed.transport, pair.speed.gb_per_s)

    def _find(self, encoder: str, connections: Connections) -> _Pair | None:
        """The pair, unless one of the two has gone or returned since the check began."""
        pair = self._pairs.get(encoder)
        return pair if pair is not None and pair.connections == connections else None
