"""What the operator sees of one RedService when it decides."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from redserve.cluster.facts import Manifest
    from redserve.spec.placement import Role

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
        problem: Why it is not ready.
        message: The scheduler's, kubelet's or process' own sentence about the problem.
        num_restarts: Of the serving container.
    """

    name: str
    pool: Role
    revision: str
    ready: bool
    terminating: bool = False
    problem: PodProblem = ""
    message: str = ""
    num_restarts: int = 0


@dataclass(frozen=True, slots=True)
class Probed:
    """What the API server said to the pods of a revision in a dry run.

    Attributes:
        revision: Which.
        refused: Pool -> the API server's message; empty when all pods are welcome.
    """

    revision: str
    refused: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Observed:
    """A snapshot; caches may be a little behind the API server.

    Attributes:
        resource: The RedService as the API server has it, status included.
        children: Everything else that carries the service's label, except pods.
        pods: Its pods.
        probed: Result of the last dry run, if there was one.
    """

    resource: Manifest
    children: Mapping[ObjectKey, Manifest] = field(default_factory=dict)
    pods: tuple[PodFacts, ...] = ()
    probed: Probed | None = None
