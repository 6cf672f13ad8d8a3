"""What an object that was refused holds up, and what is said of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from redserve.cluster.names import rules_config_map
from redserve_operator.decide import reasons
from redserve_operator.decide.amended import told
from redserve_operator.decide.objects import WORKLOADS
from redserve_operator.decide.observed import ObjectKey
from redserve_operator.decide.plan import Apply

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Set

    from redserve_operator.decide.conditions import Verdicts
    from redserve_operator.decide.observed import Amended
    from redserve_operator.decide.plan import Action

_HOLD_PODS: Final = WORKLOADS | {"ConfigMap", "ServiceAccount"}
"""Without these no pod starts."""


def waits_for(action: Action, refused: Set[ObjectKey] | Mapping[ObjectKey, str]) -> bool:
    """Whether an action is of no use because of what was refused in this round.

    That is a workload that is not there yet and names a ConfigMap or ServiceAccount that was
    refused. One that is there is written all the same: its size must follow.
    """
    if not isinstance(action, Apply) or action.why != "created":
        return False
    return any(key in refused for key in _needs(action.manifest))


def tell_of(
    verdicts: Verdicts, rejected: Mapping[ObjectKey, str], amended: Mapping[ObjectKey, Amended]
) -> None:
    """Put into the verdicts what the API server made of our objects: Accepted, and what follows."""
    if not rejected:
        changed = told(amended)
        verdicts["Accepted"] = (
            reasons.AMENDED.says(changed)
            if changed
            else reasons.VALID.says("the manifest is usable")
        )
        return
    key, message = min(rejected.items())
    more = len(rejected) - 1
    others = f" (and {more} more)" if more else ""
    message = f"{key.kind} {key.name}: {message}{others}"
    verdicts["Accepted"] = reasons.OBJECT_REFUSED.says(message)
    verdicts["Degraded"] = reasons.OBJECT_REFUSED.says(message, "True")
    at_work = (reasons.SCALING.name, reasons.ROLLOUT_IN_PROGRESS.name)
    if verdicts["Progressing"].reason in at_work and any(map(_holds_pods, rejected)):
        verdicts["Progressing"] = reasons.OBJECT_REFUSED.says(message)


def _holds_pods(key: ObjectKey) -> bool:
    is_rules = key.kind == "ConfigMap" and key.name.endswith(rules_config_map(""))
    return key.kind in _HOLD_PODS and not is_rules


def _needs(manifest: Mapping[str, Any]) -> Iterator[ObjectKey]:
    for pod in _pod_specs(manifest.get("spec") or {}):
        yield ObjectKey("ServiceAccount", pod.get("serviceAccountName") or "default")
        for container in (*(pod.get("initContainers") or ()), *pod["containers"]):
            for source in container.get("envFrom") or ():
                yield ObjectKey("ConfigMap", (source.get("configMapRef") or {}).get("name", ""))
        for volume in pod.get("volumes") or ():
            yield ObjectKey("ConfigMap", (volume.get("configMap") or {}).get("name", ""))


def _pod_specs(value: Any) -> Iterator[Mapping[str, Any]]:
    """Pod specs in a workload's spec, at whichever depth its kind has them."""
    if isinstance(value, dict):
        if "containers" in value:
            yield value
            return
        for entry in value.values():
            yield from _pod_specs(entry)
