"""What of a manifest this machine cannot do: refused, or ignored with a word."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic.alias_generators import to_snake

from redserve.errors import ConfigError
from redserve.spec.release import unsupported

if TYPE_CHECKING:
    from collections.abc import Iterator

    from redserve.spec.base import Spec
    from redserve.spec.pool import PoolSpec
    from redserve.spec.service import RedService, RedServiceSpec


@dataclass(frozen=True, slots=True)
class Refusal:
    """A field that would change what the service is, and that cannot be kept here."""

    field: str
    why: str


def check_runnable_here(service: RedService) -> tuple[str, ...]:
    """Make sure that running `service` on this machine does not silently mean something else.

    Returns:
        Warnings: what is left out because only a cluster has it.

    Raises:
        ConfigError: The first field that cannot be kept, with the reason and the mend.
    """
    refusal = next(refusals(service.spec), None)
    if refusal is not None:
        raise ConfigError(refusal.why, field=refusal.field)
    ignored = list(_cluster_fields(service.spec))
    warnings = []
    if ignored:
        warnings.append(f"only a cluster has a use for {', '.join(ignored)}: left out here")
    for name, pool in _pools(service.spec):
        if pool.scaling is not None:
            warnings.append(
                f"spec.{name}.scaling: nothing scales here; {pool.num_replicas} replica(s) run"
            )
    return tuple(warnings)


def refusals(spec: RedServiceSpec) -> Iterator[Refusal]:
    """Everything that cannot be kept here: first what no place keeps, then what a cluster would."""
    for unkept in unsupported(spec):
        yield Refusal(unkept.field, unkept.why)
    if spec.model.scheme == "pvc":
        yield Refusal(
            "spec.model.uri",
            "pvc:// can be read in a cluster only; write file:///folder, or hf://organisation/name",
        )
    for name, pool in _pools(spec):
        yield from _pool_refusals(name, pool)
    if spec.router.tls is not None:
        yield Refusal(
            "spec.router.tls",
            "the Secret is in a cluster; remove it, and keep the router on 127.0.0.1",
        )
    if spec.router.num_replicas > 1:
        yield Refusal("spec.router.replicas", "one machine has one address: write 1")
    if spec.reconcile == "Stopped":
        yield Refusal("spec.reconcile", "the manifest says Stopped; write Active to run it")


def _pool_refusals(name: str, pool: PoolSpec) -> Iterator[Refusal]:
    if pool.num_replicas == 0:
        yield Refusal(f"spec.{name}.replicas", "nothing would answer; write at least 1")
    if pool.extra_args:
        yield Refusal(
            f"spec.{name}.extraArgs",
            "flags override settings of pods, in a cluster only; use the manifest's fields",
        )
    for index, variable in enumerate(pool.env):
        if variable.value_from is not None:
            yield Refusal(
                f"spec.{name}.env[{index}].valueFrom",
                f"there is no cluster to take {variable.name} from; write its value",
            )


def _pools(spec: RedServiceSpec) -> tuple[tuple[str, PoolSpec], ...]:
    return (("encoder", spec.encoder), ("llm", spec.llm), ("router", spec.router))


def _cluster_fields(spec: RedServiceSpec) -> Iterator[str]:
    """Fields that the manifest sets and only a cluster has a use for."""
    values: dict[str, object] = {
        "serviceAccountName": spec.service_account_name,
        "model.tokenSecretRef": spec.model.token_secret_ref,
        "model.cache": spec.model.cache,
        "transport.placement": spec.transport.placement,
        "transport.rdma": spec.transport.rdma,
        "networkPolicy": _if_written(spec, "network_policy"),
        "reconcile": spec.reconcile if spec.reconcile == "Paused" else None,
    }
    for field in ("podMonitor", "rules", "labels"):
        values[f"monitoring.{field}"] = _if_written(spec.monitoring, to_snake(field))
    values["router.service"] = _if_written(spec.router, "service")
    for name, pool in _pools(spec):
        values[f"{name}.image"] = pool.image
        values[f"{name}.podTemplate"] = pool.pod_template
        values[f"{name}.sharedMemorySize"] = pool.shared_memory_size
        values[f"{name}.disruption"] = _if_written(pool, "disruption")
        for field in ("maxSurge", "maxUnavailable"):
            values[f"{name}.rollout.{field}"] = _if_written(pool.rollout, to_snake(field))
        resources = pool.resources
        values[f"{name}.resources.claims"] = resources.claims or None
        for resource in [*resources.limits, *resources.requests]:
            if resource != "cpu":
                values[f"{name}.resources[{resource}]"] = resource
    yield from (f"spec.{field}" for field, value in values.items() if value is not None)


def _if_written(struct: Spec, name: str) -> object:
    """The value of a field that has a default, if the manifest sets it all the same."""
    return getattr(struct, name) if name in struct.model_fields_set else None
