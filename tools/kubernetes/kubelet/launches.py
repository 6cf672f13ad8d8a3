"""How a container of a pod is started: command, environment and mounts together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tools.kubernetes.kubelet.environment import (
    Missing,
    Place,
    Sources,
    environment,
    expand,
    references,
)
from tools.kubernetes.kubelet.process import Launch, Mount
from tools.kubernetes.kubelet.volumes import Objects

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from tools.kubernetes.async_api import Api, JsonObject
    from tools.kubernetes.kubelet.images import Image, Images

ANY_ADDRESS: Final = "0.0.0.0"


class Unusable(Missing):
    """A container asks for what this kubelet has not; `reason` is for its status."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class NodeContext:
    """What pods need from their node.

    Attributes:
        api: With the node's rights.
        images: What there is to run.
        folder: For pods' files.
        host_ip: The node's address.
        allocatable: What the node offers.
        api_host, api_port: Where containers find the API server.
        backoff_s: First pause of a container that ends again and again, seconds.
        on_event: Called with a pod, type, reason and message.
    """

    api: Api
    images: Images
    folder: Path
    host_ip: str
    allocatable: Mapping[str, str]
    api_host: str
    api_port: int
    backoff_s: float
    on_event: Callable[[JsonObject, str, str, str], None]


async def make_launch(
    spec: JsonObject,
    pod: JsonObject,
    volumes: Mapping[str, Path],
    place: Place,
    node: NodeContext,
) -> Launch:
    """What to start for a container.

    Raises:
        Missing: Something that it needs is not there (yet), or never will be on this node.
        ApiError: The API server refused.
    """
    image = node.images.find(spec["image"])
    if image is None:
        raise Unusable("ErrImagePull", f"no image {spec['image']!r} on this node")
    if "restartPolicy" in spec or "postStart" in spec.get("lifecycle", {}):
        message = "sidecar containers and postStart hooks do not run here"
        raise Unusable("CreateContainerConfigError", message)
    variables = await _environment(spec, pod, image, place, node)
    words = (*(spec.get("command") or image.entrypoint), *spec.get("args", []))
    if not words:
        raise Unusable("CreateContainerError", "no command specified")

    def own_address(text: str) -> str:
        # Pods share one network here: who listens everywhere would take the port of all pods.
        return text.replace(ANY_ADDRESS, place.pod_ip)

    return Launch(
        tuple(own_address(expand(word, variables)) for word in words),
        {name: own_address(value) for name, value in variables.items()},
        spec.get("workingDir") or image.working_dir,
        _mounts(spec, pod, volumes, image),
        bool(spec.get("securityContext", {}).get("readOnlyRootFilesystem")),
        spec.get("terminationMessagePath") or "/dev/termination-log",
    )


async def _environment(
    spec: JsonObject, pod: JsonObject, image: Image, place: Place, node: NodeContext
) -> dict[str, str]:
    objects = Objects(node.api, pod["metadata"]["namespace"])
    maps, secrets = references(spec)
    sources = Sources(
        {name: _text(await objects.config_map(name)) for name in maps},
        {name: _text(await objects.secret(name)) for name in secrets},
    )
    base = {
        **image.environment,
        "HOSTNAME": pod["metadata"]["name"],
        "KUBERNETES_SERVICE_HOST": node.api_host,
        "KUBERNETES_SERVICE_PORT": str(node.api_port),
    }
    return environment(spec, pod, place, sources, base)


def _mounts(
    spec: JsonObject, pod: JsonObject, volumes: Mapping[str, Path], image: Image
) -> tuple[Mount, ...]:
    made = [Mount(str(path), place, read_only=True) for place, path in image.paths.items()]
    kinds = {volume["name"]: volume for volume in pod["spec"].get("volumes", [])}
    for mount in spec.get("volumeMounts", []):
        source = volumes[mount["name"]]
        if below := mount.get("subPath"):
            source /= below
            if not source.exists():
                source.mkdir(parents=True)
        is_fixed = "emptyDir" not in kinds[mount["name"]]
        read_only = is_fixed or bool(mount.get("readOnly"))
        made.append(Mount(str(source), mount["mountPath"], read_only=read_only))
    return tuple(made)


def _text(data: Mapping[str, bytes] | None) -> dict[str, str] | None:
    return None if data is None else {k: v.decode(errors="replace") for k, v in data.items()}
