"""Security contexts that the restricted Pod Security Standard lets through."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from redserve.cluster.ports import pod_ports
from redserve.cluster.resources import rdma_devices, uses_gpu

if TYPE_CHECKING:
    from redserve.cluster.scope import Scope
    from redserve.spec.placement import Role

USER: Final = 65532
"""The user of REDServe's images; nobody's on most systems."""
_FIRST_UNPRIVILEGED_PORT: Final = 1024


def pod_security(scope: Scope, pool: Role | None) -> dict[str, Any]:
    """`securityContext` of a pod; `pool` is None for the loader."""
    made: dict[str, Any] = {
        "runAsNonRoot": True,
        "runAsUser": USER,
        "runAsGroup": USER,
        "fsGroup": USER,
        # A large volume is not walked through at each start.
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    ports = pod_ports(scope.service, pool) if pool else ()
    if any(port.number < _FIRST_UNPRIVILEGED_PORT for port in ports):
        made["sysctls"] = [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}]
    return made


def loader_security() -> dict[str, Any]:
    """`securityContext` of a container that downloads."""
    return _container(read_only_root=True)


def main_security(scope: Scope, pool: Role) -> dict[str, Any]:
    """`securityContext` of the serving container.

    Raises:
        ConfigError: A `podTemplate` cannot be merged.
    """
    # Hooks of the container device interface write into the root file system of GPU pods.
    made = _container(read_only_root=not uses_gpu(scope.service, pool))
    rdma = rdma_devices(scope.service)
    if rdma is not None and rdma.memlock == "IPCLock" and pool != "router":
        made["capabilities"]["add"] = ["IPC_LOCK"]
        # A process of another user has none of the capabilities that its container is given.
        made |= {"runAsNonRoot": False, "runAsUser": 0}
    return made


def _container(*, read_only_root: bool) -> dict[str, Any]:
    return {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": read_only_root,
    }
