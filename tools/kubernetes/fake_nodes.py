"""Fake GPU nodes: pods that the scheduler puts there become ready, and go when deleted.

No container runs. For tests of the operator and for its benchmark; nodes send no heartbeats, so
the controller manager must run with a long `--node-monitor-grace-period`.
"""

from __future__ import annotations

import asyncio
import datetime
import itertools
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from tools.kubernetes.async_api import STRATEGIC_PATCH, ApiError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from tools.kubernetes.async_api import Api, JsonObject

GPU: Final = "nvidia.com/gpu"
LABEL: Final = "redserve.dev/fake-node"
_PARALLEL_CALLS: Final = 16


def _ready_at_once(_pod: JsonObject) -> bool:
    return True


@dataclass(slots=True)
class Behaviour:
    """How pods fare; may be changed while nodes run, followed by `FakeNodes.look_again`.

    Attributes:
        start_delay_s: From being bound to being ready, seconds.
        stop_delay_s: From being deleted to being gone, seconds; the grace period bounds it.
        may_be_ready: Whether a pod may become ready now; a ready pod stays ready.
        job_succeeds: Pods of Jobs end well (True) or fail.
        job_message: Their termination message.
    """

    start_delay_s: float = 0.2
    stop_delay_s: float = 0.2
    may_be_ready: Callable[[JsonObject], bool] = field(default=_ready_at_once)
    job_succeeds: bool = True
    job_message: str = ""


