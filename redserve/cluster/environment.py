"""What serving processes read: a ConfigMap for all pods of a pool, and what only a pod knows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from redserve.cluster import names
from redserve.cluster.model_source import model_source
from redserve.cluster.places import placement
from redserve.cluster.ports import grpc_port
from redserve.spec.workloads import (
    encoder_settings,
    library_environment,
    llm_settings,
    router_settings,
)

if TYPE_CHECKING:
    from redserve.cluster.facts import Manifest
    from redserve.cluster.scope import Scope
    from redserve.spec.placement import Role
    from redserve.spec.pool import EnvVar, PoolSpec
    from redserve.spec.settings import ProcessSettings

RESERVED: frozenset[str] = frozenset({"POD_NAME", "POD_IP"})
"""Names that every serving container has, from which settings are made."""


def config_map(scope: Scope, pool: Role) -> Manifest:
    """The settings of a pool. Immutable: another value is another revision.

    Raises:
        ConfigError: A `podTemplate` cannot be merged.
    """
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": scope.revision_metadata(pool),
        "immutable": True,
        "data": _settings_environment(scope, pool),
    }


def config_source(scope: Scope, pool: Role) -> list[dict[str, Any]]:
    """`envFrom` of the serving container."""
    name = names.revision_name(scope.name, pool, scope.revision)
    return [{"configMapRef": {"name": name}}]


def container_environment(scope: Scope, pool: Role) -> list[dict[str, Any]]:
    """`env` of the serving container: the pod's own, then the manifest's."""
    port = grpc_port(scope.service, pool)
    return [
        _from_field("POD_NAME", "metadata.name"),
        _from_field("POD_IP", "status.podIP"),
        # Kubernetes fills in variables that were named above.
        {"name": _setting(pool, "NAME"), "value": "$(POD_NAME)"},
        {"name": _setting(pool, "ADVERTISE_ADDRESS"), "value": f"$(POD_IP):{port}"},
        *manifest_environment(scope.pool(pool)),
    ]


def manifest_environment(spec: PoolSpec) -> list[dict[str, Any]]:
    """The `env` of a pool in a manifest."""
    return [_own(variable) for variable in spec.env]


def _settings_environment(scope: Scope, pool: Role) -> dict[str, str]:
    places = placement(scope)
    settings: ProcessSettings
    if pool == "router":
        place, settings = places.router.place, router_settings(scope.service, places)
    elif pool == "encoder":
        place = places.encoders[0]
        settings = encoder_settings(scope.service, places, place)
    else:
        place = places.llms[0]
        settings = llm_settings(scope.service, places, place)
    of_pod = {_setting(pool, name) for name in ("NAME", "ADVERTISE_ADDRESS")}
    # Pods may not download: what is not in the volume is an error at once, not after time-outs.
    hub = {"HF_HUB_OFFLINE": "1"} if model_source(scope.service.spec.model).cache_dir else {}
    libraries = library_environment(scope.service, places, pool, place)
    told = {**libraries, **hub, **settings.to_env()}
    return {name: value for name, value in told.items() if name not in of_pod}


def _setting(pool: Role, name: str) -> str:
    return f"REDSERVE_{pool.upper()}_{name}"


def _from_field(name: str, path: str) -> dict[str, Any]:
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}


def _own(variable: EnvVar) -> dict[str, Any]:
    if variable.value_from is not None:
        return {"name": variable.name, "valueFrom": variable.value_from}
    return {"name": variable.name, "value": variable.value or ""}
