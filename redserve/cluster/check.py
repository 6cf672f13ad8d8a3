"""What a manifest asks for and this release, or this cluster, cannot keep."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from redserve.cluster.check_arguments import argument_refusals
from redserve.cluster.check_model import model_refusals
from redserve.cluster.check_pods import pod_template_refusals
from redserve.cluster.check_resources import resource_refusals
from redserve.cluster.environment import RESERVED
from redserve.cluster.facts import POD_MONITOR, PROMETHEUS_RULE, Refusal
from redserve.cluster.model_source import model_source
from redserve.cluster.names import POOLS
from redserve.cluster.ports import EVERYWHERE, pod_ports
from redserve.cluster.resources import rdma_devices
from redserve.cluster.scope import pool_spec
from redserve.spec.release import unsupported

if TYPE_CHECKING:
    from collections.abc import Iterator

    from redserve.cluster.facts import ClusterFacts
    from redserve.spec.placement import Role
    from redserve.spec.service import RedService

OLDEST_MINOR: Final = 32
"""Kubernetes 1.x: older ones lack what pods are made with."""


def check(service: RedService, facts: ClusterFacts) -> tuple[Refusal, ...]:
    """Everything that stands in the way, each with its field and what to write instead.

    Empty: `render` works, and what it makes means what the manifest says.
    """
    return tuple(_refusals(service, facts))


def _refusals(service: RedService, facts: ClusterFacts) -> Iterator[Refusal]:
    if facts.minor < OLDEST_MINOR:
        yield Refusal(
            "KubernetesUnsupported",
            "apiVersion",
            f"Kubernetes 1.{facts.minor} is too old: 1.{OLDEST_MINOR} is the first that is served",
        )
    for unkept in unsupported(service.spec):
        yield Refusal(unkept.reason, unkept.field, unkept.why)
    yield from model_refusals(service.spec.model)
    for pool in POOLS:
        yield from _pool_refusals(service, pool)
        template = tuple(pod_template_refusals(service, pool, facts))
        yield from template
        if not template:  # what cannot be merged cannot be counted
            yield from resource_refusals(service, pool, facts)
    yield from _router_refusals(service)
    yield from _monitoring_refusals(service, facts)


def _pool_refusals(service: RedService, pool: Role) -> Iterator[Refusal]:
    spec = pool_spec(service, pool)
    if spec.scaling is not None and spec.scaling.mode == "SLO":
        yield Refusal(
            "ScalingModeUnsupported",
            f"spec.{pool}.scaling.mode",
            "this release does not scale by itself; write External, and point an HPA or KEDA at "
            f"the RedPool {service.name}-{pool}",
        )
    # Only what no registry could mean; the rest is the kubelet's to say.
    if spec.image is not None and re.fullmatch(r"[^\s/][^\s]*", spec.image) is None:
        yield Refusal(
            "InvalidImage",
            f"spec.{pool}.image",
            f"{spec.image!r} is no image reference; write registry/name:tag",
        )
    for number, variable in enumerate(spec.env):
        if variable.name in RESERVED:
            yield Refusal(
                "InvalidEnvironment",
                f"spec.{pool}.env[{number}].name",
                f"{variable.name} is set in every pod, and settings are made from it; choose "
                "another name",
            )
    yield from argument_refusals(pool, spec.extra_args)


def _router_refusals(service: RedService) -> Iterator[Refusal]:
    router = service.spec.router
    if router.tls is not None:
        yield Refusal(
            "TlsUnsupported",
            "spec.router.tls",
            "routers speak plain text in this release; remove it, and end TLS in a gateway before "
            "them",
        )
    for name, listener in (("http", router.http), ("grpc", router.grpc)):
        if listener.host not in (None, EVERYWHERE):
            yield Refusal(
                "InvalidListener",
                f"spec.router.{name}.host",
                f"a pod that listens on {listener.host} cannot be reached; remove it",
            )
        if listener.port == 0:
            yield Refusal(
                "InvalidListener",
                f"spec.router.{name}.port",
                "a Service needs a port that is known beforehand; write one",
            )
    grpc, metrics = pod_ports(service, "router")
    if grpc.number == metrics.number:
        yield Refusal(
            "InvalidListener",
            "spec.router.grpc.port",
            f"{grpc.number} is where a router without HTTP has its metrics; choose another",
        )


def _monitoring_refusals(service: RedService, facts: ClusterFacts) -> Iterator[Refusal]:
    monitoring = service.spec.monitoring
    if monitoring.pod_monitor == "Enabled" and POD_MONITOR not in facts.kinds:
        yield Refusal(
            "PodMonitorUnsupported",
            "spec.monitoring.podMonitor",
            "this cluster does not serve the kind PodMonitor; install the Prometheus operator, or "
            "write Auto",
        )
    if monitoring.rules == "Enabled" and PROMETHEUS_RULE not in facts.kinds:
        yield Refusal(
            "PrometheusRuleUnsupported",
            "spec.monitoring.rules",
            "this cluster does not serve the kind PrometheusRule; install the Prometheus operator, "
            "or write Auto, which makes a ConfigMap then",
        )


def without_effect(service: RedService) -> tuple[str, ...]:
    """Fields that the manifest sets and that change nothing in a cluster in this release."""
    spec = service.spec
    from_hub = spec.model.scheme == "hf"
    filled = model_source(spec.model).filled_by != "nobody"
    fields = {
        "spec.model.cache": spec.model.cache is not None and not from_hub,
        "spec.model.tokenSecretRef": spec.model.token_secret_ref is not None and not filled,
        "spec.transport.rdma": spec.transport.rdma is not None and rdma_devices(service) is None,
    }
    return tuple(field for field, is_idle in fields.items() if is_idle)
