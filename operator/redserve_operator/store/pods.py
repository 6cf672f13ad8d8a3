"""Pods as facts: what the scheduler, the kubelet and the process itself say about them."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from redserve.cluster import labels, names
from redserve_operator.decide.observed import LoaderFacts, PodFacts, PodProblem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from redserve.cluster.facts import Manifest

JOB_NAME: Final = "batch.kubernetes.io/job-name"
GROUP: Final = "leaderworkerset.sigs.k8s.io/group-key"
NO_PROBLEM: Final[tuple[PodProblem, str]] = ("", "")
_CONTROLLERS: Final = frozenset({"ReplicaSet", "StatefulSet", "LeaderWorkerSet"})
"""Kinds that a Deployment's and a LeaderWorkerSet's pods belong to."""
_LONGEST_MESSAGE: Final = 1024
_NO_IMAGE: Final = frozenset(
    {
        "ErrImagePull",
        "ImagePullBackOff",
        "InvalidImageName",
        "ErrImageNeverPull",
        "ImageInspectError",
        "RegistryUnavailable",
    }
)
_CRASHES: Final = 2
"""From this number of restarts on a pod that is not ready is said to crash also while it runs:
else the word would come and go with every start."""


def pod_facts(pod: Manifest) -> PodFacts | None:
    """A pod of a pool.

    None for pods without a pool and a revision, for those that no workload controls (a copy that
    somebody made to look into one serves nothing and would never be stopped), and for those that
    are over: evicted ones stay listed for hours, and their controller has replaced them.
    """
    metadata, status = pod["metadata"], pod.get("status") or {}
    marks = metadata.get("labels") or {}
    pool, revision = marks.get(labels.POOL, ""), marks.get(labels.REVISION, "")
    if pool not in names.POOLS or not revision or status.get("phase") in ("Failed", "Succeeded"):
        return None
    if not _is_of_workload(metadata):
        return None
    terminating = "deletionTimestamp" in metadata
    condition = _condition(status, "Ready")
    ready = condition.get("status") == "True" and not terminating
    problem, message = NO_PROBLEM if ready or terminating else _problem(status)
    changed = condition.get("lastTransitionTime") or metadata.get("creationTimestamp")
    return PodFacts(
        name=metadata["name"],
        pool=pool,
        revision=revision,
        ready=ready,
        terminating=terminating,
        # The API server writes the end of the grace period, not the time of the deletion.
        leaves_by=datetime.fromisoformat(metadata["deletionTimestamp"]) if terminating else None,
        problem=problem,
        message=message,
        num_restarts=_main(status).get("restartCount", 0),
        changed=datetime.fromisoformat(changed) if changed else None,
        group=marks.get(GROUP, ""),
    )


def _is_of_workload(metadata: Manifest) -> bool:
    owners = metadata.get("ownerReferences") or ()
    return any(owner.get("controller") and owner.get("kind") in _CONTROLLERS for owner in owners)


def loader_facts(pod: Manifest) -> LoaderFacts | None:
    """A pod of a loader Job; None for other pods."""
    metadata, status = pod["metadata"], pod.get("status") or {}
    job = (metadata.get("labels") or {}).get(JOB_NAME, "")
    if not job:
        return None
    report = ""
    for container in status.get("containerStatuses") or ():
        report = _last_words(container)
    over = status.get("phase") == "Succeeded" or "deletionTimestamp" in metadata
    problem, message = NO_PROBLEM if over else _problem(status)
    return LoaderFacts(job=job, report=report, problem=problem, message=message)


def _problem(status: dict[str, Any]) -> tuple[PodProblem, str]:
    scheduled = _condition(status, "PodScheduled")
    if scheduled.get("status") == "False":
        message = _short(scheduled.get("message") or scheduled.get("reason") or "")
        return (
            "Unschedulable" if scheduled.get("reason") == "Unschedulable" else "Failing"
        ), message
    for container in _containers(status):
        problem, message = _container_problem(container)
        if problem:
            return problem, message
    if status.get("phase") == "Failed":
        return "Failing", _short(status.get("message") or status.get("reason") or "")
    return NO_PROBLEM


def _container_problem(container: dict[str, Any]) -> tuple[PodProblem, str]:
    state = container.get("state") or {}
    waiting, ended = state.get("waiting") or {}, state.get("terminated")
    reason = waiting.get("reason", "")
    if reason in _NO_IMAGE:
        return "ImagePull", _short(waiting.get("message") or reason)
    if reason == "CrashLoopBackOff":
        return "CrashLoop", _last_end(container) or _short(waiting.get("message", ""))
    if reason not in ("", "ContainerCreating", "PodInitializing"):
        return "Failing", _short(waiting.get("message") or reason)
    crashed = ended is not None and ended.get("exitCode", 0) != 0
    restarts = container.get("restartCount", 0)
    failed_before = (container.get("lastState") or {}).get("terminated", {}).get("exitCode", 0) != 0
    if (crashed or (failed_before and not container.get("ready"))) and restarts >= _CRASHES:
        return "CrashLoop", _last_end(container)
    return ("Failing", _last_end(container)) if crashed else NO_PROBLEM


def _last_end(container: dict[str, Any]) -> str:
    ended = _ended(container)
    if not ended:
        return ""
    words = (ended.get("message") or "").strip() or ended.get("reason") or ""
    # The end of what a process said is where it says why it stopped.
    tail = words[-_LONGEST_MESSAGE:]
    return f"{container.get('name', '')} ended with exit code {ended.get('exitCode', 0)}: {tail}"


def _last_words(container: dict[str, Any]) -> str:
    return str((_ended(container) or {}).get("message") or "").strip()


def _ended(container: dict[str, Any]) -> dict[str, Any] | None:
    for state in ("state", "lastState"):
        ended: dict[str, Any] | None = (container.get(state) or {}).get("terminated")
        if ended:
            return ended
    return None


def _containers(status: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield from status.get("initContainerStatuses") or ()
    yield from status.get("containerStatuses") or ()


def _main(status: dict[str, Any]) -> dict[str, Any]:
    for container in status.get("containerStatuses") or ():
        if container.get("name") == names.MAIN_CONTAINER:
            found: dict[str, Any] = container
            return found
    return {}


def _condition(status: dict[str, Any], kind: str) -> dict[str, Any]:
    for condition in status.get("conditions") or ():
        if condition.get("type") == kind:
            found: dict[str, Any] = condition
            return found
    return {}


def _short(text: str) -> str:
    return text.strip()[:_LONGEST_MESSAGE]
