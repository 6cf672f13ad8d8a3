"""How every promise stands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from redserve.slo.judge import NO_EVENT, judge, judge_first_token, judge_item
from redserve.slo.tally import Tally
from redserve.slo.windows import SlidingSums

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from redserve.slo.ended import Ended, EndedItem
    from redserve.slo.objective import Objective

WINDOWS_S: Final = (60.0, 300.0, 3600.0)
"""Windows for people who watch."""
BUCKET_S: Final = 5.0
NUM_COARSE_BUCKETS: Final = 512
"""Of an objective's own window: weeks, of which no more than this many pieces are remembered."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Events that something brought for one objective; at least one."""

    objective: Objective
    tally: Tally


@dataclass(frozen=True, slots=True)
class Standing:
    """One objective now.

    Attributes:
        recent: Events of the last `WINDOWS_S`, in that order.
        window: Events of its own window, as far as this process has seen it.
        since_start: All events that this process has seen.
    """

    objective: Objective
    recent: tuple[Tally, ...]
    window: Tally
    since_start: Tally

    @property
    def attainment(self) -> float | None:
        """Share of good events over its window; None before the first event."""
        return self.window.attainment

    @property
    def budget_left(self) -> float | None:
        """Share of the allowed bad events that is left; below 0 when overdrawn."""
        return self.window.budget_left(self.objective.target)


class _Record:
    """Events of one objective."""

    def __init__(self, objective: Objective) -> None:
        self.objective = objective
        self.since_start = Tally()
        self._fine = SlidingSums(2, BUCKET_S, max(WINDOWS_S))
        coarse_s = max(BUCKET_S, objective.window_s / NUM_COARSE_BUCKETS)
        self._coarse = SlidingSums(2, coarse_s, objective.window_s)

    def add(self, now_s: float, tally: Tally) -> None:
        self.since_start += tally
        self._fine.add(now_s, tally.good, tally.bad)
        self._coarse.add(now_s, tally.good, tally.bad)

    def standing(self, now_s: float) -> Standing:
        return Standing(
            objective=self.objective,
            recent=tuple(Tally(*self._fine.over(now_s, window_s)) for window_s in WINDOWS_S),
            window=Tally(*self._coarse.over(now_s, self.objective.window_s)),
            since_start=self.since_start,
        )


class Scoreboard:
    """Judges what happens to requests when it happens, and remembers."""

    def __init__(self, objectives: Iterable[Objective]) -> None:
        self._records = tuple(_Record(objective) for objective in objectives)

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """What is promised."""
        return tuple(record.objective for record in self._records)

    def note_first_token(self, now_s: float, waited_s: float) -> tuple[Verdict, ...]:
        """The first token of a request leaves at `now_s`; returns what that counts, as `note`."""
        return self._note(now_s, lambda objective: judge_first_token(objective, waited_s))

    def note_item(self, now_s: float, item: EndedItem) -> tuple[Verdict, ...]:
        """An item is published at `now_s`; returns what that counts, as `note`."""
        return self._note(now_s, lambda objective: judge_item(objective, item))

    def note(self, now_s: float, ended: Ended) -> tuple[Verdict, ...]:
        """A request ended at `now_s`; returns what that counts, per objective that it concerns.

        Its first token, if there was one, has been noted, and so have the items of which `ended`
        does not tell.
        """

        def judged(objective: Objective) -> Tally:
            if objective.indicator == "TimeToFirstToken" and ended.first_token_s is not None:
                return NO_EVENT
            return judge(objective, ended)

        return self._note(now_s, judged)

    def judge(self, ended: Ended) -> tuple[Verdict, ...]:
        """What a request comes to in all, per objective that it concerns; remembers nothing.

        `ended` tells of every item that was sent to encoders, noted or not.
        """
        verdicts = (Verdict(objective, judge(objective, ended)) for objective in self.objectives)
        return tuple(verdict for verdict in verdicts if verdict.tally != NO_EVENT)

    def _note(self, now_s: float, judged: Callable[[Objective], Tally]) -> tuple[Verdict, ...]:
        verdicts = []
        for record in self._records:
            tally = judged(record.objective)
            if tally != NO_EVENT:
                record.add(now_s, tally)
                verdicts.append(Verdict(record.objective, tally))
        return tuple(verdicts)

    def standings(self, now_s: float) -> tuple[Standing, ...]:
        """All objectives, in the order in which they were given."""
        return tuple(record.standing(now_s) for record in self._records)
