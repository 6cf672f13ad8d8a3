"""Outcomes of a run -> its figures."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from redserve.bench.quantiles import quantiles
from redserve.slo import Tally, judge

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from redserve.bench.outcome import Outcome, Problem
    from redserve.bench.quantiles import Quantiles
    from redserve.slo import Objective

UNSEEN: Final = frozenset({"EncodeLatency"})
"""Indicators that no client can see."""
MAX_LAG_S: Final = 0.005
"""A client that sends later than this puts another load on the service than it should, seconds."""


@dataclass(frozen=True, slots=True)
class Latencies:
    """Seconds; None without a value. TPOT and duration are those of complete answers."""

    ttft: Quantiles | None
    tpot: Quantiles | None
    duration: Quantiles | None

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "ttft_s": self.ttft and self.ttft.to_dict(),
            "tpot_s": self.tpot and self.tpot.to_dict(),
            "duration_s": self.duration and self.duration.to_dict(),
        }


@dataclass(frozen=True, slots=True)
class FromDue:
    """Latencies from when requests were due, seconds; None without a value.

    They have what the client's lateness hides from those that begin when a request is sent.
    """

    ttft: Quantiles | None
    duration: Quantiles | None

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "ttft_s": self.ttft and self.ttft.to_dict(),
            "duration_s": self.duration and self.duration.to_dict(),
        }


@dataclass(frozen=True, slots=True)
class Kept:
    """One promise under this load; `tally` is None when clients cannot see it."""

    objective: Objective
    tally: Tally | None

    @property
    def attainment(self) -> float | None:
        """Share of good events; None without one."""
        return None if self.tally is None else self.tally.attainment

    @property
    def is_broken(self) -> bool:
        """Whether the share of good events is below the target."""
        return self.attainment is not None and self.attainment < self.objective.target


@dataclass(frozen=True, slots=True)
class Summary:
    """Figures of one run.

    Attributes:
        num_requests: That were sent and ended; all figures but `unsent` are of these.
        num_complete: Whole answers.
        reasons: Other ends by reason, most frequent first.
        first_message: Of the first request without a whole answer.
        unsent: Requests that were due and not sent, by reason: limits of the client, which no
            promise sees.
        first_unsent_message: Of the first of them.
        span_s: First request sent to last one ended, seconds.
        num_output_tokens: Of all requests.
        num_in_one_piece: Whole answers of several tokens that came at once.
        tokens_counted: Whether the service counted them all; else pieces of text were counted
            where it did not.
        latencies: Of all requests, from when they were sent.
        from_due: Of all requests, from when they were due; None in a closed loop.
        by_images: The same by number of pictures, ascending; empty when all have equally many.
        lag: How late the client sent, seconds.
        kept: Promises, in the manifest's order.
        num_good: Complete requests that kept every promise that a client can see; None without a
            promise.
    """

    num_requests: int
    num_complete: int
    reasons: tuple[tuple[str, int], ...]
    first_message: str
    unsent: tuple[tuple[str, int], ...]
    first_unsent_message: str
    span_s: float
    num_output_tokens: int
    num_in_one_piece: int
    tokens_counted: bool
    latencies: Latencies
    from_due: FromDue | None
    by_images: tuple[tuple[int, Latencies], ...]
    lag: Quantiles | None
    kept: tuple[Kept, ...]
    num_good: int | None

    @property
    def num_unsent(self) -> int:
        """Requests that were due and not sent."""
        return sum(count for _, count in self.unsent)

    @property
    def requests_per_s(self) -> float:
        """Complete answers per second."""
        return _rate(self.num_complete, self.span_s)

    @property
    def tokens_per_s(self) -> float:
        """Output tokens per second."""
        return _rate(self.num_output_tokens, self.span_s)

    @property
    def goodput_per_s(self) -> float | None:
        """Good requests per second; None without a promise."""
        return None if self.num_good is None else _rate(self.num_good, self.span_s)

    @property
    def client_was_late(self) -> bool:
        """Whether more than one request in a hundred was sent later than `MAX_LAG_S`."""
        return self.lag is not None and self.lag.p99 > MAX_LAG_S

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "num_requests": self.num_requests,
            "num_complete": self.num_complete,
            "reasons": dict(self.reasons),
            "num_unsent": self.num_unsent,
            "unsent_reasons": dict(self.unsent),
            "span_s": self.span_s,
            "requests_per_s": self.requests_per_s,
            "num_output_tokens": self.num_output_tokens,
            "num_in_one_piece": self.num_in_one_piece,
            "tokens_counted": self.tokens_counted,
            "tokens_per_s": self.tokens_per_s,
            "num_good": self.num_good,
            "goodput_per_s": self.goodput_per_s,
            "latencies": self.latencies.to_dict(),
            "latencies_from_due": self.from_due and self.from_due.to_dict(),
            "by_images": {str(count): of.to_dict() for count, of in self.by_images},
            "client_lag_s": self.lag and self.lag.to_dict(),
            "slos": [_kept_to_dict(one) for one in self.kept],
        }


def summarize(
    outcomes: Iterable[Outcome], objectives: Sequence[Objective] = (), *, open_loop: bool = False
) -> Summary:
    """The figures of a run; the order of its outcomes does not matter.

    Args:
        outcomes: Requests that were due.
        objectives: What is promised.
        open_loop: Whether requests were due at times of their own.
    """
    ordered = sorted(outcomes, key=lambda one: one.index)
    ended = [one for one in ordered if one.was_sent]
    complete = [one for one in ended if one.is_complete]
    problems = _problems(ended)
    unsent = _problems(one for one in ordered if not one.was_sent)
    seen = [objective for objective in objectives if objective.indicator not in UNSEEN]
    groups = {count: [one for one in ended if one.num_images == count] for count in _counts(ended)}
    return Summary(
        num_requests=len(ended),
        num_complete=len(complete),
        reasons=_by_reason(problems),
        first_message=problems[0].message if problems else "",
        unsent=_by_reason(unsent),
        first_unsent_message=unsent[0].message if unsent else "",
        span_s=_span_s(ended),
        num_output_tokens=sum(one.answer.num_tokens for one in ended),
        num_in_one_piece=sum(one.is_in_one_piece for one in complete),
        tokens_counted=all(one.answer.counted for one in complete),
        latencies=_latencies(ended),
        from_due=_from_due(ended) if open_loop else None,
        by_images=tuple((count, _latencies(group)) for count, group in groups.items())
        if len(groups) > 1
        else (),
        lag=quantiles(one.lag_s for one in ended),
        kept=tuple(_keep(objective, ended) for objective in objectives),
        num_good=sum(is_good(one, seen) for one in complete) if objectives else None,
    )


def is_good(outcome: Outcome, objectives: Iterable[Objective]) -> bool:
    """Whether the whole answer came and broke none of the promises.

    A promise that has no event here (no pace with a single token) is not broken.
    """
    if not outcome.is_complete:
        return False
    ended = outcome.ended()
    return not any(judge(one, ended).bad for one in objectives)


def _problems(outcomes: Iterable[Outcome]) -> list[Problem]:
    return [one.answer.problem for one in outcomes if one.answer.problem is not None]


def _by_reason(problems: Iterable[Problem]) -> tuple[tuple[str, int], ...]:
    counts = Counter(problem.reason for problem in problems)
    return tuple(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _latencies(outcomes: Sequence[Outcome]) -> Latencies:
    complete = [one for one in outcomes if one.is_complete]
    return Latencies(
        ttft=quantiles(one.ttft_s for one in outcomes if one.ttft_s is not None),
        tpot=quantiles(one.tpot_s for one in complete if one.tpot_s is not None),
        duration=quantiles(one.duration_s for one in complete),
    )


def _from_due(outcomes: Sequence[Outcome]) -> FromDue:
    firsts = (one.ttft_from_due_s for one in outcomes)
    return FromDue(
        ttft=quantiles(first_s for first_s in firsts if first_s is not None),
        duration=quantiles(one.duration_from_due_s for one in outcomes if one.is_complete),
    )


def _keep(objective: Objective, outcomes: Iterable[Outcome]) -> Kept:
    if objective.indicator in UNSEEN:
        return Kept(objective, None)
    return Kept(objective, sum((judge(objective, one.ended()) for one in outcomes), Tally()))


def _counts(outcomes: Iterable[Outcome]) -> list[int]:
    return sorted({one.num_images for one in outcomes})


def _span_s(outcomes: Sequence[Outcome]) -> float:
    if not outcomes:
        return 0.0
    begin_s = min(one.answer.start_s for one in outcomes)
    return max(one.answer.end_s for one in outcomes) - begin_s


def _rate(count: int, span_s: float) -> float:
    return count / span_s if span_s > 0 else 0.0


def _kept_to_dict(kept: Kept) -> Mapping[str, Any]:
    objective, tally = kept.objective, kept.tally
    return {
        "name": objective.name,
        "indicator": objective.indicator,
        "threshold_s": objective.threshold_s,
        "target": objective.target,
        "good": None if tally is None else tally.good,
        "bad": None if tally is None else tally.bad,
        "attainment": kept.attainment,
    }
