"""The rule file of a service."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from redserve.observability.capacity_alerts import capacity_alerts
from redserve.observability.pool_alerts import pool_alerts
from redserve.observability.series import Series
from redserve.observability.slo_rules import burn_alerts, recording_rules
from redserve.observability.transport_alerts import transport_alerts
from redserve.spec.objectives import objectives_of

if TYPE_CHECKING:
    from redserve.observability.alerts import Alert
    from redserve.spec.service import RedService


def rule_file(service: RedService, *, namespace: str | None) -> dict[str, Any]:
    """As Prometheus reads it, and as the `spec` of a PrometheusRule has it."""
    return {"groups": rule_groups(service, namespace=namespace)}


def rule_groups(service: RedService, *, namespace: str | None) -> list[dict[str, Any]]:
    """Recording rules and alerts of a service.

    Args:
        service: Its manifest.
        namespace: Label of its series. None takes every service of that name, each namespace for
            itself.
    """
    series = Series(service.name, namespace)
    objectives = objectives_of(service.spec.slos)
    groups = {
        "slo": [
            *recording_rules(series, objectives),
            *(alert.to_rule() for alert in burn_alerts(series, objectives)),
        ],
        "system": [alert.to_rule() for alert in _system_alerts(series, service)],
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
