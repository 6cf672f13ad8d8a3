"""One pool in the eyes of its condition: what is wanted, what is there, what keeps the rest."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from redserve_operator.decide import reasons
from redserve_operator.decide.answering import has_path
from redserve_operator.decide.upkeep import condition_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from redserve.cluster.facts import Manifest
    from redserve.spec.placement import Role
    from redserve_operator.decide.census import Census
    from redserve_operator.decide.observed import PodFacts, PodProblem
    from redserve_operator.decide.reasons import Reason, Verdict
    from redserve_operator.decide.rollout import Tally

LONGEST_MESSAGE: Final = 1024
_TROUBLES: Final[Mapping[PodProblem, Reason]] = {
    "CrashLoop": reasons.CRASH_LOOP,
    "ImagePull": reasons.IMAGE_PULL_FAILED,
    "Failing": reasons.POD_FAILING,
    "Unschedulable": reasons.INSUFFICIENT_CAPACITY,
}
"""The worst first."""
_BACK_OFF: Final = re.compile(r"back-off (\d+h)?(\d+m)?\d+(\.\d+)?s ")
QUOTA: Final = "exceeded quota"
"""What the API server says when a ResourceQuota is used up."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """What keeps a pod from serving.

    Attributes:
        reason: For conditions.
        message: Sentence of whoever noticed, with the pod's name.
    """

    reason: Reason
    message: str


@dataclass(frozen=True, slots=True)
class PoolView:
    """A pool now.

    Attributes:
        pool: Which.
        desired: Replicas that are wanted.
        least: Replicas of the newest revision that must be ready for the pool to be ready.
        tally: Counts of the newest revision.
        present: Replicas of every revision that are not draining.
        is_covered: Whether one older revision serves, in every pool that takes.
        trouble: The worst of the newest revision.
        old_trouble: The worst of older revisions.
    """

    pool: Role
    desired: int
    least: int
    tally: Tally
    present: int
    is_covered: bool
    trouble: Trouble | None
    old_trouble: Trouble | None

    @property
    def is_ready(self) -> bool:
        """Whether enough of the newest revision serve."""
        return self.desired > 0 and self.tally.ready >= self.least

    @property
    def is_settled(self) -> bool:
        """Whether it is as it is to be: the newest revision alone, whole and ready."""
        tally = self.tally
        return self.present == tally.present == tally.ready == tally.target == self.desired

    @property
    def counts(self) -> str:
        """For people: `1 of 2 ready`."""
        return f"{self.tally.ready} of {self.desired} ready"

    def verdict(self) -> Verdict:
        """For the pool's condition."""
        if self.desired == 0:
            return reasons.SCALED_TO_ZERO.says("the size is 0")
        if self.tally.ready >= self.desired:
            return reasons.ALL_READY.says(self.counts)
        if self.is_ready:
            return reasons.MINIMUM_READY.says(f"{self.counts}, at least {self.least} are needed")
        if self.trouble is not None:
            return self.trouble.reason.says(f"{self.counts}: {self.trouble.message}", "False")
        if self.is_covered:
            return reasons.UPDATING.says(f"{self.counts}; the revision before serves meanwhile")
        return reasons.PODS_NOT_READY.says(self.counts)


def view_pool(
    pool: Role,
    desired: int,
    least: int,
    update: str,
    census: Census,
    *,
    needed: Collection[Role],
    drains: bool,
) -> PoolView:
    """Look at a pool.

    Args:
        pool: Which.
        desired: Replicas that are wanted.
        least: Replicas that must be ready.
        update: The newest revision.
        census: What there is.
        needed: Pools that a revision takes to serve.
        drains: Whether any pod of the service drains: it may be about to make room.
    """
    others = [one for one in census.tallies.get(pool, {}) if one != update]
    old_pods = [pod for one in others for pod in census.pods_of(pool, one)]
    workload = census.workloads.get(pool, {}).get(update)
    return PoolView(
        pool=pool,
        desired=desired,
        least=least,
        tally=census.tally(pool, update),
        present=census.num_present(pool),
        is_covered=any(
            has_path(census, one, needed) for one in census.revisions() if one != update
        ),
        trouble=_worst(census.pods_of(pool, update), drains=drains) or _refused(workload),
        old_trouble=_worst(old_pods, drains=drains),
    )


def _worst(pods: Iterable[PodFacts], *, drains: bool) -> Trouble | None:
    alive = [pod for pod in pods if not pod.terminating and not pod.ready]
    for problem in _TROUBLES:
        # The first by name: which one is told must not change while nothing else does.
        found = min((pod for pod in alive if pod.problem == problem), default=None, key=_name)
        if found is not None:
            return trouble_of(problem, _sentence(found), drains=drains)
    return None


def trouble_of(problem: PodProblem, message: str, *, drains: bool) -> Trouble:
    """A pod's problem as a reason."""
    waits = problem == "Unschedulable" and drains
    told = reasons.WAITING_FOR_DRAIN if waits else _TROUBLES[problem]
    return Trouble(told, message)


def _name(pod: PodFacts) -> str:
    return pod.name


def _sentence(pod: PodFacts) -> str:
    message = _BACK_OFF.sub("back-off ", pod.message)  # the time in it doubles again and again
    return f"pod {pod.name}: {message}"[:LONGEST_MESSAGE]


def _refused(workload: Manifest | None) -> Trouble | None:
    failure = condition_of(workload, "ReplicaFailure") if workload else None
    if failure is None:
        return None
    message = str(failure.get("message", ""))
    told = reasons.INSUFFICIENT_CAPACITY if QUOTA in message else reasons.PODS_REFUSED
    return Trouble(told, message[:LONGEST_MESSAGE])
