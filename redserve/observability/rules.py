"""The rule file of a service."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from redserve.observability.alerts import RUNBOOKS
from redserve.observability.capacity_alerts import capacity_alerts
from redserve.observability.pool_alerts import pool_alerts
from redserve.observability.series import Series
from redserve.observability.slo_rules import burn_alerts, recording_rules
from redserve.observability.transport_alerts import transport_alerts
from redserve.spec.objectives import objectives_of

if TYPE_CHECKING:
    from redserve.observability.alerts import Alert
    from redserve.spec.service import RedService


def rule_file(
    service: RedService, *, namespace: str | None, runbooks: str = RUNBOOKS
) -> dict[str, Any]:
    """As Prometheus reads it, and as the `spec` of a PrometheusRule has it; see `rule_groups`."""
    return {"groups": rule_groups(service, namespace=namespace, runbooks=runbooks)}


def rule_groups(
    service: RedService, *, namespace: str | None, runbooks: str = RUNBOOKS
) -> list[dict[str, Any]]:
    """Recording rules and alerts of a service.

    Args:
        service: Its manifest.
        namespace: Label of its series. None takes every service of that name, each namespace for
            itself.
        runbooks: Address of the folder of runbooks that alerts link to.
    """
    series = Series(service.name, namespace)
    objectives = objectives_of(service.spec.slos)
    groups = {
        "slo": [
            *recording_rules(series, objectives),
            *(alert.to_rule(runbooks) for alert in burn_alerts(series, objectives)),
        ],
        "system": [alert.to_rule(runbooks) for alert in _system_alerts(series, service)],
    }
    return [
        {"name": f"redserve-{service.name}-{name}", "rules": rules}
        for name, rules in groups.items()
        if rules
    ]


def _system_alerts(series: Series, service: RedService) -> list[Alert]:
    if service.spec.reconcile == "Stopped":
        return []  # that nothing runs is what was asked for
    return [
        *pool_alerts(series, service.spec),
        *transport_alerts(series, service.spec.transport),
        *capacity_alerts(series, service.spec),
    ]
