"""The dashboard of all services: which of them breaks its promises, and a way to each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from grafana_foundation_sdk.builders.dashboard import DashboardLink

from redserve.observability.slo_rules import ATTAINMENT, RATIO
from tools.dashboards.assemble import assemble
from tools.dashboards.panels import Look, Query, figure, lines
from tools.dashboards.promql import or_zero, quantile, rate
from tools.dashboards.row import Row
from tools.dashboards.slo_row import BUDGET_LIMITS
from tools.dashboards.user_row import FAILED, REQUESTS, TTFT
from tools.dashboards.variables import alert_marks, choice_of_namespaces

if TYPE_CHECKING:
    from typing import Any

UID: Final = "redserve-services"
_OURS: Final = 'namespace=~"$namespace"'
_BY: Final = "namespace, redservice"
_NAME: Final = "{{namespace}}/{{redservice}}"
_PROMISE: Final = f"{_NAME} {{{{slo}}}}"
_OBJECTIVE: Final = f"max by ({_BY}, slo) (redserve_slo_objective_ratio{{{_OURS}}})"
_ATTAINED: Final = f"max by ({_BY}, slo) ({ATTAINMENT}{{{_OURS}}})"
_FIRING: Final = f'ALERTS{{{_OURS}, redservice!="", alertstate="firing"}}'
_LINK: Final = (
    "/d/redserve-service?var-datasource=${datasource}"
    "&var-namespace=${__field.labels.namespace}"
    "&var-service=${__field.labels.redservice}&${__url_time_range}"
)


def services_dashboard() -> dict[str, Any]:
    """As Grafana imports it."""
    return assemble(
        UID,
        "REDServe / All services",
        "Every service that this Prometheus knows: promises, load, alerts. Made by "
        "`make dashboards`.",
        choice_of_namespaces(),
        [alert_marks(f'{_OURS}, redservice!=""', _NAME)],
        (_promises(), _load()),
    )


def _promises() -> Row:
    failed, every = rate(REQUESTS, FAILED, of=_OURS, by=_BY), rate(REQUESTS, of=_OURS, by=_BY)
    return Row(
        "Promises",
        (
            figure(
                "Error budget left",
                "Of each promise of each service; a click leads to the service. Needs the "
                "recording rules.",
                Look("percentunit", width=24, limits=BUDGET_LIMITS, decimals=1),
                Query(f"1 - (1 - {_ATTAINED}) / (1 - {_OBJECTIVE})", _PROMISE),
            ).data_links([DashboardLink("Open the service").url(_LINK)]),
            lines(
                "Burn rate over an hour",
                "How many times as fast as allowed the budgets are used up; above 14.4 a page "
                "comes, of promises below about 93.7 % sooner (at 90 %: 9.1).",
                Look("short", limits=((None, "green"), (6.0, "orange"), (14.4, "red"))),
                Query(f"max by ({_BY}, slo) ({RATIO}1h{{{_OURS}}}) / (1 - {_OBJECTIVE})", _PROMISE),
            ),
            lines(
                "Failed requests",
                "Share of requests that services failed: their own errors, and deadlines that "
                "passed, whoever had set them.",
                Look("percentunit", highest=1),
                Query(f"({failed} or 0 * {every}) / ({every} > 0)", _NAME),
            ),
            lines(
                "Alerts that fire",
                "By service; the total is drawn too, so that silence is seen as 0.",
                Look("short", decimals=0),
                Query(or_zero(f"count({_FIRING})"), "all"),
                Query(f"count by ({_BY}, alertname) ({_FIRING})", f"{_NAME} {{{{alertname}}}}"),
            ),
        ),
    )


def _load() -> Row:
    tokens = rate("redserve_output_tokens_total", of=_OURS, by=_BY)
    return Row(
        "Load",
        (
            lines(
                "Requests",
                "Requests that ended, per second.",
                Look("reqps", width=6),
                Query(rate(REQUESTS, of=_OURS, by=_BY), _NAME),
            ),
            lines(
                "Tokens",
                "Output tokens per second.",
                Look("suffix: tok/s", width=6),
                Query(tokens, _NAME),
            ),
            lines(
                "Time to first token, p95",
                "95th percentile.",
                Look("s", width=6),
                Query(quantile(0.95, TTFT, of=_OURS, by=_BY), _NAME),
            ),
            lines(
                "Processes",
                "That can be scraped.",
                Look("short", width=6, decimals=0),
                Query(f'sum by ({_BY}) (up{{{_OURS}, redservice!=""}})', _NAME),
            ),
        ),
    )
