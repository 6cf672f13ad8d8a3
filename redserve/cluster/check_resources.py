"""Resources that do not fit what a replica computes on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from redserve.cluster.facts import LEADER_WORKER_SET, Refusal
from redserve.cluster.leader_worker_set import MAX_NAME
from redserve.cluster.names import revision_name
from redserve.cluster.resources import is_gpu, merged_resources, num_gpus, parallelism
from redserve.cluster.scope import NO_REVISION, pool_spec
from redserve.spec.quantity import Quantity

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from redserve.cluster.facts import ClusterFacts
    from redserve.spec.placement import Role
    from redserve.spec.pool import Parallelism
    from redserve.spec.service import RedService

_COUNT: Final = "GpuCountMismatch"
_DEFAULT_GPU: Final = "nvidia.com/gpu"


def resource_refusals(service: RedService, pool: Role, facts: ClusterFacts) -> Iterator[Refusal]:
    """What is wrong with the resources of a pool whose `podTemplate` can be merged."""
    resources = merged_resources(service, pool)
    yield from _device_refusals(pool, resources)
    yield from _rdma_refusals(service, pool)
    spread = parallelism(service, pool)
    if spread is None:
        if num_gpus(resources):
            yield Refusal(
                _COUNT,
                f"spec.{pool}.resources.limits",
                "routers compute nothing; remove the GPU",
            )
        return
    yield from _count_refusals(service, pool, spread, resources, facts)


def _count_refusals(
    service: RedService,
    pool: Role,
    spread: Parallelism,
    resources: Mapping[str, Any],
    facts: ClusterFacts,
) -> Iterator[Refusal]:
    have, wanted = num_gpus(resources), spread.tensor * spread.pipeline
    limits = f"spec.{pool}.resources.limits"
    gpu = next(filter(is_gpu, resources.get("limits") or {}), _DEFAULT_GPU)
    device = service.spec.encoder.device if pool == "encoder" else service.spec.llm.device
    product = f"tensor {spread.tensor} x pipeline {spread.pipeline} is {wanted} device(s)"
    if have == 0:
        if resources.get("claims"):
            return
        if wanted > 1:
            yield Refusal(
                _COUNT, limits, f"{product}, and no GPU is asked for; write {gpu}: {wanted}"
            )
        elif device == "CUDA" and not _has_other_device(service, resources):
            yield Refusal(
                _COUNT,
                limits,
                f"device: CUDA, and no GPU is asked for; write {gpu}: 1, or device: Auto, which "
                "takes a GPU where the pod sees one",
            )
    elif device == "CPU":
        yield Refusal(
            _COUNT,
            limits,
            f"{have} GPU(s) would idle beside device: CPU; remove {gpu}, or write device: CUDA",
        )
    elif wanted % have:
        yield Refusal(
            _COUNT,
            limits,
            f"{product}, and a pod asks for {have} GPU(s); write {gpu}: {wanted}, or another "
            f"spec.{pool}.parallelism",
        )
    elif wanted > have:
        yield from _group_refusals(service, pool, f"{product}, and a pod asks for {have}", facts)


def _has_other_device(service: RedService, resources: Mapping[str, Any]) -> bool:
    """Whether a device is asked for that may be a GPU under a name of the cluster's own."""
    rdma = service.spec.transport.rdma
    network = {rdma.resource_name} if rdma else set()
    return any(
        "/" in name and not name.startswith("rdma/")
        for name in (resources.get("limits") or {}).keys() - network
    )


def _group_refusals(
    service: RedService, pool: Role, what: str, facts: ClusterFacts
) -> Iterator[Refusal]:
    """A replica of several pods needs another project's controller, and short names."""
    if LEADER_WORKER_SET not in facts.kinds:
        yield Refusal(
            "MultiNodeUnsupported",
            f"spec.{pool}.parallelism",
            f"{what}: the replica spans nodes, which needs the kind LeaderWorkerSet "
            "(sigs.k8s.io/lws); install it, or let one pod ask for all of them",
        )
    excess = len(revision_name(service.name, pool, NO_REVISION)) - MAX_NAME
    if excess > 0:
        yield Refusal(
            "MultiNodeUnsupported",
            "metadata.name",
            f"a pool whose replicas span nodes needs a shorter name: at most "
            f"{len(service.name) - excess} characters",
        )


def _device_refusals(pool: Role, resources: Mapping[str, Any]) -> Iterator[Refusal]:
    """GPUs are counted in whole numbers, and Kubernetes wants requests and limits to be equal."""
    limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
    for name in filter(is_gpu, {**limits, **requests}):
        field = f"spec.{pool}.resources"
        limit, request = _amount(limits.get(name)), _amount(requests.get(name))
        if limit is None or (request is not None and request.value != limit.value):
            yield Refusal(
                "InvalidResources",
                f"{field}.requests",
                f"{name} must be in limits; a request, if there is one, must be equal",
            )
        elif limit.value != limit.ceil:
            yield Refusal("InvalidResources", f"{field}.limits", f"{name} must be a whole number")


def _rdma_refusals(service: RedService, pool: Role) -> Iterator[Refusal]:
    rdma = service.spec.transport.rdma
    if rdma is None or pool == "router":
        return
    own = pool_spec(service, pool).resources.limits.get(rdma.resource_name)
    if own is not None and own.value != rdma.count:
        yield Refusal(
            "InvalidResources",
            f"spec.{pool}.resources.limits",
            f"{rdma.resource_name} is {own} here and {rdma.count} in spec.transport.rdma.count; "
            "remove it here",
        )


def _amount(raw: Any) -> Quantity | None:
    try:
        return None if raw is None else Quantity.parse(raw)
    except ValueError:
        return None
