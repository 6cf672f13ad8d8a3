"""The dashboards as Grafana would load them, and the questions that they ask of Prometheus."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from prometheus_client import CollectorRegistry

from redserve.observability.slo_rules import ATTAINMENT, RATIO
from tests.metric_kinds import EVERY
from tests.spec.manifests import ROOT
from tools.dashboards.assemble import all_panels

if TYPE_CHECKING:
    from collections.abc import Iterator

FOLDER: Final = ROOT / "helm/redserve/files/dashboards"
KINDS: Final = ("Router", "Discovery", "Encoder", "LLM", "Transport", "Tracing", "Operator")
_NAME: Final = re.compile(r"(?<![\w\"$])(redserve[_:][a-z0-9_:]+|DCGM_[A-Z_]+|up|ALERTS)(?![\w\"])")


@dataclass(frozen=True, slots=True)
class Question:
    """One expression of one panel.

    Attributes:
        board: Title of the dashboard.
        row: Title of the row; empty for annotations and variables.
        panel: Title of the panel, or name of the annotation or variable.
        expr: With Grafana's variables.
        has_exemplars: Whether exemplars are asked for.
    """

    board: str
    row: str
    panel: str
    expr: str
    has_exemplars: bool = False


def boards() -> dict[str, dict[str, Any]]:
    """File name -> dashboard."""
    return {
        path.name: json.loads(path.read_text("utf-8")) for path in sorted(FOLDER.glob("*.json"))
    }


def panels(board: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Every panel with the title of its row."""
    row, found = "", []
    for panel in all_panels(board):
        if panel["type"] == "row":
            row = panel["title"]
        else:
            found.append((row, panel))
    return found


def questions() -> Iterator[Question]:
    """Everything that panels and annotations ask."""
    for board in boards().values():
        for row, panel in panels(board):
            for target in panel["targets"]:
                yield Question(
                    board["title"], row, panel["title"], target["expr"], target["exemplar"]
                )
        for mark in board["annotations"]["list"]:
            yield Question(board["title"], "", mark["name"], mark["expr"])


def choices() -> Iterator[Question]:
    """Selectors from which variables take their values."""
    for board in boards().values():
        for variable in board["templating"]["list"]:
            if variable["type"] == "query":
                inner = re.fullmatch(r"label_values\((.+), \w+\)", variable["query"]["query"])
                assert inner, variable["query"]
                yield Question(board["title"], "", variable["name"], inner[1])


def asked(expr: str, interval: str = "1m", **values: str) -> str:
    """An expression as Grafana sends it; variables that are not named stand at *All*."""
    filled = expr.replace("$__rate_interval", interval)
    for name in ("namespace", "service", "model", "revision", "pool"):
        filled = filled.replace(f"${name}", values.get(name, ".*"))
    assert "$" not in filled.replace('"$1"', ""), filled
    return filled


def names_in(expr: str) -> set[str]:
    """Names of series in an expression."""
    return set(_NAME.findall(expr))


def exported(*kinds: str) -> set[str]:
    """Names of the series that processes export, of all of them or of some kinds."""
    registry = CollectorRegistry()
    for kind in kinds or KINDS:
        EVERY[kind](registry)
    made = set()
    for family in registry.collect():
        if family.type == "histogram":
            made |= {f"{family.name}_{part}" for part in ("bucket", "sum", "count")}
        else:
            made.add(f"{family.name}_total" if family.type == "counter" else family.name)
    return made


def recorded() -> set[str]:
    """Names of recorded series that every service with promises has."""
    return {
        ATTAINMENT,
        *(f"{RATIO}{window}" for window in ("5m", "30m", "1h", "2h", "6h", "1d", "3d")),
    }
