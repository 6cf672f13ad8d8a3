"""Tables of one run, as rows of text: for a terminal and for the report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from redserve.bench.summary import MAX_LAG_S
from redserve.telemetry.figures import NOTHING, duration, percent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from redserve.bench.quantiles import Quantiles
    from redserve.bench.summary import Kept, Summary

_LATENCY_COLUMNS: Final = ("mean", "p50", "p90", "p95", "p99", "max")


@dataclass(frozen=True, slots=True)
class Grid:
    """A table; the first column is names, the others are figures.

    Attributes:
        broken: Numbers of rows that tell of a broken promise.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    broken: frozenset[int] = frozenset()


def grids(summary: Summary) -> Iterator[Grid]:
    """All tables that have something to say."""
    of, from_due = summary.latencies, summary.from_due
    rows = [
        ("time to first token", *_figures(of.ttft)),
        ("time per output token", *_figures(of.tpot)),
        ("whole answer", *_figures(of.duration)),
    ]
    if from_due is not None:
        rows.insert(1, ("  from when it was due", *_figures(from_due.ttft)))
        rows.append(("  from when it was due", *_figures(from_due.duration)))
    yield Grid(("latency", *_LATENCY_COLUMNS, "count"), tuple(rows))
    if summary.kept:
        yield Grid(
            ("SLO", "indicator", "within", "target", "attained"),
            tuple(_promise(one) for one in summary.kept),
            frozenset(index for index, one in enumerate(summary.kept) if one.is_broken),
        )
    if summary.by_images:
        yield Grid(
            ("images", "TTFT p50", "TTFT p95", "whole p50", "whole p95", "count"),
            tuple(
                (
                    str(count),
                    *_middle_and_tail(group.ttft),
                    *_middle_and_tail(group.duration),
                    str(group.duration.count if group.duration else 0),
                )
                for count, group in summary.by_images
            ),
        )


def headline(summary: Summary) -> str:
    """How many requests, how long, and how they ended."""
    failures = "".join(f", {count} {reason}" for reason, count in summary.reasons)
    unsent = f"; {summary.num_unsent} more not sent" if summary.num_unsent else ""
    return (
        f"{summary.num_requests} requests in {duration(summary.span_s)}: "
        f"{summary.num_complete} complete{failures}{unsent}"
    )


def notes(summary: Summary) -> Iterator[str]:
    """What one must know to trust the figures."""
    if summary.reasons:
        yield f"the first that failed: {summary.first_message}"
    if summary.unsent:
        why = ", ".join(f"{count} {reason}" for reason, count in summary.unsent)
        yield (
            f"{summary.num_unsent} requests were due and not sent ({why}), for this client was at "
            f"its limits: {summary.first_unsent_message}. The load was less than asked for; they "
            "count for no promise"
        )
    if summary.client_was_late and summary.lag is not None:
        late = f"up to {duration(summary.lag.p99)} (p99; {duration(MAX_LAG_S)} is fine)"
        yield (
            f"the client took {late} to send the next request: the load was less than asked for, "
            "give it more CPU"
            if summary.from_due is None
            else f"the client sent late, by {late}: the load was less even or less than asked for, "
            "and only the rows 'from when it was due' have the wait; give it more CPU"
        )
    num_empty = dict(summary.reasons).get("NO_TOKEN", 0)
    if num_empty:
        yield (
            f"{num_empty} of {summary.num_requests} answers ended well and held no token: they "
            "count as failed"
        )
    if summary.num_in_one_piece:
        yield (
            f"{summary.num_in_one_piece} of {summary.num_complete} answers came in one piece: they "
            "have no time per output token"
        )
    if not summary.tokens_counted:
        yield "the service does not count tokens: pieces of text stand for them"
    if any(one.tally is None for one in summary.kept):
        yield "EncodeLatency is not seen from outside: 'redserve top' has it"


def _promise(kept: Kept) -> tuple[str, ...]:
    objective = kept.objective
    within = NOTHING if objective.threshold_s is None else duration(objective.threshold_s)
    return (
        objective.name,
        objective.indicator,
        within,
        percent(objective.target),
        percent(kept.attainment),
    )


def _figures(of: Quantiles | None) -> tuple[str, ...]:
    if of is None:
        return (*(NOTHING for _ in _LATENCY_COLUMNS), "0")
    values = (of.mean, of.p50, of.p90, of.p95, of.p99, of.max)
    return (*(duration(value) for value in values), str(of.count))


def _middle_and_tail(of: Quantiles | None) -> tuple[str, str]:
    return (NOTHING, NOTHING) if of is None else (duration(of.p50), duration(of.p95))
