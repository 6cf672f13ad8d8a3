"""The operator, which is one for all services, and how routers hear from the API server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tools.dashboards.panels import PER_SECOND, Look, Query, lines
from tools.dashboards.promql import INTERVAL, select
from tools.dashboards.row import Row

if TYPE_CHECKING:
    from collections.abc import Iterator

    from grafana_foundation_sdk.cog.builder import Builder
    from grafana_foundation_sdk.models.dashboard import Panel

_P: Final = "redserve_operator"


def _rate(metric: str, by: str, matcher: str = "") -> str:
    return f"sum by ({by}) (rate({_P}_{metric}{matcher}[{INTERVAL}]))"


def _p95(metric: str, by: str = "") -> str:
    return f"histogram_quantile(0.95, {_rate(f'{metric}_bucket', f'{by}le')})"


def operator_row() -> Row:
    """The row."""
    return Row(
        "Operator",
        (
            *_reconciler(),
            *_api_server(),
        ),
        is_folded=True,
    )


def _reconciler() -> Iterator[Builder[Panel]]:
    yield lines(
        "Looks at services",
        "Per second, by result. *acted* without end is a fight over an object.",
        Look(PER_SECOND),
        Query(_rate("reconcile_total", "result"), "{{result}}"),
    )
    yield lines(
        "Time of a look",
        "95th percentile, writes included.",
        Look("s"),
        Query(_p95("reconcile_duration_seconds"), "p95"),
    )
    yield lines(
        "Work that waits",
        "Services that wait for a worker, and how long the oldest has been due.",
        Look("short"),
        Query(f"sum({_P}_queue_depth)", "services"),
        Query(f"max({_P}_queue_oldest_seconds)", "oldest, seconds"),
    )


def _api_server() -> Iterator[Builder[Panel]]:
    yield lines(
        "Calls of the API server",
        "95th percentile of a call, by verb.",
        Look("s"),
        Query(_p95("api_request_duration_seconds", "verb, "), "{{verb}}"),
    )
    yield lines(
        "Answers of the API server",
        "Calls per second, by HTTP status.",
        Look("reqps"),
        Query(_rate("api_request_duration_seconds_count", "code"), "{{code}}"),
    )
    yield lines(
        "Writes",
        "Objects written per second, by kind and why.",
        Look(PER_SECOND),
        Query(_rate("applies_total", "kind, why"), "{{kind}}: {{why}}"),
    )
    yield lines(
        "Leader",
        "Operators that write; it should be one.",
        Look("short", decimals=0),
        Query(f"sum({_P}_leader)", "leaders"),
    )
    yield lines(
        "What watches have not told",
        "Objects that the API server lists and no watch has told of, by kind.",
        Look("short", decimals=0),
        Query(f"max by (kind) ({_P}_watch_lag_objects)", "{{kind}}"),
    )
    yield lines(
        "Routers that follow the API server",
        "Routers of this service that hear of new replicas.",
        Look("short", decimals=0),
        Query(f"sum({select('redserve_discovery_synced')})", "routers"),
    )
