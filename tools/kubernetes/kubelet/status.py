"""What a kubelet tells about a pod. Pure."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tools.kubernetes.async_api import JsonObject


@dataclass(frozen=True, slots=True)
class Waiting:
    """Not started, and why."""

    reason: str = "ContainerCreating"
    message: str = ""


@dataclass(frozen=True, slots=True)
class Running:
    """Has a process."""

    started_at: str
    pid: int


@dataclass(frozen=True, slots=True)
class Terminated:
    """Had a process, or could not get one."""

    exit_code: int
    reason: str
    message: str
    started_at: str
    finished_at: str
    pid: int


State = Waiting | Running | Terminated


@dataclass(frozen=True, slots=True)
class ContainerView:
    """One container as it is now.

    Attributes:
        name, image: As in the pod.
        state: Now.
        last: How it ended before it was restarted.
        num_restarts: How often it was.
        started: It runs and its startup probe, if any, succeeded.
        ready: It is started and its readiness probe, if any, says so.
        will_restart: It ended and is to be started again.
    """

    name: str
    image: str
    state: State
    last: Terminated | None = None
    num_restarts: int = 0
    started: bool = False
    ready: bool = False
    will_restart: bool = False


@dataclass(frozen=True, slots=True)
class PodView:
    """One pod as it is now.

    Attributes:
        inits, containers: In the pod's order.
        initialized: All init containers succeeded.
        pod_ip: Its address.
        host_ip: Its node's address.
        start_time: When the kubelet saw it.
        has_sandbox: Volumes and address are there.
        is_leaving: It is being deleted.
    """

    inits: Sequence[ContainerView]
    containers: Sequence[ContainerView]
    initialized: bool
    pod_ip: str
    host_ip: str
    start_time: str
    has_sandbox: bool
    is_leaving: bool = False


def now() -> str:
    """The time, as Kubernetes writes it."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def phase(view: PodView) -> str:
    """Pending, Running, Succeeded or Failed."""
    if not view.initialized:
        # An init container that failed for good ends the pod.
        ended = [c for c in view.inits if _ended_for_good(c)]
        return "Failed" if any(_code(c) != 0 for c in ended) else "Pending"
    if all(_ended_for_good(c) for c in view.containers):
        return "Failed" if any(_code(c) != 0 for c in view.containers) else "Succeeded"
    begun = any(not isinstance(c.state, Waiting) or c.last is not None for c in view.containers)
    return "Running" if begun else "Pending"


def pod_status(
    view: PodView, pod: JsonObject, written: Mapping[str, JsonObject], time: str
) -> JsonObject:
    """The status to write.

    Args:
        view: What is.
        pod: The pod as the API server has it, for its readiness gates.
        written: The conditions written before, by type; they keep their time while they hold.
        time: Of what changes.
    """
    now_in = phase(view)
    over = now_in in ("Succeeded", "Failed")
    unready = [c.name for c in view.containers if not c.ready]
    gates = [gate["conditionType"] for gate in pod["spec"].get("readinessGates", [])]
    held = {c["type"]: c["status"] for c in pod.get("status", {}).get("conditions", [])}
    shut = [gate for gate in gates if held.get(gate) != "True"]
    reason = "PodCompleted" if now_in == "Succeeded" else "ContainersNotReady"
    message = f"containers with unready status: [{' '.join(unready)}]"
    contained = (False, reason, message) if unready or over else (True, "", "")
    ready = contained
    if contained[0] and shut:
        ready = (False, "ReadinessGatesNotReady", f"readiness gates are not true: {shut}")
    facts = {
        "PodReadyToStartContainers": (view.has_sandbox and not over, "", ""),
        "Initialized": (
            view.initialized,
            "" if view.initialized else "ContainersNotInitialized",
            "",
        ),
        "ContainersReady": contained,
        "Ready": ready,
    }
    status: JsonObject = {
        "phase": now_in,
        "hostIP": view.host_ip,
        "hostIPs": [{"ip": view.host_ip}],
        "startTime": view.start_time,
        "observedGeneration": pod["metadata"].get("generation"),
        "conditions": [
            _condition(kind, fact, pod, written.get(kind), time) for kind, fact in facts.items()
        ],
        "containerStatuses": [container_status(c) for c in view.containers],
        "qosClass": pod.get("status", {}).get("qosClass", "BestEffort"),
    }
    if view.inits:
        status["initContainerStatuses"] = [container_status(c) for c in view.inits]
    if view.has_sandbox:
        status |= {"podIP": view.pod_ip, "podIPs": [{"ip": view.pod_ip}]}
    return status


def container_status(view: ContainerView) -> JsonObject:
    """One entry of containerStatuses."""
    status: JsonObject = {
        "name": view.name,
        "image": view.image,
        "imageID": view.image,
        "restartCount": view.num_restarts,
        "ready": view.ready,
        "started": view.started,
        "state": _state(view.state),
        "lastState": {} if view.last is None else _state(view.last),
    }
    if not isinstance(view.state, Waiting):
        status["containerID"] = f"process://{view.state.pid}"
    return status


def _condition(
    kind: str,
    fact: tuple[bool, str, str],
    pod: JsonObject,
    before: JsonObject | None,
    time: str,
) -> JsonObject:
    holds, reason, message = fact
    condition: dict[str, Any] = {"type": kind, "status": "True" if holds else "False"}
    condition["observedGeneration"] = pod["metadata"].get("generation")
    # Null, so that a patch takes away what was said before.
    condition |= {"reason": reason or None, "message": message or None}
    same = before is not None and before["status"] == condition["status"]
    condition["lastTransitionTime"] = before["lastTransitionTime"] if before and same else time
    return condition


def _state(state: State) -> JsonObject:
    match state:
        case Waiting(reason, message):
            return {"waiting": {"reason": reason, "message": message}}
        case Running(started_at, _):
            return {"running": {"startedAt": started_at}}
        case Terminated():
            told: JsonObject = {
                "exitCode": state.exit_code,
                "reason": state.reason,
                "message": state.message,
                "startedAt": state.started_at,
                "finishedAt": state.finished_at,
                "containerID": f"process://{state.pid}",
            }
            return {"terminated": told}


def _ended_for_good(view: ContainerView) -> bool:
    return isinstance(view.state, Terminated) and not view.will_restart


def _code(view: ContainerView) -> int:
    return view.state.exit_code if isinstance(view.state, Terminated) else 0
