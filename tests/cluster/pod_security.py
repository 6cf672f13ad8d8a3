"""The Pod Security Standard "restricted" as a function, control by control."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

_CAPABILITIES = {
    "AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD",
    "NET_BIND_SERVICE", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT",
}  # fmt: skip
_SYSCTLS = {
    "kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.tcp_syncookies", "net.ipv4.ping_group_range", "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time", "net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
}  # fmt: skip
_VOLUMES = {
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim",
    "projected", "secret",
}  # fmt: skip
_SELINUX = {"", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"}
_SECCOMP = {"RuntimeDefault", "Localhost"}


def violations(pod: dict[str, Any]) -> list[str]:
    """What a PodSpec does that "restricted" (and so "baseline") forbids; empty when it passes."""
    return [*_baseline(pod), *_restricted(pod)]


def _containers(pod: dict[str, Any]) -> list[dict[str, Any]]:
    kinds = ("containers", "initContainers", "ephemeralContainers")
    return [container for kind in kinds for container in pod.get(kind, [])]


def _contexts(pod: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    yield "pod", pod.get("securityContext", {})
    for container in _containers(pod):
        yield container["name"], container.get("securityContext", {})


def _baseline(pod: dict[str, Any]) -> Iterator[str]:
    for name in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(name):
            yield name
    for where, context in _contexts(pod):
        if context.get("windowsOptions", {}).get("hostProcess"):
            yield f"{where}: HostProcess"
        if context.get("privileged"):
            yield f"{where}: privileged"
        for added in set(context.get("capabilities", {}).get("add", [])) - _CAPABILITIES:
            yield f"{where}: adds {added}"
        options = context.get("seLinuxOptions", {})
        if options.get("type", "") not in _SELINUX or options.keys() & {"user", "role"}:
            yield f"{where}: SELinux"
        if context.get("procMount", "Default") != "Default":
            yield f"{where}: procMount"
        if context.get("seccompProfile", {}).get("type") == "Unconfined":
            yield f"{where}: seccomp Unconfined"
        if context.get("appArmorProfile", {}).get("type") == "Unconfined":
            yield f"{where}: AppArmor Unconfined"
        for sysctl in context.get("sysctls", []):
            if sysctl["name"] not in _SYSCTLS:
                yield f"{where}: sysctl {sysctl['name']}"
    for volume in pod.get("volumes", []):
        if "hostPath" in volume:
            yield f"volume {volume['name']}: hostPath"
    for container in _containers(pod):
        if any(port.get("hostPort") for port in container.get("ports", [])):
            yield f"{container['name']}: hostPort"


def _restricted(pod: dict[str, Any]) -> Iterator[str]:
    for volume in pod.get("volumes", []):
        for kind in volume.keys() - {"name"} - _VOLUMES:
            yield f"volume {volume['name']}: {kind}"
    outer = pod.get("securityContext", {})
    for where, context in _contexts(pod):
        if context.get("runAsUser") == 0:
            yield f"{where}: runAsUser 0"
    for container in _containers(pod):
        name, inner = container["name"], container.get("securityContext", {})
        if inner.get("allowPrivilegeEscalation") is not False:
            yield f"{name}: allowPrivilegeEscalation"
        if inner.get("runAsNonRoot", outer.get("runAsNonRoot")) is not True:
            yield f"{name}: runAsNonRoot"
        profile = inner.get("seccompProfile", outer.get("seccompProfile", {}))
        if profile.get("type") not in _SECCOMP:
            yield f"{name}: seccomp"
        capabilities = inner.get("capabilities", {})
        if "ALL" not in capabilities.get("drop", []):
            yield f"{name}: does not drop ALL"
        for added in set(capabilities.get("add", [])) - {"NET_BIND_SERVICE"}:
            yield f"{name}: adds {added}"
