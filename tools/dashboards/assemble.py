"""Rows and variables -> the JSON that Grafana imports."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from grafana_foundation_sdk.builders.dashboard import Dashboard, DashboardLink
from grafana_foundation_sdk.builders.dashboard import Row as RowPanel
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import DashboardCursorSync, DashboardLinkType

if TYPE_CHECKING:
    from collections.abc import Sequence

    from grafana_foundation_sdk.cog.builder import Builder
    from grafana_foundation_sdk.models.dashboard import VariableModel

    from tools.dashboards.row import Row

TAGS: Final = ["redserve"]


def assemble(
    uid: str,
    title: str,
    description: str,
    variables: Sequence[Builder[VariableModel]],
    annotations: Sequence[dict[str, Any]],
    rows: Sequence[Row],
) -> dict[str, Any]:
    """A dashboard.

    Args:
        uid: Stays the same for ever: links and updates go by it.
        title: Unique in its folder.
        description: What it is for.
        variables: Above it, in order.
        annotations: Drawn across its panels.
        rows: From top to bottom.
    """
    board = (
        Dashboard(title)
        .uid(uid)
        .description(description)
        .tags(TAGS)
        .editable()
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .time("now-1h", "now")
        .refresh("30s")
        .timezone("browser")
        .variables(list(variables))
        .link(
            DashboardLink("REDServe")
            .type(DashboardLinkType.DASHBOARDS)
            .tags(TAGS)
            .as_dropdown(True)
            .include_vars(True)
            .keep_time(True)
        )
    )
    for row in rows:
        made = RowPanel(row.title).collapsed(row.is_folded)
        if row.is_folded:
            for panel in row.panels:
                made = made.with_panel(panel)
        board = board.with_row(made)
        if not row.is_folded:
            for panel in row.panels:
                board = board.with_panel(panel)
    plain: dict[str, Any] = json.loads(json.dumps(board.build(), cls=JSONEncoder))
    plain["annotations"] = {"list": list(annotations)}
    for number, one in enumerate(all_panels(plain), start=1):
        one["id"] = number
    return plain


def all_panels(board: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows and panels, those of folded rows too."""
    return [one for panel in board["panels"] for one in (panel, *panel.get("panels", ()))]
