"""What Prometheus is told about a service, as an object of the cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING

import yaml

from redserve.cluster import labels, names
from redserve.cluster.facts import OPTIONAL_KINDS, PROMETHEUS_RULE
from redserve.observability import rule_file

if TYPE_CHECKING:
    from redserve.cluster.facts import Manifest
    from redserve.cluster.scope import Scope


def rules(scope: Scope) -> Manifest | None:
    """A PrometheusRule where the kind is served, else a ConfigMap; None where none is wanted."""
    if scope.service.spec.monitoring.rules == "Disabled":
        return None
    watching = scope.context.watching
    made = rule_file(scope.service, namespace=scope.context.namespace, runbooks=watching.runbooks)
    if PROMETHEUS_RULE in scope.context.facts.kinds:
        return {
            "apiVersion": OPTIONAL_KINDS[PROMETHEUS_RULE],
            "kind": PROMETHEUS_RULE,
            "metadata": scope.monitoring_metadata(scope.name),
            "spec": made,
        }
    metadata = scope.monitoring_metadata(names.rules_config_map(scope.name))
    metadata["labels"][labels.RULES] = "true"
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata,
        # Whoever gathers ConfigMaps puts them all into one folder.
        "data": {f"{scope.context.namespace}.{scope.name}.rules.yaml": _text(made)},
    }


def _text(made: Manifest) -> str:
    return yaml.safe_dump(made, sort_keys=False, width=1000, allow_unicode=True)
