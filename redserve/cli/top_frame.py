"""What `redserve top` shows at one moment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.console import Group
from rich.measure import Measurement
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from redserve.cli.pool_tables import replica_table
from redserve.telemetry.figures import NOTHING, duration, percent

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult

    from redserve.wire.overview import Latency, Overview, SloStatus

_FIGURES: Final = ("WITHIN", "TARGET", "ATTAINED", "BUDGET LEFT")
_MIN_NAME_WIDTH: Final = 4
_ENDLESS: Final = 10_000
_WINDOW_NAMES: Final = {60.0: "1 MIN", 300.0: "5 MIN", 3600.0: "1 H"}


def frame(overview: Overview, address: str, names: Mapping[str, str]) -> RenderableType:
    """Everything, from the promises down to single replicas; `names` has those of addresses."""
    return Group(
        *_head(overview, address),
        Text(),
        SloTable(overview.slos)
        if overview.slos
        else Text("the manifest promises nothing (spec.slos)"),
        Text(),
        _latency_table(overview),
        Text(),
        replica_table(overview.replicas, names),
    )


def _head(overview: Overview, address: str) -> tuple[Text, Text]:
    waiting = f"{overview.num_inflight} in flight, {overview.num_queued} of them queued"
    first = Text.assemble(
        (overview.model, "bold"), f" at {address}   up {_clock(overview.uptime_s)}   {waiting}"
    )
    failures = f"{overview.failures_per_s:.3g} failures/s"
    second = Text.assemble(
        f"{overview.requests_per_s:.3g} requests/s   ",
        (failures, "red" if overview.failures_per_s else ""),
        f"   {overview.output_tokens_per_s:.3g} tokens/s",
    )
    return first, second


class SloTable:
    """How promises stand, as much as there is room for.

    Where a terminal is narrow the indicator goes first, then what happened lately, then the end of
    names; target, attainment and budget are whole or the table is of no use.
    """

    def __init__(self, slos: Sequence[SloStatus]) -> None:
        self._slos = slos

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """See rich."""
        endless = options.update(max_width=_ENDLESS)
        windows = [t.window_s for t in self._slos[0].tallies if t.window_s in _WINDOW_NAMES]
        for has_indicator, shown in ((True, windows), (False, windows), (False, [])):
            table = self._table(shown, has_indicator=has_indicator)
            excess = Measurement.get(console, endless, table).maximum - options.max_width
            if excess <= 0:
                break
        else:
            longest = max(len(slo.name) for slo in self._slos)
            table.columns[0].max_width = max(_MIN_NAME_WIDTH, longest - excess)
        yield table

    def _table(self, windows: Sequence[float], *, has_indicator: bool) -> Table:
        table = _table("SLO", *(("INDICATOR",) if has_indicator else ()))
        rows = [_figures(slo, windows) for slo in self._slos]
        names = (*_FIGURES, *(_WINDOW_NAMES[window_s] for window_s in windows))
        for name, cells in zip(names, zip(*rows, strict=True), strict=True):
            width = max(len(name), *(len(cell) for cell in cells))
            table.add_column(name, justify="right", no_wrap=True, min_width=width)
        for slo, row in zip(self._slos, rows, strict=True):
            table.add_row(slo.name, *((slo.indicator,) if has_indicator else ()), *row)
        return table


class Fitted:
    """What fits on a screen, and how much does not."""

    def __init__(self, content: RenderableType) -> None:
        self._content = content

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """See rich."""
        lines = console.render_lines(self._content, options.update(height=None), pad=False)
        height = options.height or options.max_height
        if len(lines) > height:
            num_hidden = len(lines) - height + 1
            more = Text(f"{num_hidden} more lines: make the window higher, or ask for --once")
            more.truncate(options.max_width, overflow="ellipsis")
            lines = [*lines[: height - 1], console.render_lines(more, pad=False)[0]]
        for index, line in enumerate(lines):
            if index:
                yield Segment.line()
            yield from line


def _figures(slo: SloStatus, windows: Sequence[float]) -> list[Text]:
    recent = {tally.window_s: _share(tally.good, tally.bad) for tally in slo.tallies}
    return [
        Text(duration(slo.threshold_s) if slo.threshold_s is not None else NOTHING),
        Text(percent(slo.target)),
        Text(percent(slo.attainment), style=_style(slo)),
        Text(percent(slo.budget_left, digits=1), style=_style(slo)),
        *(Text(percent(recent.get(window_s))) for window_s in windows),
    ]


def _latency_table(overview: Overview) -> Table:
    table = _table("LAST 5 MIN")
    for column in ("P50", "P95", "P99", "COUNT"):
        table.add_column(column, justify="right", no_wrap=True)
    for name, latency in (
        ("time to first token", overview.time_to_first_token),
        ("time per output token", overview.time_per_output_token),
        ("whole answer", overview.request_duration),
    ):
        table.add_row(name, *_percentiles(latency), str(latency.count))
    return table


def _percentiles(latency: Latency) -> tuple[str, str, str]:
    if not latency.count:
        return NOTHING, NOTHING, NOTHING
    return duration(latency.p50_s), duration(latency.p95_s), duration(latency.p99_s)


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, no_wrap=True)
    return table


def _style(slo: SloStatus) -> str:
    if slo.attainment is None:
        return "dim"
    return "green" if slo.attainment >= slo.target else "bold red"


def _share(good: int, bad: int) -> float | None:
    return good / (good + bad) if good + bad else None


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
