"""Panels as this project likes them: a unit, a description, a legend for every query."""

from __future__ import annotations

import string
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from grafana_foundation_sdk.builders import common, dashboard, heatmap, prometheus, stat, timeseries
from grafana_foundation_sdk.models.common import (
    BigValueColorMode,
    BigValueGraphMode,
    GraphThresholdsStyleMode,
    LegendDisplayMode,
    LegendPlacement,
    SortOrder,
    StackingMode,
    TooltipDisplayMode,
    VisibilityMode,
)
from grafana_foundation_sdk.models.dashboard import DataSourceRef, Threshold, ThresholdsMode
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode
from grafana_foundation_sdk.models.prometheus import PromQueryFormat, QueryEditorMode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from grafana_foundation_sdk.cog.builder import Builder
    from grafana_foundation_sdk.cog.variants import Dataquery
    from grafana_foundation_sdk.models.dashboard import Panel

SOURCE: Final = DataSourceRef(type_val="prometheus", uid="${datasource}")
HEIGHT: Final = 8
PER_SECOND: Final = "suffix: /s"
"""Unit of what is counted by the second."""


@dataclass(frozen=True, slots=True)
class Query:
    """One line of PromQL, or one for each series that it gives.

    Attributes:
        expr: PromQL, with the dashboard's variables.
        legend: Name of a series; `{{label}}` is replaced.
        has_exemplars: Whether points that link to traces are asked for.
    """

    expr: str
    legend: str
    has_exemplars: bool = False


@dataclass(frozen=True, slots=True)
class Look:
    """How a panel is drawn.

    Attributes:
        unit: Grafana's name of the unit.
        width: Of 24.
        stacking: Whether series are put on top of each other, or as shares of their sum.
        lowest, highest: Ends of the axis; None leaves them to the values.
        limits: Values from which a colour holds, ascending; the first has no value.
        decimals: Of numbers; None leaves it to Grafana.
    """

    unit: str
    width: int = 8
    stacking: StackingMode = StackingMode.NONE
    lowest: float | None = 0
    highest: float | None = None
    limits: tuple[tuple[float | None, str], ...] = field(default=())
    decimals: int | None = None


def lines(title: str, description: str, look: Look, *queries: Query) -> Builder[Panel]:
    """Values over time."""
    panel = (
        timeseries.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .unit(look.unit)
        .height(HEIGHT)
        .span(look.width)
        .line_width(1)
        .fill_opacity(8 if look.stacking == StackingMode.NONE else 60)
        .show_points(VisibilityMode.AUTO)
        .stacking(common.StackingConfig().mode(look.stacking))
        .legend(
            common.VizLegendOptions()
            .display_mode(LegendDisplayMode.LIST)
            .placement(LegendPlacement.BOTTOM)
            .show_legend(True)
        )
        .tooltip(
            common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING)
        )
        .targets(_targets(queries))
    )
    if look.lowest is not None:
        panel = panel.min(look.lowest)
    if look.highest is not None:
        panel = panel.max(look.highest)
    if look.decimals is not None:
        panel = panel.decimals(look.decimals)
    if look.limits:
        panel = panel.thresholds(_thresholds(look.limits)).thresholds_style(
            common.GraphThresholdsStyleConfig().mode(GraphThresholdsStyleMode.DASHED)
        )
    return panel


def figure(title: str, description: str, look: Look, *queries: Query) -> stat.Panel:
    """The newest value, large."""
    panel = (
        stat.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .unit(look.unit)
        .height(HEIGHT)
        .span(look.width)
        .graph_mode(BigValueGraphMode.AREA)
        .color_mode(BigValueColorMode.VALUE)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .thresholds(_thresholds(look.limits or ((None, "text"),)))
        .targets(_targets(queries))
    )
    return panel if look.decimals is None else panel.decimals(look.decimals)


def distribution(
    title: str,
    description: str,
    buckets: str,
    *,
    unit: str = "s",
    width: int = 8,
    has_exemplars: bool = False,
) -> Builder[Panel]:
    """How many fell into each bucket, over time; `buckets` gives rates by `le`."""
    query = Query(buckets, "{{le}}", has_exemplars)
    return (
        heatmap.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .height(HEIGHT)
        .span(width)
        .unit("reqps")
        .calculate(False)
        .y_axis(heatmap.YAxisConfig().unit(unit))
        .cell_values(heatmap.CellValues().unit("reqps"))
        .color(
            heatmap.HeatmapColorOptions().mode(HeatmapColorMode.SCHEME).scheme("Spectral").steps(64)
        )
        .show_legend()
        .show_y_histogram()
        .targets(_targets([query], PromQueryFormat.HEATMAP))
    )


def _targets(
    queries: Sequence[Query], how: PromQueryFormat = PromQueryFormat.TIME_SERIES
) -> list[Builder[Dataquery]]:
    return [
        prometheus.Dataquery()
        .ref_id(letter)
        .datasource(SOURCE)
        .expr(query.expr)
        .legend_format(query.legend)
        .exemplar(query.has_exemplars)
        .editor_mode(QueryEditorMode.CODE)
        .format(how)
        .range()
        for letter, query in zip(string.ascii_uppercase, queries, strict=False)
    ]


def _thresholds(limits: Sequence[tuple[float | None, str]]) -> dashboard.ThresholdsConfig:
    return (
        dashboard.ThresholdsConfig()
        .mode(ThresholdsMode.ABSOLUTE)
        .steps([Threshold(value=value, color=color) for value, color in limits])
    )
