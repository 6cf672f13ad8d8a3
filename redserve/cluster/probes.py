"""How the kubelet watches a pod: by the standard gRPC health service."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from redserve.cluster.names import MAIN_CONTAINER
from redserve.cluster.ports import grpc_port

if TYPE_CHECKING:
    from collections.abc import Mapping

    from redserve.cluster.scope import Scope
    from redserve.spec.placement import Role

READINESS: Final = "readiness"
"""Health name that serves when requests are welcome; the empty one serves while the process can."""
LIVENESS: Final = ""
START_LIMIT_S: Final = 1800
"""Longest start: reading the weights of a large model from a slow volume."""
PULL_LIMIT_S: Final = 1800
"""Longest pull of an image."""
_START_PERIOD_S: Final = 2


def progress_limit_s(template: Mapping[str, Any]) -> int:
    """Longest time from making a pod to its being ready: the pull and what its probe allows.

    Args:
        template: A pod template, the manifest's `podTemplate` merged over it.
    """
    containers = template["spec"]["containers"]
    main: Mapping[str, Any] = next(
        (one for one in containers if one.get("name") == MAIN_CONTAINER), {}
    )
    probe = main.get("startupProbe") or {}
    # What Kubernetes takes for a word that is not there; nobody has checked these numbers yet.
    delay, period, tries = (
        value if isinstance(value := probe.get(field), int) and value else default
        for field, default in (
            ("initialDelaySeconds", 0),
            ("periodSeconds", 10),
            ("failureThreshold", 3),
        )
    )
    return PULL_LIMIT_S + max(START_LIMIT_S, delay + period * tries)


def probes(scope: Scope, pool: Role) -> dict[str, Any]:
    """`startupProbe`, `readinessProbe` and `livenessProbe` of the serving container."""
    port = grpc_port(scope.service, pool)
    # A router is up long before it is ready: it waits for encoders and engines, and to restart it
    # meanwhile would help nobody.
    started = LIVENESS if pool == "router" else READINESS
    return {
        "startupProbe": {
            "grpc": {"port": port, "service": started},
            "periodSeconds": _START_PERIOD_S,
            "timeoutSeconds": 5,
            "failureThreshold": START_LIMIT_S // _START_PERIOD_S,
        },
        "readinessProbe": {
            "grpc": {"port": port, "service": READINESS},
            "periodSeconds": 3,
            "timeoutSeconds": 5,
            "failureThreshold": 3,
        },
        # Patient: a busy process that is killed loses every stream that it has.
        "livenessProbe": {
            "grpc": {"port": port, "service": LIVENESS},
            "periodSeconds": 10,
            "timeoutSeconds": 10,
            "failureThreshold": 6,
        },
    }
