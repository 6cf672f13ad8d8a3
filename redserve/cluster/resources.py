"""What a serving container asks its node for, and what follows from it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from redserve.cluster.names import MAIN_CONTAINER
from redserve.cluster.scope import pool_spec
from redserve.cluster.strategic_merge import merge_pod_template
from redserve.errors import ConfigError
from redserve.spec.quantity import Quantity

if TYPE_CHECKING:
    from collections.abc import Mapping

    from redserve.spec.placement import Role
    from redserve.spec.pool import Parallelism
    from redserve.spec.service import RedService
    from redserve.spec.transport import Rdma

DEFAULT_THREADS: Final = 4
"""Compute threads of a pod that says nothing about cores."""
_GPU: Final = re.compile(r"[^/]+/gpu|nvidia\.com/(gpu\.shared|mig-.+)|gpu\.intel\.com/(i915|xe)")
_PLAIN: Final = frozenset({"cpu", "memory", "ephemeral-storage"})


def main_resources(service: RedService, pool: Role) -> dict[str, Any]:
    """`resources` of the serving container, without what `podTemplate` says."""
    spec = pool_spec(service, pool).resources
    rdma = rdma_devices(service)
    limits = _amounts(spec.limits)
    if rdma is not None and pool != "router":
        limits.setdefault(rdma.resource_name, str(rdma.count))
    made: dict[str, Any] = {}
    if limits:
        made["limits"] = limits
    if spec.requests:
        made["requests"] = _amounts(spec.requests)
    if spec.claims:
        made["claims"] = [claim.model_dump(exclude_none=True) for claim in spec.claims]
    return made


def rdma_devices(service: RedService) -> Rdma | None:
    """RDMA devices of encoders and engines; None when the data path has no use for them."""
    transport = service.spec.transport
    return transport.rdma if transport.type in ("Auto", "RDMA") else None


def merged_resources(service: RedService, pool: Role) -> dict[str, Any]:
    """`resources` of the serving container as the pod will have them.

    Raises:
        ConfigError: `podTemplate` cannot be merged.
    """
    base = {"spec": {"containers": [{"name": MAIN_CONTAINER}]}}
    made = main_resources(service, pool)
    if made:
        base["spec"]["containers"][0]["resources"] = made  # type: ignore[assignment]
    patch = pool_spec(service, pool).pod_template or {}
    merged = merge_pod_template(base, patch, f"spec.{pool}.podTemplate")
    return _resources_of_main(merged, f"spec.{pool}.podTemplate.spec.containers")


def plain_resources(resources: Mapping[str, Any]) -> dict[str, Any]:
    """The same without devices, for containers that compute nothing."""
    made = {}
    for kind in ("limits", "requests"):
        plain = {n: a for n, a in (resources.get(kind) or {}).items() if n in _PLAIN}
        if plain:
            made[kind] = plain
    return made


def num_threads(service: RedService, pool: Role) -> int:
    """Compute threads: whole cores of the limit, else of the request rounded up, else a guess.

    Raises:
        ConfigError: `podTemplate` cannot be merged.
    """
    resources = merged_resources(service, pool)
    limit = _amount(resources, "limits", "cpu")
    if limit is not None:
        return max(1, limit.floor)
    request = _amount(resources, "requests", "cpu")
    return max(1, request.ceil) if request is not None else DEFAULT_THREADS


def num_gpus(resources: Mapping[str, Any]) -> int:
    """GPUs, or slices of some, of a container with these `resources`."""
    limits = resources.get("limits") or {}
    amounts = (_amount(resources, "limits", name) for name in limits if is_gpu(name))
    return sum(amount.ceil for amount in amounts if amount is not None)


def is_gpu(resource: str) -> bool:
    """Whether a resource stands for devices that torch can compute on."""
    return _GPU.fullmatch(resource) is not None


def uses_gpu(service: RedService, pool: Role) -> bool:
    """Whether pods get a GPU: as a resource, by a claim, or because the manifest says CUDA.

    Raises:
        ConfigError: `podTemplate` cannot be merged.
    """
    if pool == "router":
        return False
    resources = merged_resources(service, pool)
    device = service.spec.encoder.device if pool == "encoder" else service.spec.llm.device
    return num_gpus(resources) > 0 or bool(resources.get("claims")) or device == "CUDA"


def parallelism(service: RedService, pool: Role) -> Parallelism | None:
    """How a replica of the pool is spread over devices; None for routers, which have none."""
    if pool == "router":
        return None
    return service.spec.encoder.parallelism if pool == "encoder" else service.spec.llm.parallelism


def num_devices(service: RedService, pool: Role) -> int:
    """Devices that one replica needs: tensor times pipeline; 0 for a router."""
    spread = parallelism(service, pool)
    return spread.tensor * spread.pipeline if spread else 0


def pods_per_replica(service: RedService, pool: Role) -> int:
    """Pods among which the devices of one replica are shared evenly; 1 when they cannot be.

    Raises:
        ConfigError: `podTemplate` cannot be merged.
    """
    wanted, in_pod = num_devices(service, pool), num_gpus(merged_resources(service, pool))
    return wanted // in_pod if in_pod and wanted % in_pod == 0 else 1


def _amounts(quantities: Mapping[str, Quantity]) -> dict[str, str]:
    return {name: str(quantity) for name, quantity in quantities.items()}


def _resources_of_main(template: Mapping[str, Any], field: str) -> dict[str, Any]:
    containers = (template.get("spec") or {}).get("containers") or []
    for container in containers:
        if container.get("name") == MAIN_CONTAINER:
            resources: dict[str, Any] = container.get("resources", {})
            if not _is_well_formed(resources):
                raise ConfigError(
                    "resources, and limits and requests in it, must be mappings", field=field
                )
            return resources
    return {}


def _is_well_formed(resources: object) -> bool:
    return isinstance(resources, dict) and all(
        isinstance(resources.get(kind, {}), dict) for kind in ("limits", "requests")
    )


def _amount(resources: Mapping[str, Any], kind: str, name: str) -> Quantity | None:
    raw = (resources.get(kind) or {}).get(name)
    try:
        return None if raw is None else Quantity.parse(raw)
    except ValueError:
        return None  # the API server refuses it in its own words
