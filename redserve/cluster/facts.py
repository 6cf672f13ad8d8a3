"""What rendering depends on beside the manifest, and what it hands out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from redserve.observability import RUNBOOKS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from redserve.spec.placement import Role

Manifest = dict[str, Any]
"""One Kubernetes object as plain data; whoever makes it owns it."""

POD_MONITOR: Final = "PodMonitor"
PROMETHEUS_RULE: Final = "PrometheusRule"
LEADER_WORKER_SET: Final = "LeaderWorkerSet"
API_SERVER_PORTS: Final = (443, 6443, 8443, 16443)
"""Where API servers listen: managed ones, kubeadm and its kin, minikube, MicroK8s."""
OPTIONAL_KINDS: Final[Mapping[str, str]] = {
    POD_MONITOR: "monitoring.coreos.com/v1",
    PROMETHEUS_RULE: "monitoring.coreos.com/v1",
    LEADER_WORKER_SET: "leaderworkerset.x-k8s.io/v1",
}
"""Kinds that other projects bring: kind -> apiVersion that is rendered."""


@dataclass(frozen=True, slots=True)
class ClusterFacts:
    """What a cluster can do.

    Attributes:
        minor: Minor version of Kubernetes 1.x.
        kinds: The `OPTIONAL_KINDS` that are served.
    """

    minor: int = 32
    kinds: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Images:
    """Container images of this release, used where a pool names none.

    Attributes:
        router, encoder, llm: Image references. The model loader runs in the router's.
        pull_policy: As Kubernetes writes it; empty leaves Kubernetes' default.
        pull_secrets: Names of Secrets in the service's namespace, added to the manifest's own.
    """

    router: str
    encoder: str
    llm: str
    pull_policy: str = ""
    pull_secrets: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Watching:
    """How all services are watched.

    Attributes:
        labels: On PodMonitors, PrometheusRules and ConfigMaps of rules, for a Prometheus that
            chooses by them; pairs. The manifest's `monitoring.labels` win.
        runbooks: Address of the folder of runbooks that alerts link to.
    """

    labels: tuple[tuple[str, str], ...] = ()
    runbooks: str = RUNBOOKS


@dataclass(frozen=True, slots=True)
class Owner:
    """The RedService object in the API server, for owner references."""

    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class Context:
    """Everything beside the manifest.

    Attributes:
        namespace: Where the service lives.
        images: What to run.
        facts: What the cluster can do.
        owner: For owner references; None prints objects that nobody owns (`redserve render`).
        model_revision: Commit that an unpinned `spec.model.revision` was resolved to by the loader
            Job; empty takes the manifest's word.
        api_server_ports: Where pods may reach the API server, beside 443. NetworkPolicies act on
            the address behind the Service `kubernetes`, so it is the port that the server itself
            listens on.
        watching: For Prometheus.
    """

    namespace: str
    images: Images
    facts: ClusterFacts = field(default_factory=ClusterFacts)
    owner: Owner | None = None
    model_revision: str = ""
    api_server_ports: tuple[int, ...] = API_SERVER_PORTS
    watching: Watching = field(default_factory=Watching)


@dataclass(frozen=True, slots=True)
class PoolObjects:
    """One pool in one revision.

    Attributes:
        pool: Which.
        config: ConfigMap with the environment of the serving container; immutable.
        service: Headless Service, whose EndpointSlices the routers read.
        workload: Deployment or LeaderWorkerSet, without `spec.replicas`: the rollout decides that.
        replicas: How many the manifest starts with.
        pods_per_replica: Pods of one replica; above 1 for a LeaderWorkerSet.
    """

    pool: Role
    config: Manifest
    service: Manifest
    workload: Manifest
    replicas: int
    pods_per_replica: int = 1

    def workload_with(self, replicas: int) -> Manifest:
        """The workload at a size; a copy down to `spec`."""
        return {**self.workload, "spec": {"replicas": replicas, **self.workload["spec"]}}


@dataclass(frozen=True, slots=True)
class Rendered:
    """Everything that a service needs.

    Attributes:
        revision: 8 hexadecimal digits over everything that pods are made from (not sizes).
        shared: Objects that outlive revisions, in the order in which to apply them: RedPools
            (without `spec.replicas`), accounts, Role and RoleBinding, front Service,
            PodDisruptionBudgets, NetworkPolicies, PodMonitor, rules.
        pools: The revision's objects, in the order of `names.POOLS`.
        loader: Job that fills the model volume, or None when there is nothing to fill. Pods of the
            revision wait for it.
    """

    revision: str
    shared: tuple[Manifest, ...]
    pools: tuple[PoolObjects, ...]
    loader: Manifest | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """Something that a manifest asks for and that cannot be kept.

    Attributes:
        reason: CamelCase word for the condition Accepted=False, such as `MultiNodeUnsupported`.
        field: Path in the manifest, such as `spec.llm.parallelism`.
        message: What is wrong and what to write instead.
    """

    reason: str
    field: str
    message: str
