"""What the operator sees of one RedService when it decides."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from redserve.cluster.facts import Manifest
    from redserve.spec.placement import Role
    from redserve_operator.decide.drift import Difference

PodProblem = Literal["", "Unschedulable", "ImagePull", "CrashLoop", "Failing"]
"""Why a pod is not ready: nothing wrong (yet), no node has room, no image, it keeps crashing,
anything else."""


@dataclass(frozen=True, slots=True, order=True)
class ObjectKey:
    """Names an object in the service's namespace."""

    kind: str
    name: str


@dataclass(frozen=True, slots=True)
class PodFacts:
    """One pod of the service.

    Attributes:
        name: Its name.
        pool: Its pool.
        revision: Its revision label.
        ready: Condition Ready, and not being deleted.
        terminating: It is being deleted: it drains.
        leaves_by: When its grace period ends, if it is being deleted. A pod that is there long
            after that has a dead node or somebody's finalizer.
        problem: Why it is not ready.
        message: The scheduler's, kubelet's or process' own sentence about the problem.
        num_restarts: Of the serving container.
        changed: When its condition Ready last changed, else when it was created; an aware time.
            Progress of a rollout is told from it. None: not known.
        group: Name of the replica that it is part of, for pods of a LeaderWorkerSet (label
            `leaderworkerset.sigs.k8s.io/group-key`); empty when the pod is a replica by itself.
    """

    name: str
    pool: Role
    revision: str
    ready: bool
    terminating: bool = False
    leaves_by: datetime | None = None
    problem: PodProblem = ""
    message: str = ""
    num_restarts: int = 0
    changed: datetime | None = None
    group: str = ""


@dataclass(frozen=True, slots=True)
class LoaderFacts:
    """The newest pod of a loader Job.

    Attributes:
        job: Name of the Job.
        report: Termination message of its container, stripped: the resolved commit when it
            succeeded (empty: there are no commits), why not when it failed.
        problem: Why the pod does not run, as for `PodFacts`.
        message: The scheduler's or kubelet's own sentence about the problem.
    """

    job: str
    report: str = ""
    problem: PodProblem = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class Probed:
    """What the API server said to the pods of a revision in a dry run.

    Whoever holds it forgets it within a minute: a refusal may have been mended in the cluster (a
    quota, a priority class) without a change of the manifest.

    Attributes:
        revision: Which.
        refused: Pool -> the API server's message; empty when all pods are welcome.
    """

    revision: str
    refused: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Amended:
    """An object that came back from our last write of it other than it was sent.

    Attributes:
        uid: Of the object.
        stamp: Hash of what was sent.
        differences: What is other in it.
        is_due: Whether that is so long ago that it is to be written once more: what changes it
            may be gone by now.
    """

    uid: str
    stamp: str
    differences: tuple[Difference, ...]
    is_due: bool = False


@dataclass(frozen=True, slots=True)
class Observed:
    """A snapshot; caches may be a little behind the API server.

    Objects are at least as new as the API server's answers to this operator's own writes: a size
    that was just lowered must not be seen as it was before. Pods may lag behind that.

    Attributes:
        resource: The RedService as the API server has it, status included.
        children: Everything else that carries the service's label, except pods, whole: with
            managedFields, ownerReferences and status.
        pods: Its pods that carry a pool and a revision.
        probed: Result of the last dry run, if there was one within the last minute.
        loaders: The loader Jobs' pods, one entry for each Job that has a pod.
        rejected: Object -> why the API server refused the last write of it as wrong or not allowed
            (400, 403, 422), or that somebody else has an object of its name, until a write of it
            succeeds. To be told as Accepted=False and Degraded=True, reason
            `ObjectRefused`, with the object and the sentence; actions stay as if it were empty,
            because what refused may have been mended. The round that was refused asks for a plan
            once more with this field set, of which it writes status and events only.
        amended: Object -> how it came back from our last write, where that was not as it was sent.
    """

    resource: Manifest
    children: Mapping[ObjectKey, Manifest] = field(default_factory=dict)
    pods: tuple[PodFacts, ...] = ()
    probed: Probed | None = None
    loaders: tuple[LoaderFacts, ...] = ()
    rejected: Mapping[ObjectKey, str] = field(default_factory=dict)
    amended: Mapping[ObjectKey, Amended] = field(default_factory=dict)
