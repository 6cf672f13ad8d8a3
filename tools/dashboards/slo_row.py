"""How the promises of the manifest stand. Needs the recording rules of `redserve rules`."""

from __future__ import annotations

from typing import Final

from redserve.observability.series import duration
from redserve.observability.slo_rules import ATTAINMENT, BURN_ALERTS, EVENTS, RATIO
from tools.dashboards.panels import Look, Query, figure, lines
from tools.dashboards.promql import INTERVAL, SERVICE, or_zero, select
from tools.dashboards.row import Row

_BY: Final = "max by (slo)"
_OBJECTIVE: Final = f"{_BY} ({select('redserve_slo_objective_ratio', of=SERVICE)})"
_ATTAINED: Final = f"{_BY} ({select(ATTAINMENT, of=SERVICE)})"
_ALLOWED: Final = f"(1 - {_OBJECTIVE})"
BUDGET_LIMITS: Final = ((None, "red"), (0.0, "orange"), (0.25, "green"))


def burn_rate(window: str) -> str:
    """How many times as fast as allowed the budget was used up over a window."""
    return f"{_BY} ({select(f'{RATIO}{window}', of=SERVICE)}) / {_ALLOWED}"


def slo_row() -> Row:
    """The row."""
    share = Look("percentunit", width=6, decimals=3)
    return Row(
        "Service level objectives",
        (
            figure(
                "Attained",
                "Share of good events over each promise's own window (`windowDays`), as far as "
                "Prometheus keeps data. What counts: docs/observability.md.",
                share,
                Query(_ATTAINED, "{{slo}}"),
                Query(_OBJECTIVE, "{{slo}} promised"),
            ),
            figure(
                "Error budget left",
                "Share of the allowed bad events of the window that is left: 100 % is untouched, "
                "below 0 the promise is broken.",
                Look("percentunit", width=6, limits=BUDGET_LIMITS, decimals=1),
                Query(f"1 - (1 - {_ATTAINED}) / {_ALLOWED}", "{{slo}}"),
            ),
            lines(
                "Burn rate",
                "How many times as fast as allowed the budget is used up; at 1 it lasts exactly "
                f"for the window. {_calls()} if the last twelfth of that time is above it too. "
                "Promises below about 93.7 % call sooner, for their budget cannot burn so fast: "
                "at 90 % the page comes at 9.1.",
                Look("short", width=12, limits=((None, "green"), (6.0, "orange"), (14.4, "red"))),
                *(Query(burn_rate(window), f"{{{{slo}}}} {window}") for window in _WINDOWS),
            ),
            lines(
                "Attained over an hour",
                "Share of good events of the last hour. A window without events has no value.",
                Look("percentunit", lowest=None, highest=1, decimals=2),
                Query(f"1 - {_BY} ({select(f'{RATIO}1h', of=SERVICE)})", "{{slo}}"),
            ),
            lines(
                "Events",
                "What was judged, per second: a request or an image that kept (good) or broke "
                "(bad) a promise. Clients that left, or asked for the impossible, are no events.",
                Look("reqps"),
                Query(
                    f"sum by (slo, outcome) (rate({select(EVENTS, of=SERVICE)}[{INTERVAL}]))",
                    "{{slo}} {{outcome}}",
                ),
            ),
            lines(
                "Alerts that fire",
                "Alerts of this service by name; the total is drawn too, so that silence is seen "
                "as 0. Runbooks: docs/runbooks.",
                Look("short", decimals=0),
                Query(or_zero(f"count({_FIRING})"), "all"),
                Query(f"count by (alertname) ({_FIRING})", "{{alertname}}"),
            ),
        ),
    )


def _calls() -> str:
    """Such as `A page comes above 14.4 over 1h or 6 over 6h, a ticket ...`."""
    told = [
        f"a {alert.severity} comes above "
        + " or ".join(f"{burn.factor:g} over {duration(burn.long_s)}" for burn in alert.burns)
        for alert in BURN_ALERTS
    ]
    return f"{told[0].capitalize()}, {', '.join(told[1:])},"


_WINDOWS: Final = tuple(duration(burn.long_s) for alert in BURN_ALERTS for burn in alert.burns)
"""What alerts look at first."""
_FIRING: Final = select("ALERTS", 'alertstate="firing"', of=SERVICE)
