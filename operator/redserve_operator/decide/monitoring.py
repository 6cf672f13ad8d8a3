"""What MonitoringReady says of the objects that Prometheus reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from redserve.cluster import labels
from redserve.cluster.facts import POD_MONITOR, PROMETHEUS_RULE
from redserve_operator.decide import reasons
from redserve_operator.decide.objects import key_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from redserve.cluster.facts import Manifest
    from redserve_operator.decide.observed import ObjectKey
    from redserve_operator.decide.reasons import Verdict

_UNSEEN: Final = "no PodMonitor tells Prometheus where the pods are"


def monitoring(shared: Iterable[Manifest], rejected: Mapping[ObjectKey, str]) -> Verdict:
    """The verdict.

    Args:
        shared: What is made for the service, `Rendered.shared`.
        rejected: What the API server refused, and its words.
    """
    monitor = rules = None
    for manifest in shared:
        if manifest["kind"] == POD_MONITOR:
            monitor = manifest
        elif manifest["kind"] == PROMETHEUS_RULE or labels.RULES in manifest["metadata"]["labels"]:
            rules = manifest
    for key in [key_of(one) for one in (rules, monitor) if one is not None]:
        if key in rejected:
            return reasons.OBJECT_REFUSED.says(f"{key.kind} {key.name}: {rejected[key]}")
    seen = f"the PodMonitor {_name(monitor)} finds the pods" if monitor else _UNSEEN
    if rules is None:
        return reasons.NO_RULES.says(f"monitoring.rules is Disabled; {seen}")
    reason = reasons.PROMETHEUS_RULE if rules["kind"] == PROMETHEUS_RULE else reasons.CONFIG_MAP
    return reason.says(f"rules are in the {rules['kind']} {_name(rules)}; {seen}")


def _name(manifest: Manifest) -> str:
    return str(manifest["metadata"]["name"])
