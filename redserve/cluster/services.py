"""Services: one for clients, and one for each pool of a revision whose endpoints routers read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from redserve.cluster import labels, names
from redserve.cluster.leader_worker_set import LEADER
from redserve.cluster.ports import client_ports, pod_ports
from redserve.cluster.resources import pods_per_replica

if TYPE_CHECKING:
    from redserve.cluster.facts import Manifest
    from redserve.cluster.ports import Port
    from redserve.cluster.scope import Scope
    from redserve.spec.placement import Role


def front_service(scope: Scope) -> Manifest:
    """The Service that clients use: ready routers of every revision."""
    spec = scope.service.spec.router.service
    metadata = scope.shared_metadata(names.front_service(scope.name), "router")
    if spec.annotations:
        metadata["annotations"] = dict(spec.annotations)
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata,
        "spec": {
            "type": spec.type,
            "selector": labels.pool_selector(scope.name, "router"),
            "ports": [_port(port) for port in client_ports(scope.service)],
        },
    }


def headless_service(scope: Scope, pool: Role) -> Manifest:
    """The Service behind which routers find a pool of their revision; of a group, its leader.

    Raises:
        ConfigError: `podTemplate` cannot be merged.
    """
    selector = labels.revision_selector(scope.name, pool, scope.revision)
    leaders = LEADER if pods_per_replica(scope.service, pool) > 1 else {}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": scope.revision_metadata(pool),
        "spec": {
            "clusterIP": "None",
            "selector": {**selector, **leaders},
            "ports": [_port(port) for port in pod_ports(scope.service, pool)],
        },
    }


def _port(port: Port) -> dict[str, Any]:
    made: dict[str, Any] = {
        "name": port.name,
        "port": port.number,
        "targetPort": port.name,
        "protocol": "TCP",
    }
    return made | ({"appProtocol": port.protocol} if port.protocol else {})
