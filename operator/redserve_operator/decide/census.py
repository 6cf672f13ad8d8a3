"""Counts workloads and pods: per pool and revision, in replicas."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from redserve.cluster import labels
from redserve.cluster.names import POOLS
from redserve_operator.decide.objects import WORKLOADS, is_going, is_owned_by, label_of
from redserve_operator.decide.rollout import Tally

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from redserve.cluster.facts import Manifest
    from redserve.spec.placement import Role
    from redserve_operator.decide.observed import Observed, PodFacts

OVERDUE: Final = timedelta(seconds=60)
"""So long after its grace period a pod that is still there is stuck, not slow."""


@dataclass(frozen=True, slots=True)
class Census:
    """What there is of a service.

    Attributes:
        tallies: Per pool and revision, the counts.
        workloads: Per pool and revision, the workload.
        pods: Per pool and revision, the pods.
    """

    tallies: Mapping[Role, Mapping[str, Tally]] = field(default_factory=dict)
    workloads: Mapping[Role, Mapping[str, Manifest]] = field(default_factory=dict)
    pods: Mapping[Role, Mapping[str, tuple[PodFacts, ...]]] = field(default_factory=dict)

    def tally(self, pool: Role, revision: str) -> Tally:
        """Counts of one pool in one revision; zeros when there is nothing."""
        return self.tallies.get(pool, {}).get(revision) or Tally()

    def revisions(self) -> set[str]:
        """Every revision that has a workload or pods."""
        return {revision for pool in self.tallies.values() for revision in pool}

    def num_present(self, pool: Role) -> int:
        """Replicas of every revision that are not draining."""
        return sum(tally.present for tally in self.tallies.get(pool, {}).values())

    def pods_of(self, pool: Role, revision: str) -> tuple[PodFacts, ...]:
        """Pods of one pool in one revision."""
        return self.pods.get(pool, {}).get(revision, ())


def take_census(observed: Observed, uid: str, now: datetime | None = None) -> Census:
    """Count what the service with this uid has.

    Args:
        observed: What there is.
        uid: The service's.
        now: Pods that should have left `OVERDUE` before are not counted as draining: they serve
            nobody, and nothing is to wait for them. None counts them.
    """
    workloads: dict[Role, dict[str, Manifest]] = {pool: {} for pool in POOLS}
    pods: dict[Role, dict[str, list[PodFacts]]] = {pool: defaultdict(list) for pool in POOLS}
    for key in sorted(observed.children):
        child = observed.children[key]
        pool = _pool_of(child)
        revision = label_of(child, labels.REVISION)
        if key.kind in WORKLOADS and pool and revision and is_owned_by(child, uid):
            workloads[pool][revision] = child
    for pod in sorted(observed.pods, key=lambda pod: pod.name):
        if pod.pool in pods:
            pods[pod.pool][pod.revision].append(pod)
    overdue = {pod.name for pod in observed.pods if now is not None and is_overdue(pod, now)}
    tallies = {
        pool: {
            revision: _tally(
                workloads[pool].get(revision),
                [pod for pod in pods[pool].get(revision, ()) if pod.name not in overdue],
            )
            for revision in sorted({*workloads[pool], *pods[pool]})
        }
        for pool in POOLS
    }
    return Census(
        tallies,
        workloads,
        {pool: {rev: tuple(some) for rev, some in pods[pool].items()} for pool in POOLS},
    )


def is_overdue(pod: PodFacts, now: datetime) -> bool:
    """Whether a pod that is being deleted should have gone long ago."""
    return pod.leaves_by is not None and now >= pod.leaves_by + OVERDUE


def drains_now(pods: Iterable[PodFacts], now: datetime) -> bool:
    """Whether a pod is about to make room; one that should have gone long ago is not."""
    return any(pod.terminating and not is_overdue(pod, now) for pod in pods)


def _pool_of(child: Manifest) -> Role | None:
    name = label_of(child, labels.POOL)
    return next((pool for pool in POOLS if pool == name), None)


def _tally(workload: Manifest | None, pods: Iterable[PodFacts]) -> Tally:
    size = _pods_per_replica(workload) if workload else 1
    replicas: dict[str, list[PodFacts]] = defaultdict(list)
    for pod in pods:
        replicas[pod.group or pod.name].append(pod)
    ready = unready = terminating = 0
    for members in replicas.values():
        # A replica of several pods is as good as the worst of them.
        expected = size if members[0].group else 1
        if any(pod.terminating for pod in members):
            terminating += 1
        elif sum(pod.ready for pod in members) >= expected:
            ready += 1
        else:
            unready += 1
    return Tally(_target(workload), ready, unready, terminating)


def _target(workload: Manifest | None) -> int:
    if workload is None or is_going(workload):
        return 0
    return int(workload.get("spec", {}).get("replicas", 1))


def _pods_per_replica(workload: Manifest) -> int:
    template = workload.get("spec", {}).get("leaderWorkerTemplate") or {}
    return int(template.get("size", 1))
