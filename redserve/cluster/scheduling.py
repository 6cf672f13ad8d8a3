"""Which nodes the pods of a pool prefer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from redserve.cluster import labels

if TYPE_CHECKING:
    from redserve.cluster.scope import Scope
    from redserve.spec.placement import Role

HOSTNAME: Final = "kubernetes.io/hostname"


def spread(scope: Scope, pool: Role, num_pods: int) -> list[dict[str, Any]]:
    """`topologySpreadConstraints`: one node's death takes as few engines and routers as can be.

    Encoders hold nothing that another could not make again, and pods of one replica (`num_pods`
    above 1) want to be close.
    """
    if pool == "encoder" or num_pods > 1:
        return []
    selector = labels.revision_selector(scope.name, pool, scope.revision)
    return [
        {
            "maxSkew": 1,
            "topologyKey": HOSTNAME,
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": selector},
        }
    ]


def affinity(scope: Scope, pool: Role) -> dict[str, Any]:
    """`affinity`: encoders go where engines of their revision are.

    Engines do not look for encoders: each would wait for the other.
    """
    placement = scope.service.spec.transport.placement
    if placement is None or pool != "encoder":
        return {}
    term = {
        "topologyKey": placement.topology_key,
        "labelSelector": {
            "matchLabels": labels.revision_selector(scope.name, "llm", scope.revision)
        },
    }
    if placement.mode == "Required":
        return {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
    preferred = [{"weight": 100, "podAffinityTerm": term}]
    return {"podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred}}
