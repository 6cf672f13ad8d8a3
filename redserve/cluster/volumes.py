"""Volumes of a serving pod and where its container has them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from redserve.cluster.model_source import model_source
from redserve.cluster.resources import num_devices
from redserve.spec.quantity import Quantity

if TYPE_CHECKING:
    from redserve.cluster.scope import Scope
    from redserve.spec.placement import Role

TMP: Final = "tmp"
SHM: Final = "shm"
_COLLECTIVES_SHM: Final = Quantity.parse("1Gi")
"""For processes that share a model: their collectives meet in /dev/shm, and 64 MiB is too small."""


def scratch_volume() -> dict[str, Any]:
    """/tmp, since the root file system is read-only."""
    return {"name": TMP, "emptyDir": {}}


def scratch_mount() -> dict[str, Any]:
    """Where it is."""
    return {"name": TMP, "mountPath": "/tmp"}


def volumes(scope: Scope, pool: Role) -> list[dict[str, Any]]:
    """`volumes` of a pod."""
    made = [scratch_volume(), *model_source(scope.service.spec.model).volumes()]
    size = _shared_memory(scope, pool)
    if size is not None:
        # Counts against the memory limit of the container.
        memory = {"medium": "Memory", "sizeLimit": str(size)}
        made.append({"name": SHM, "emptyDir": memory})
    return made


def mounts(scope: Scope, pool: Role) -> list[dict[str, Any]]:
    """`volumeMounts` of the serving container."""
    made = [scratch_mount(), *model_source(scope.service.spec.model).mounts()]
    if _shared_memory(scope, pool) is not None:
        made.append({"name": SHM, "mountPath": "/dev/shm"})
    return made


def _shared_memory(scope: Scope, pool: Role) -> Quantity | None:
    size = scope.pool(pool).shared_memory_size
    if size is None and num_devices(scope.service, pool) > 1:
        size = _COLLECTIVES_SHM
    return size if size is not None and size.value > 0 else None
