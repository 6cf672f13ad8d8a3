"""Pods and workloads of one service, as a cluster would move them: one small event at a time."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any

from redserve.cluster.names import POOLS
from redserve_operator.decide.rollout import Tally, Targets, next_targets

if TYPE_CHECKING:
    import random

    from redserve.spec.placement import Role
    from redserve_operator.decide.goals import Goal


@dataclass(slots=True)
class Pod:
    number: int
    pool: Role
    revision: str
    started: bool = False
    terminating: bool = False


@dataclass
class Fleet:
    """What the API server and kubelets do, drawn by chance; the operator's step is `decide`."""

    goals: dict[Role, Goal]
    update: str = "a"
    settled: str = ""
    broken: set[str] = field(default_factory=set)
    targets: dict[Role, dict[str, int]] = field(default_factory=lambda: {p: {} for p in POOLS})
    pods: list[Pod] = field(default_factory=list)
    numbers: count[int] = field(default_factory=count)

    def is_ready(self, pod: Pod) -> bool:
        """A router is ready when what it requires of its revision is."""
        if not pod.started or pod.terminating:
            return False
        return pod.pool != "router" or all(
            any(
                one.started and not one.terminating
                for one in self.pods
                if one.pool == pool and one.revision == pod.revision
            )
            for pool in ("encoder", "llm")
            if self.goals[pool].is_required
        )

    def serving(self) -> set[str]:
        """Revisions that answer every request."""
        ready = {(pod.pool, pod.revision) for pod in self.pods if self.is_ready(pod)}
        wanted = [pool for pool in POOLS if self.goals[pool].desired]
        return {rev for _, rev in ready if all((pool, rev) in ready for pool in wanted)}

    def of(self, pool: Role, revision: str) -> list[Pod]:
        return [pod for pod in self.pods if pod.pool == pool and pod.revision == revision]

    def tallies(self) -> dict[Role, dict[str, Tally]]:
        made: dict[Role, dict[str, Tally]] = {}
        for pool in POOLS:
            revisions = set(self.targets[pool]) | {p.revision for p in self.pods if p.pool == pool}
            made[pool] = {}
            for revision in sorted(revisions):
                pods = self.of(pool, revision)
                ready = sum(1 for pod in pods if self.is_ready(pod))
                terminating = sum(1 for pod in pods if pod.terminating)
                made[pool][revision] = Tally(
                    self.targets[pool].get(revision, 0),
                    ready,
                    len(pods) - ready - terminating,
                    terminating,
                )
        return made

    # What the operator does.

    def decide(self) -> Targets:
        tallies = self.tallies()
        made = next_targets(self.goals, self.update, tallies, self.settled)
        check_bounds(self.goals, self.update, tallies, made)
        self.targets = {
            pool: {
                revision: size
                for revision, size in made[pool].items()
                if size or revision == self.update or not tallies[pool][revision].is_gone
            }
            for pool in POOLS
        }
        return made

    # What workloads, kubelets, users and bad luck do. Each returns whether anything happened.

    def workload_acts(self, rng: random.Random) -> bool:
        """One workload makes or stops one pod; stops those first that are not ready."""
        todo = []
        keys = {(pool, revision) for pool in POOLS for revision in self.targets[pool]}
        keys |= {(pod.pool, pod.revision) for pod in self.pods}
        for pool, revision in sorted(keys):
            alive = [pod for pod in self.of(pool, revision) if not pod.terminating]
            if len(alive) != self.targets[pool].get(revision, 0):
                todo.append((pool, revision, alive))
        if not todo:
            return False
        pool, revision, alive = rng.choice(todo)
        if len(alive) < self.targets[pool].get(revision, 0):
            self.pods.append(Pod(next(self.numbers), pool, revision))
        else:
            min(alive, key=lambda pod: (self.is_ready(pod), rng.random())).terminating = True
        return True

    def pod_starts(self, rng: random.Random) -> bool:
        todo = [
            pod
            for pod in self.pods
            if not pod.started and not pod.terminating and pod.revision not in self.broken
        ]
        if todo:
            rng.choice(todo).started = True
        return bool(todo)

    def pod_leaves(self, rng: random.Random) -> bool:
        """A drain ends."""
        todo = [pod for pod in self.pods if pod.terminating]
        if todo:
            self.pods.remove(rng.choice(todo))
        return bool(todo)

    def pod_fails(self, rng: random.Random) -> bool:
        todo = [pod for pod in self.pods if pod.started and not pod.terminating]
        if todo:
            pod = rng.choice(todo)
            pod.started = False
            pod.terminating = rng.random() < 0.3
        return bool(todo)

    def settle(self, rng: random.Random, num_events: int) -> None:
        """Only good things happen; until nothing does."""
        for _ in range(num_events):
            before = self.snapshot()
            self.decide()
            moved = [
                act
                for act in (self.workload_acts, self.pod_starts, self.pod_leaves)
                if rng.random() < 0.7 and act(rng)
            ]
            if not moved and before == self.snapshot():
                quiet = not (
                    self.workload_acts(rng) or self.pod_starts(rng) or self.pod_leaves(rng)
                )
                if quiet and before == self.snapshot():
                    return
        raise AssertionError(f"no end: {self.snapshot()}")

    def snapshot(self) -> tuple[Any, ...]:
        pods = Counter((p.pool, p.revision, p.started, p.terminating) for p in self.pods)
        return (
            sorted((pool, rev, n) for pool in POOLS for rev, n in self.targets[pool].items()),
            sorted(pods.items()),
        )


def check_bounds(
    goals: dict[Role, Goal],
    update: str,
    before: dict[Role, dict[str, Tally]],
    after: Targets,
) -> None:
    """What no step may do, whatever was before."""
    for pool, goal in goals.items():
        was = before[pool]
        sizes = after[pool]
        tally = {revision: was.get(revision, Tally()) for revision in sizes}
        if any(
            size > max(tally[revision].target, tally[revision].present)
            for revision, size in sizes.items()
        ):
            total = sum(max(size, tally[revision].present) for revision, size in sizes.items())
            assert total <= goal.desired + goal.surge, (pool, goal, was, sizes)
        kept_before = sum(min(t.ready, t.target) for t in tally.values())
        kept = sum(min(tally[revision].ready, size) for revision, size in sizes.items())
        assert kept >= min(goal.floor, kept_before), (pool, goal, was, sizes)
        assert all(size >= 0 for size in sizes.values())
        assert sizes[update] <= max(goal.desired, 1)
        if pool != "router" and not goal.may_be_empty:
            for revision, size in sizes.items():
                routers = before["router"].get(revision, Tally())
                if revision != update and tally[revision].target and not routers.is_gone:
                    assert size >= 1, (pool, revision, was, sizes)
