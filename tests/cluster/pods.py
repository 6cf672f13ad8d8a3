"""Pods inside of rendered objects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from redserve.cluster.facts import Context, Images
from redserve.cluster.render import render

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from redserve.spec.service import RedService

CONTEXT = Context("serving", Images("router:1", "encoder:1", "llm:1"))


def pod_templates(objects: Iterable[Mapping[str, Any]]) -> Iterator[Any]:
    """Every pod template of some objects."""
    for manifest in objects:
        spec = manifest.get("spec", {})
        groups = spec.get("leaderWorkerTemplate", {})
        template = spec.get("template") or groups.get("workerTemplate")
        if template:
            yield template


def pod_of(service: RedService, pool: str, context: Context = CONTEXT) -> Any:
    """The PodSpec of a pool."""
    objects = next(one for one in render(service, context).pools if one.pool == pool)
    return next(pod_templates([objects.workload]))["spec"]


def main_of(service: RedService, pool: str, context: Context = CONTEXT) -> Any:
    """The serving container of a pool."""
    containers = pod_of(service, pool, context)["containers"]
    return next(one for one in containers if one["name"] == "main")


def environment_of(service: RedService, pool: str, pod_ip: str = "10.0.0.7") -> dict[str, str]:
    """What the serving process finds in its environment, as the kubelet would make it."""
    objects = next(one for one in render(service, CONTEXT).pools if one.pool == pool)
    main = main_of(service, pool)
    assert main["envFrom"] == [{"configMapRef": {"name": objects.config["metadata"]["name"]}}]
    known = {"metadata.name": f"{pool}-pod", "status.podIP": pod_ip}
    env: dict[str, str] = dict(objects.config["data"])
    for variable in main["env"]:
        value = variable.get("value")
        if value is None:
            value = known[variable["valueFrom"]["fieldRef"]["fieldPath"]]
        for name, earlier in env.items():
            value = value.replace(f"$({name})", earlier)
        env[variable["name"]] = value
    return env
