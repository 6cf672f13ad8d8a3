"""One pod on this node, from being bound to being gone."""

from __future__ import annotations

import asyncio
import shutil
from typing import TYPE_CHECKING, Final

import aiohttp

from tools.kubernetes.async_api import STRATEGIC_PATCH, ApiError
from tools.kubernetes.kubelet.container import Backoff, Container
from tools.kubernetes.kubelet.environment import Missing, Place
from tools.kubernetes.kubelet.launches import NodeContext, make_launch
from tools.kubernetes.kubelet.status import PodView, Terminated, now, pod_status
from tools.kubernetes.kubelet.volumes import Objects, make_volumes

if TYPE_CHECKING:
    from pathlib import Path

    from tools.kubernetes.async_api import JsonObject
    from tools.kubernetes.kubelet.process import Launch

_RETRY_S: Final = 0.3
_NOT_FOUND: Final = 404
_CONFLICT: Final = 409


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
            grace_s=self._grace_s(),
            backoff=Backoff(self._node.backoff_s),
            make_launch=lambda: self._launch(spec),
            on_change=self._changed.set,
            on_event=self._event,
        )

    async def _launch(self, spec: JsonObject) -> Launch:
        assert self._volumes is not None
        return await make_launch(spec, self._pod, self._volumes, self._place, self._node)

    def _event(self, kind: str, reason: str, message: str) -> None:
        self._node.on_event(self._pod, kind, reason, message)


def _path(pod: JsonObject) -> str:
    meta = pod["metadata"]
    return f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}"
