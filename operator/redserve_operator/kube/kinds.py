"""The kinds that the operator reads and writes, and where the API server has them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from redserve.cluster import labels
from redserve.cluster.facts import LEADER_WORKER_SET, OPTIONAL_KINDS, POD_MONITOR, PROMETHEUS_RULE


@dataclass(frozen=True, slots=True)
class Kind:
    """A namespaced kind.

    Attributes:
        name: As in `kind:`.
        group: API group; empty for the core.
        version: Version that is rendered and read.
        plural: As in paths.
        child: Whether objects of it belong to a service and carry its label; the operator watches
            these and `RedService`.
    """

    name: str
    group: str
    version: str
    plural: str
    child: bool = True

    @property
    def api_version(self) -> str:
        """As in `apiVersion:`."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str | None, name: str = "", subresource: str = "") -> str:
        """Path of the collection, an object or its subresource; namespace None is all of them."""
        base = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        scope = "" if namespace is None else f"/namespaces/{namespace}"
        tail = "".join(f"/{part}" for part in (name, subresource) if part)
        return f"{base}{scope}/{self.plural}{tail}"


OF_A_SERVICE: Final = f"{labels.SERVICE},{labels.SERVICE}!="
"""Selects the objects of all services. Anybody may give anything the label with an empty value: it
would be listed, and known as nobody's, for ever."""

REDSERVICE: Final = Kind("RedService", "redserve.dev", "v1alpha1", "redservices", child=False)
REDPOOL: Final = Kind("RedPool", "redserve.dev", "v1alpha1", "redpools")
DEPLOYMENT: Final = Kind("Deployment", "apps", "v1", "deployments")
POD: Final = Kind("Pod", "", "v1", "pods")
EVENT: Final = Kind("Event", "events.k8s.io", "v1", "events", child=False)
LEASE: Final = Kind("Lease", "coordination.k8s.io", "v1", "leases", child=False)

ALWAYS_WATCHED: Final = (
    REDSERVICE,
    REDPOOL,
    DEPLOYMENT,
    Kind("Service", "", "v1", "services"),
    Kind("ConfigMap", "", "v1", "configmaps"),
    Kind("ServiceAccount", "", "v1", "serviceaccounts"),
    Kind("Role", "rbac.authorization.k8s.io", "v1", "roles"),
    Kind("RoleBinding", "rbac.authorization.k8s.io", "v1", "rolebindings"),
    Kind("PodDisruptionBudget", "policy", "v1", "poddisruptionbudgets"),
    Kind("NetworkPolicy", "networking.k8s.io", "v1", "networkpolicies"),
    Kind("Job", "batch", "v1", "jobs"),
    POD,
)
"""In the order in which they are listed; pods are the most."""

_PLURALS: Final = {
    POD_MONITOR: "podmonitors",
    PROMETHEUS_RULE: "prometheusrules",
    LEADER_WORKER_SET: "leaderworkersets",
}


def optional(kind: str) -> Kind:
    """A kind that another project brings, by its name."""
    group, version = OPTIONAL_KINDS[kind].split("/")
    return Kind(kind, group, version, _PLURALS[kind])


def watched(optional_kinds: frozenset[str]) -> tuple[Kind, ...]:
    """Everything that is watched where these optional kinds are served."""
    return (*ALWAYS_WATCHED, *(optional(name) for name in sorted(optional_kinds)))


_BY_NAME: Final = {
    kind.name: kind
    for kind in (*ALWAYS_WATCHED, *(optional(name) for name in OPTIONAL_KINDS), EVENT, LEASE)
}


def kind_of(name: str) -> Kind:
    """The kind of this name.

    Raises:
        KeyError: No kind that the operator knows.
    """
    return _BY_NAME[name]
