"""What the router promised, what came of it, and what went through."""

from __future__ import annotations

from typing import TYPE_CHECKING

from redserve.slo import Scoreboard, Traffic
from redserve.telemetry.clock import now_ns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from redserve.slo import Ended, EndedItem, Objective, Standing, TrafficFigures, Verdict
    from redserve.telemetry.metrics.router import RouterMetrics


class Ledger:
    """Keeps the books of one router: counters for Prometheus, recent figures for people.

    Args:
        objectives: What is promised.
        metrics: Where events are counted.
        clock_ns: What time it is; tests bring their own.
    """

    def __init__(
        self,
        objectives: Iterable[Objective],
        metrics: RouterMetrics,
        clock_ns: Callable[[], int] = now_ns,
    ) -> None:
        self._clock_ns = clock_ns
        self._start_s = self._now_s()
        self._board = Scoreboard(objectives)
        self._traffic = Traffic(self._start_s)
        self._events = metrics.slo_events
        for objective in self._board.objectives:
            # A counter that appears with its first event hides that event from every rate.
            for outcome in ("good", "bad"):
                self._events.labels(objective.name, outcome)
            metrics.slo_objective.labels(objective.name).set(objective.target)
            if objective.threshold_s is not None:
                metrics.slo_threshold.labels(objective.name).set(objective.threshold_s)

    @property
    def uptime_s(self) -> float:
        """Since the books were opened, seconds."""
        return self._now_s() - self._start_s

    def note_tokens(self, num_tokens: int) -> None:
        """Tokens leave now."""
        self._traffic.note_tokens(self._now_s(), num_tokens)

    def note_first_token(self, waited_s: float) -> None:
        """The first token of a request leaves now: it is judged, counted and remembered."""
        now_s = self._now_s()
        self._traffic.note_first_token(now_s, waited_s)
        self._count(self._board.note_first_token(now_s, waited_s))

    def note_item(self, item: EndedItem) -> None:
        """An item is published now: it is judged and counted."""
        self._count(self._board.note_item(self._now_s(), item))

    def note(self, ended: Ended) -> None:
        """A request ends now: the rest of it is judged, counted and remembered."""
        now_s = self._now_s()
        self._traffic.note(now_s, ended)
        self._count(self._board.note(now_s, ended))

    def judge(self, ended: Ended) -> tuple[Verdict, ...]:
        """What a request comes to, noted or not; counts nothing."""
        return self._board.judge(ended)

    def _count(self, verdicts: Iterable[Verdict]) -> None:
        for verdict in verdicts:
            name, tally = verdict.objective.name, verdict.tally
            self._events.labels(name, "good").inc(tally.good)
            self._events.labels(name, "bad").inc(tally.bad)

    def standings(self) -> tuple[Standing, ...]:
        """How every promise stands now."""
        return self._board.standings(self._now_s())

    def traffic(self) -> TrafficFigures:
        """What goes through now."""
        return self._traffic.figures(self._now_s())

    def _now_s(self) -> float:
        return self._clock_ns() / 1e9
