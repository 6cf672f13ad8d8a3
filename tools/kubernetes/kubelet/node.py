"""The kubelet itself: a node, its heartbeat, and its pods."""

from __future__ import annotations

import asyncio
import ipaddress
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import aiohttp

from tools.kubernetes.async_api import MERGE_PATCH, STRATEGIC_PATCH, ApiError
from tools.kubernetes.kubelet.launches import NodeContext
from tools.kubernetes.kubelet.pod import Pod
from tools.kubernetes.kubelet.status import now

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tools.kubernetes.async_api import Api, JsonObject
    from tools.kubernetes.kubelet.images import Images

_HEARTBEAT_S: Final = 10
_RETRY_S: Final = 0.3
_OVER: Final = ("Succeeded", "Failed")


@dataclass(frozen=True, slots=True)
class NodeOptions:
    """What node this is.

    Attributes:
        name: Of the node.
        pod_network: Where its pods get their addresses; within the cluster's pod network.
        capacity: What it offers; `nvidia.com/gpu` makes the scheduler count GPUs.
        labels: Beside hostname, system and architecture.
        backoff_s: First pause of a container that ends again and again, seconds.
    """

    name: str = "node-1"
    pod_network: str = "10.244.1.0/24"
    capacity: Mapping[str, str] = field(
        default_factory=lambda: {"cpu": "64", "memory": "256Gi", "pods": "200"}
    )
    labels: Mapping[str, str] = field(default_factory=dict)
    backoff_s: float = 10.0


class Kubelet:
    """Runs inside one event loop.

    Args:
        api: With the rights of `system:node:NAME`.
        server: Address of the API server, for containers.
        images: What there is to run.
        folder: For pods' files.
        options: What node this is.
    """

    def __init__(
        self, api: Api, server: str, images: Images, folder: Path, options: NodeOptions
    ) -> None:
        self._api = api
        self._options = options
        network = ipaddress.ip_network(options.pod_network)
        self._host_ip = str(network[1])
        self._addresses = [str(address) for address in network][2:-1]
        where = urlsplit(server)
        self._context = NodeContext(
            api,
            images,
            folder,
            self._host_ip,
            options.capacity,
            where.hostname or "",
            where.port or 443,
            options.backoff_s,
            self._tell,
        )
        self._events: asyncio.Queue[JsonObject] = asyncio.Queue()
        self._last_event: tuple[str, str, str] | None = None
        self._num_events = 0
        self.pods: dict[str, Pod] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self.is_registered = asyncio.Event()

    async def run(self) -> None:
        """Register the node and run its pods for ever; cancelling kills them."""
        await self._register()
        self.is_registered.set()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._beat())
                group.create_task(self._post_events())
                group.create_task(self._follow())
        finally:
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _register(self) -> None:
        name, capacity = self._options.name, dict(self._options.capacity)
        labels = {
            "kubernetes.io/hostname": name,
            "kubernetes.io/os": "linux",
            "kubernetes.io/arch": "amd64",
            **self._options.labels,
        }
        with suppress(ApiError):  # it is there already
            body = {"metadata": {"name": name, "labels": labels}}
            await self._api.call("POST", "/api/v1/nodes", body)
        condition = {
            "type": "Ready",
            "status": "True",
            "reason": "KubeletReady",
            "message": "processes can be started",
            "lastHeartbeatTime": now(),
            "lastTransitionTime": now(),
        }
        status = {
            "capacity": capacity,
            "allocatable": capacity,
            "conditions": [condition],
            "addresses": [
                {"type": "InternalIP", "address": self._host_ip},
                {"type": "Hostname", "address": name},
            ],
        }
        await self._api.call(
            "PATCH",
            f"/api/v1/nodes/{name}/status",
            {"status": status},
            content_type=STRATEGIC_PATCH,
        )

    async def _beat(self) -> None:
        leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
        name = self._options.name
        spec: dict[str, Any] = {"holderIdentity": name, "leaseDurationSeconds": 4 * _HEARTBEAT_S}
        while True:
            spec["renewTime"] = now().replace("Z", ".000000Z")
            try:
                path = f"{leases}/{name}"
                await self._api.call("PATCH", path, {"spec": spec}, content_type=MERGE_PATCH)
            except ApiError:
                with suppress(ApiError, aiohttp.ClientError):
                    body = {"metadata": {"name": name}, "spec": spec}
                    await self._api.call("POST", leases, body)
            except (aiohttp.ClientError, TimeoutError):
                pass  # the API server is away; the next beat may reach it
            await asyncio.sleep(_HEARTBEAT_S)

    async def _follow(self) -> None:
        selector = f"spec.nodeName={self._options.name}"
        async for change in self._api.follow("/api/v1/pods", fieldSelector=selector):
            uid = change.object["metadata"]["uid"]
            known = self.pods.get(uid)
            if change.type == "DELETED":
                if known is not None:
                    known.vanish()
            elif known is not None:
                known.update(change.object)
            elif change.object.get("status", {}).get("phase") not in _OVER:
                self._begin(uid, change.object)

    def _begin(self, uid: str, pod: JsonObject) -> None:
        # The oldest address of those that are free, so that a new pod is not taken for the last.
        address = self._addresses.pop(0)
        made = Pod(pod, address, self._context)
        self.pods[uid] = made
        task = asyncio.create_task(made.run())
        self._tasks[uid] = task

        def forget(_: object) -> None:
            del self.pods[uid], self._tasks[uid]
            self._addresses.append(address)
            if not task.cancelled() and (error := task.exception()) is not None:
                self._tell(pod, "Warning", "KubeletFailed", repr(error))

        task.add_done_callback(forget)

    def _tell(self, pod: JsonObject, kind: str, reason: str, message: str) -> None:
        meta = pod["metadata"]
        if self._last_event == (event := (meta["uid"], reason, message)):
            return  # said just now
        self._last_event = event
        self._num_events += 1
        reference = {
            "apiVersion": "v1",
            "kind": "Pod",
            "name": meta["name"],
            "namespace": meta["namespace"],
            "uid": meta["uid"],
        }
        name = f"{meta['name']}.{meta['uid'][:8]}.{self._num_events}"
        self._events.put_nowait(
            {
                "metadata": {"name": name, "namespace": meta["namespace"]},
                "involvedObject": reference,
                "type": kind,
                "reason": reason,
                "message": message[:1000],
                "source": {"component": "kubelet", "host": self._options.name},
                "firstTimestamp": now(),
                "lastTimestamp": now(),
                "count": 1,
            }
        )

    async def _post_events(self) -> None:
        while True:
            event = await self._events.get()
            with suppress(ApiError, aiohttp.ClientError, TimeoutError):
                namespace = event["metadata"]["namespace"]
                await self._api.call("POST", f"/api/v1/namespaces/{namespace}/events", event)
