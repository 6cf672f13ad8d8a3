"""One pod on this node, from being bound to being gone."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import aiohttp

from tools.kubernetes.async_api import STRATEGIC_PATCH, ApiError
from tools.kubernetes.kubelet.container import Backoff, Container
from tools.kubernetes.kubelet.environment import (
    Missing,
    Place,
    Sources,
    environment,
    expand,
    references,
)
from tools.kubernetes.kubelet.process import Launch, Mount
from tools.kubernetes.kubelet.status import PodView, Terminated, now, pod_status
from tools.kubernetes.kubelet.volumes import Objects, make_volumes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from tools.kubernetes.async_api import Api, JsonObject
    from tools.kubernetes.kubelet.images import Image, Images

_RETRY_S: Final = 0.3
_NOT_FOUND: Final = 404
_CONFLICT: Final = 409
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


class Pod:
    """Runs a pod. The kubelet calls `update` with what the API server has."""

    def __init__(self, pod: JsonObject, ip: str, node: NodeContext) -> None:
        self._pod = pod
        self._node = node
        self._ip = ip
        self._place = Place(ip, node.host_ip, node.allocatable)
        self._folder = node.folder / pod["metadata"]["uid"]
        self._objects = Objects(node.api, pod["metadata"]["namespace"])
        self._volumes: dict[str, Path] | None = None
        self._written: dict[str, JsonObject] = {}
        self._sent: JsonObject | None = None
        self._start_time = now()
        self._initialized = False
        self._changed = asyncio.Event()
        self._leaving = asyncio.Event()
        self._is_gone = False
        self._inits = [self._container(c) for c in pod["spec"].get("initContainers", [])]
        self._mains = [self._container(c) for c in pod["spec"]["containers"]]
        self.update(pod)

    @property
    def ip(self) -> str:
        """Its address."""
        return self._ip

    @property
    def metadata(self) -> JsonObject:
        """As the API server has it."""
        metadata: JsonObject = self._pod["metadata"]
        return metadata

    @property
    def containers(self) -> dict[str, Container]:
        """By name."""
        return {c.name: c for c in (*self._inits, *self._mains)}

    def update(self, pod: JsonObject) -> None:
        """The API server has the pod like this now."""
        self._pod = pod
        if "deletionTimestamp" in pod["metadata"]:
            self._leaving.set()
        self._changed.set()  # readiness gates may have changed

    def vanish(self) -> None:
        """The API server has no such pod any more: its containers are killed."""
        self._is_gone = True
        self._leaving.set()
        self.kill()

    def kill(self) -> None:
        """SIGKILL for every container."""
        for container in self.containers.values():
            container.kill()

    async def run(self) -> None:
        """Returns when the pod is gone from this node and from the API server."""
        writer = asyncio.create_task(self._write_changes())
        life = asyncio.create_task(self._live())
        leaving = asyncio.create_task(self._leaving.wait())
        tasks = (writer, life, leaving)
        try:
            await asyncio.wait({life, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if life.done():
                life.result()
            await leaving
            await self._end(life)
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)
            await self._finish()
        finally:
            self.kill()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            shutil.rmtree(self._folder, ignore_errors=True)

    async def _live(self) -> None:
        self._changed.set()
        while self._volumes is None and not self._leaving.is_set():
            try:
                folder = self._folder / "volumes"
                made = await make_volumes(self._pod, folder, self._objects, self._place)
                self._volumes = made
                self._changed.set()
            except (Missing, ApiError, aiohttp.ClientError) as error:
                self._event("Warning", "FailedMount", str(error))
                await asyncio.sleep(_RETRY_S)  # no event tells when it is there
        for container in self._inits:
            await container.run()
            state = container.view.state
            if not isinstance(state, Terminated) or state.exit_code != 0:
                return
        self._initialized = True
        self._changed.set()
        async with asyncio.TaskGroup() as group:
            for container in self._mains:
                group.create_task(container.run())

    async def _end(self, life: asyncio.Task[None]) -> None:
        grace_s = self._grace_s()
        if self._is_gone:
            self.kill()
        else:
            self._changed.set()
            stops = (c.stop(grace_s) for c in self.containers.values())
            await asyncio.gather(*stops)
        await asyncio.gather(life, return_exceptions=True)

    async def _finish(self) -> None:
        while not self._is_gone:
            try:
                await self._write_status()
                await self._node.api.call(
                    "DELETE",
                    _path(self._pod),
                    {
                        "gracePeriodSeconds": 0,
                        "preconditions": {"uid": self._pod["metadata"]["uid"]},
                    },
                )
            except ApiError as error:
                if error.status in (_NOT_FOUND, _CONFLICT):
                    return
            except (aiohttp.ClientError, TimeoutError):
                pass
            else:
                return
            await asyncio.sleep(_RETRY_S)

    async def _write_changes(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                await self._write_status()
            except (ApiError, aiohttp.ClientError, TimeoutError):
                self._changed.set()
                await asyncio.sleep(_RETRY_S)

    async def _write_status(self) -> None:
        status = pod_status(self._view(), self._pod, self._written, now())
        if status == self._sent:
            return
        body = {"metadata": {"uid": self._pod["metadata"]["uid"]}, "status": status}
        await self._node.api.call(
            "PATCH", f"{_path(self._pod)}/status", body, content_type=STRATEGIC_PATCH
        )
        self._sent = status
        self._written = {condition["type"]: condition for condition in status["conditions"]}

    def _view(self) -> PodView:
        return PodView(
            [c.view for c in self._inits],
            [c.view for c in self._mains],
            self._initialized,
            self._ip,
            self._node.host_ip,
            self._start_time,
            self._volumes is not None,
        )

    def _grace_s(self) -> float:
        meta, spec = self._pod["metadata"], self._pod["spec"]
        asked = meta.get("deletionGracePeriodSeconds", spec.get("terminationGracePeriodSeconds"))
        return float(30 if asked is None else asked)

    def _container(self, spec: JsonObject) -> Container:
        policy = self._pod["spec"].get("restartPolicy", "Always")
        is_init = spec in self._pod["spec"].get("initContainers", [])
        return Container(
            spec,
            self._folder / "containers" / spec["name"],
            ip=self._ip,
            policy="OnFailure" if is_init and policy == "Always" else policy,
            grace_s=float(self._pod["spec"].get("terminationGracePeriodSeconds") or 30),
            backoff=Backoff(self._node.backoff_s),
            make_launch=lambda: self._launch(spec),
            on_change=self._changed.set,
            on_event=self._event,
        )

    def _event(self, kind: str, reason: str, message: str) -> None:
        self._node.on_event(self._pod, kind, reason, message)

    async def _launch(self, spec: JsonObject) -> Launch:
        image = self._node.images.find(spec["image"])
        if image is None:
            raise Unusable("ErrImagePull", f"no image {spec['image']!r} on this node")
        if "restartPolicy" in spec or "postStart" in spec.get("lifecycle", {}):
            message = "sidecar containers and postStart hooks do not run here"
            raise Unusable("CreateContainerConfigError", message)
        variables = await self._environment(spec, image)
        words = spec.get("command") or image.entrypoint
        arguments = spec.get("args", [])
        command = [expand(word, variables) for word in (*words, *arguments)]
        if not command:
            raise Unusable("CreateContainerError", "no command specified")
        security = spec.get("securityContext", {})
        return Launch(
            tuple(self._own_address(word) for word in command),
            {name: self._own_address(value) for name, value in variables.items()},
            spec.get("workingDir") or image.working_dir,
            self._mounts(spec, image),
            bool(security.get("readOnlyRootFilesystem")),
            spec.get("terminationMessagePath") or "/dev/termination-log",
        )

    async def _environment(self, spec: JsonObject, image: Image) -> dict[str, str]:
        maps, secrets = references(spec)
        sources = Sources(
            {name: _text(await self._objects.config_map(name)) for name in maps},
            {name: _text(await self._objects.secret(name)) for name in secrets},
        )
        base = {
            **image.environment,
            "HOSTNAME": self._pod["metadata"]["name"],
            "KUBERNETES_SERVICE_HOST": self._node.api_host,
            "KUBERNETES_SERVICE_PORT": str(self._node.api_port),
        }
        return environment(spec, self._pod, self._place, sources, base)

    def _mounts(self, spec: JsonObject, image: Image) -> tuple[Mount, ...]:
        assert self._volumes is not None
        made = [Mount(str(path), place, read_only=True) for place, path in image.paths.items()]
        kinds = {v["name"]: v for v in self._pod["spec"].get("volumes", [])}
        for mount in spec.get("volumeMounts", []):
            source = self._volumes[mount["name"]]
            if below := mount.get("subPath"):
                source /= below
                if not source.exists():
                    source.mkdir(parents=True)
            fixed = "emptyDir" not in kinds[mount["name"]]
            read_only = fixed or bool(mount.get("readOnly"))
            made.append(Mount(str(source), mount["mountPath"], read_only=read_only))
        return tuple(made)

    def _own_address(self, text: str) -> str:
        # Pods share one network here: whoever listens everywhere would take the port of all pods.
        return text.replace(ANY_ADDRESS, self._ip)


def _path(pod: JsonObject) -> str:
    meta = pod["metadata"]
    return f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}"


def _text(data: Mapping[str, bytes] | None) -> dict[str, str] | None:
    return None if data is None else {k: v.decode(errors="replace") for k, v in data.items()}