class FakeNodes:
    """Plays the kubelets of all fake nodes. `running` makes and runs it."""

    def __init__(self, api: Api, behaviour: Behaviour) -> None:
        self.behaviour = behaviour
        self._api = api
        self._pods: dict[str, JsonObject] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._changed = asyncio.Event()
        self._addresses = itertools.count(2)
        self._slots = asyncio.Semaphore(_PARALLEL_CALLS)
        self._nodes: set[str] = set()

    def look_again(self) -> None:
        """Pods that were not allowed to be ready ask again."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def make_nodes(self, count: int, gpus: int = 8, prefix: str = "fake") -> None:
        """Register nodes `prefix-0`, ... that the scheduler may use."""
        await asyncio.gather(*(self._make_node(f"{prefix}-{n}", gpus) for n in range(count)))

    async def remove_nodes(self) -> None:
        """Take all nodes away that were made here."""
        await asyncio.gather(*(self._remove_node(name) for name in sorted(self._nodes)))
        self._nodes.clear()

    async def set_gpus(self, node: str, gpus: int) -> None:
        """Change what a node offers."""
        amount = {**_capacity(gpus)}
        await self._api.call(
            "PATCH",
            f"/api/v1/nodes/{node}/status",
            {"status": {"capacity": amount, "allocatable": amount}},
            content_type=STRATEGIC_PATCH,
        )

    async def run(self) -> None:
        """Follow pods for ever; cancel to end."""
        try:
            async for change in self._api.follow("/api/v1/pods", fieldSelector="spec.nodeName!="):
                self._see(change.type, change.object)
        finally:
            for task in self._tasks.values():
                task.cancel()

    def _see(self, kind: str, pod: JsonObject) -> None:
        uid = pod["metadata"]["uid"]
        if kind == "DELETED":
            self._pods.pop(uid, None)
            if task := self._tasks.pop(uid, None):
                task.cancel()
            return
        known = self._pods.get(uid)
        self._pods[uid] = pod
        leaving = "deletionTimestamp" in pod["metadata"]
        was_leaving = known is not None and "deletionTimestamp" in known["metadata"]
        if known is None or (leaving and not was_leaving):
            if task := self._tasks.pop(uid, None):
                task.cancel()
            life = self._end(pod) if leaving else self._begin(pod)
            self._tasks[uid] = asyncio.create_task(life)

    async def _begin(self, pod: JsonObject) -> None:
        if pod.get("status", {}).get("phase") != "Pending":
            return
        await asyncio.sleep(self.behaviour.start_delay_s)  # this is the start-up being played
        if pod["spec"].get("restartPolicy") != "Always":
            await self._write_status(pod, _ended(pod, self.behaviour))
            return
        address = next(self._addresses)
        ip = f"10.{100 + (address >> 16)}.{address >> 8 & 255}.{address & 255}"
        if not self.behaviour.may_be_ready(pod):
            await self._write_status(pod, _running(pod, ip, ready=False))
            while not self.behaviour.may_be_ready(pod):
                await self._changed.wait()
        await self._write_status(pod, _running(pod, ip, ready=True))

    async def _end(self, pod: JsonObject) -> None:
        grace_s = pod["metadata"].get("deletionGracePeriodSeconds") or 0
        await asyncio.sleep(min(grace_s, self.behaviour.stop_delay_s))  # the drain being played
        with suppress(ApiError):
            async with self._slots:
                await self._api.call("DELETE", _path(pod), gracePeriodSeconds="0")

    async def _write_status(self, pod: JsonObject, status: JsonObject) -> None:
        with suppress(ApiError):  # it may be gone meanwhile
            async with self._slots:
                await self._api.call(
                    "PATCH",
                    f"{_path(pod)}/status",
                    {"status": status},
                    content_type=STRATEGIC_PATCH,
                )

    async def _remove_node(self, name: str) -> None:
        async with self._slots:
            with suppress(ApiError):  # somebody else took it away
                await self._api.call("DELETE", f"/api/v1/nodes/{name}")

    async def _make_node(self, name: str, gpus: int) -> None:
        self._nodes.add(name)
        labels = {LABEL: "true", "kubernetes.io/hostname": name, "kubernetes.io/os": "linux"}
        async with self._slots:
            with suppress(ApiError):  # it is there already
                await self._api.call(
                    "POST", "/api/v1/nodes", {"metadata": {"name": name, "labels": labels}}
                )
            status = {
                "capacity": _capacity(gpus),
                "allocatable": _capacity(gpus),
                "conditions": [_condition("Ready", ready=True)],
            }
            await self._api.call(
                "PATCH",
                f"/api/v1/nodes/{name}/status",
                {"status": status},
                content_type=STRATEGIC_PATCH,
            )


@asynccontextmanager
async def running(
    api: Api, behaviour: Behaviour | None = None, *, nodes: int = 1, gpus: int = 8
) -> AsyncIterator[FakeNodes]:
    """Fake nodes that live as long as the context: a scheduler must not find them afterwards."""
    made = FakeNodes(api, behaviour or Behaviour())
    await made.make_nodes(nodes, gpus)
    task = asyncio.create_task(made.run())
    try:
        yield made
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await made.remove_nodes()


def _path(pod: JsonObject) -> str:
    meta = pod["metadata"]
    return f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}"


def _capacity(gpus: int) -> dict[str, str]:
    return {"cpu": "128", "memory": "1Ti", "pods": "250", GPU: str(gpus)}


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _condition(kind: str, *, ready: bool, reason: str = "Fake") -> dict[str, Any]:
    return {
        "type": kind,
        "status": "True" if ready else "False",
        "reason": reason,
        "lastTransitionTime": _now(),
        "lastHeartbeatTime": _now(),
    }


def _running(pod: JsonObject, ip: str, *, ready: bool) -> JsonObject:
    conditions = [
        {k: v for k, v in _condition(kind, ready=value).items() if k != "lastHeartbeatTime"}
        for kind, value in (("Initialized", True), ("ContainersReady", ready), ("Ready", ready))
    ]
    containers = [
        {
            "name": container["name"],
            "image": container["image"],
            "imageID": "fake",
            "ready": ready,
            "started": True,
            "restartCount": 0,
            "state": {"running": {"startedAt": _now()}},
        }
        for container in pod["spec"]["containers"]
    ]
    return {
        "phase": "Running",
        "podIP": ip,
        "podIPs": [{"ip": ip}],
        "startTime": _now(),
        "conditions": conditions,
        "containerStatuses": containers,
    }


def _ended(pod: JsonObject, behaviour: Behaviour) -> JsonObject:
    code = 0 if behaviour.job_succeeds else 1
    terminated = {
        "exitCode": code,
        "reason": "Error" if code else "Completed",
        "message": behaviour.job_message,
        "startedAt": _now(),
        "finishedAt": _now(),
    }
    return {
        "phase": "Failed" if code else "Succeeded",
        "startTime": _now(),
        "containerStatuses": [
            {
                "name": container["name"],
                "image": container["image"],
                "imageID": "fake",
                "ready": False,
                "restartCount": 0,
                "state": {"terminated": terminated},
            }
            for container in pod["spec"]["containers"]
        ],
    }
