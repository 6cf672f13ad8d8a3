"""The whole report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from redserve.bench.report.charts import Limit, by_images, distribution, in_flight, over_time
from redserve.bench.report.style import STYLE
from redserve.bench.report.svg import tag, text
from redserve.bench.tables import grids, headline, notes
from redserve.telemetry.figures import percent, rate

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from redserve.bench.outcome import Outcome
    from redserve.bench.summary import Summary
    from redserve.bench.tables import Grid

# Nothing is fetched and nothing runs, whatever a service wrote into its error messages.
_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'"


def page(summary: Summary, outcomes: Sequence[Outcome], facts: Mapping[str, str]) -> str:
    """One HTML file; a function of its arguments.

    Args:
        summary: Figures of `outcomes`.
        outcomes: The requests, in any order.
        facts: What was run, for people.
    """
    ordered = sorted((one for one in outcomes if one.was_sent), key=lambda one: one.index)
    title = f"redserve bench: {facts.get('model', '')}".rstrip(": ")
    head = [
        '<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        tag("title", text(title)),
        tag("style", STYLE),
    ]
    body = [
        tag("h1", text(title)),
        tag("p", text(headline(summary))),
        *(tag("p", text(note), class_="note") for note in notes(summary)),
        _figures(summary),
        *(_table(grid) for grid in grids(summary)),
        *_charts(summary, ordered),
        tag("h2", "What was run"),
        tag("dl", *(tag("dt", text(k)) + tag("dd", text(v)) for k, v in facts.items())),
        tag("p", text(_HOW), class_="soft"),
    ]
    parts = [tag("head", "\n", *(f"{one}\n" for one in head)), "\n"]
    parts.append(tag("body", "\n", tag("main", "\n", *(f"{one}\n" for one in body)), "\n"))
    return f"<!doctype html>\n{tag('html', *parts, lang='en')}\n"


_HOW: Final = (
    "Times are the client's, from the moment a request was handed to the connection, or, where it "
    "says so, from when it was due. Percentiles "
    "are nearest ranks. Rates are over the time from the first request sent to the last one ended. "
    "Goodput counts complete requests that kept every promise."
)


def _figures(summary: Summary) -> str:
    shown = [("complete", rate(summary.requests_per_s, "requests"))]
    if summary.goodput_per_s is not None:
        shown.append(("goodput", rate(summary.goodput_per_s, "requests")))
    shown.append(("output", rate(summary.tokens_per_s, "tokens")))
    share = summary.num_complete / summary.num_requests if summary.num_requests else None
    shown.append(("answered", percent(share)))
    return tag("div", *(tag("div", tag("b", text(v)), text(k)) for k, v in shown), class_="figures")


def _table(grid: Grid) -> str:
    head = tag("tr", *(tag("th", text(name), scope="col") for name in grid.header))
    rows = [
        tag(
            "tr",
            *(tag("td", text(cell)) for cell in row),
            **({"class_": "broken"} if index in grid.broken else {}),
        )
        for index, row in enumerate(grid.rows)
    ]
    return tag("div", tag("table", tag("thead", head), tag("tbody", *rows)), class_="wide")


def _charts(summary: Summary, outcomes: Sequence[Outcome]) -> Iterator[str]:
    complete = [one for one in outcomes if one.is_complete]
    first = [one.ttft_s for one in outcomes if one.ttft_s is not None]
    pace = [one.tpot_s for one in complete if one.tpot_s is not None]
    whole = [one.duration_s for one in complete]
    limits = {
        indicator: [
            Limit(kept.objective.name, kept.objective.threshold_s)
            for kept in summary.kept
            if kept.objective.indicator == indicator and kept.objective.threshold_s is not None
        ]
        for indicator in ("TimeToFirstToken", "TimePerOutputToken", "RequestLatency")
    }
    for what, values, indicator in (
        ("time to first token", first, "TimeToFirstToken"),
        ("time per output token", pace, "TimePerOutputToken"),
        ("whole answer", whole, "RequestLatency"),
    ):
        if values:
            yield tag("h2", text(what.capitalize()))
            yield distribution(what, values, limits[indicator])
    if summary.by_images and first:
        yield tag("h2", "Time to first token by number of images")
        yield by_images(summary.by_images)
        yield tag("p", "A dot is the median, its line reaches to p95.", class_="soft")
    if outcomes:
        yield tag("h2", "Time to first token over the run")
        yield over_time(outcomes, limits["TimeToFirstToken"])
        yield tag("h2", "Requests under way")
        yield in_flight(outcomes)
