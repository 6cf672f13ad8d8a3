"""What `redserve top` shows at one moment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.console import Group
from rich.table import Table
from rich.text import Text

from redserve.cli.pool_tables import replica_table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import RenderableType

    from redserve.wire.overview import Latency, Overview, SloStatus

NOTHING: Final = "-"
_WINDOW_NAMES: Final = {60.0: "1 MIN", 300.0: "5 MIN", 3600.0: "1 H"}


def frame(overview: Overview, address: str, names: Mapping[str, str]) -> RenderableType:
    """Everything, from the promises down to single replicas; `names` has those of addresses."""
    return Group(
        *_head(overview, address),
        Text(),
        _slo_table(overview)
        if overview.slos
        else Text("the manifest promises nothing (spec.slos)"),
        Text(),
        _latency_table(overview),
        Text(),
        replica_table(overview.replicas, names),
    )


def duration(seconds: float) -> str:
    """Three digits that matter, in the unit that fits: "1.23 ms", "800 ms", "2.5 s"."""
    return f"{seconds * 1000:.3g} ms" if seconds < 0.9995 else f"{seconds:.4g} s"


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


def _slo_table(overview: Overview) -> Table:
    table = _table("SLO", "INDICATOR")
    windows = [t.window_s for t in overview.slos[0].tallies if t.window_s in _WINDOW_NAMES]
    for column in ("WITHIN", "TARGET", "ATTAINED", "BUDGET LEFT"):
        table.add_column(column, justify="right", no_wrap=True)
    for window_s in windows:
        table.add_column(_WINDOW_NAMES[window_s], justify="right", no_wrap=True)
    for slo in overview.slos:
        recent = {tally.window_s: _share(tally.good, tally.bad) for tally in slo.tallies}
        table.add_row(
            slo.name,
            slo.indicator,
            duration(slo.threshold_s) if slo.threshold_s is not None else NOTHING,
            _percent(slo.target),
            Text(_percent(slo.attainment), style=_style(slo)),
            Text(_percent(slo.budget_left, digits=1), style=_style(slo)),
            *(_percent(recent.get(window_s)) for window_s in windows),
        )
    return table


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


def _percent(share: float | None, digits: int = 3) -> str:
    """As much as there is to say: 99, 99.9, 99.987; never 100 for what is less."""
    if share is None:
        return NOTHING
    text = f"{share * 100:.{digits}f}"
    if share < 1 and float(text) == 100:
        return "<100 %"
    return (text.rstrip("0").rstrip(".") if "." in text else text) + " %"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
