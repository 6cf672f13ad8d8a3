"""Which revision gets how many replicas now: one step of a rollout, from what is seen alone.

Old and new revisions live side by side and never meet, so a step has to keep three things in mind
at once: how many replicas a pool may have (`surge`), how many must stay ready (`unavailable`), and
that a revision serves only while it has a router, an encoder and an engine. The order in which
things happen follows from four rules:

1. Pods that are not ready go first, from revisions that are furthest from serving.
2. Old routers leave as the new revision's encoders and engines become ready, in proportion: the
   traffic that a revision draws is its share of routers.
3. Old encoders and engines leave when the new ones need their place, or when their routers left.
   The last of each stays until all routers of its revision are gone, draining ones too.
4. When several old revisions block each other, the one that serves best takes over the others'
   routers, so that those can leave.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import ceil, floor
from typing import TYPE_CHECKING, Final

from redserve.cluster.names import POOLS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from redserve.spec.placement import Role
    from redserve_operator.decide.goals import Goal

_WORKERS: Final[tuple[Role, ...]] = ("encoder", "llm")
_ROUTER: Final[Role] = "router"


@dataclass(frozen=True, slots=True)
class Tally:
    """One pool in one revision, as it is.

    Attributes:
        target: `spec.replicas` of its workload; 0 without one.
        ready: Replicas that are ready.
        unready: Replicas that are not, and are not being deleted.
        terminating: Replicas that drain.
    """

    target: int = 0
    ready: int = 0
    unready: int = 0
    terminating: int = 0

    @property
    def present(self) -> int:
        """Replicas that are there to stay, as far as one can see."""
        return self.ready + self.unready

    @property
    def is_gone(self) -> bool:
        """Whether nothing is left of it but objects."""
        return not (self.target or self.present or self.terminating)


Tallies = dict["Role", dict[str, Tally]]
Targets = dict["Role", dict[str, int]]


def next_targets(
    goals: Mapping[Role, Goal],
    update: str,
    tallies: Mapping[Role, Mapping[str, Tally]],
    settled: str = "",
) -> Targets:
    """New sizes of every workload.

    Args:
        goals: What each of the three pools is to become.
        update: Revision that is to remain.
        tallies: Per pool, every revision that has a workload or pods; `update` may be missing.
        settled: Revision that was fully rolled out last: of several old ones that do not serve it
            is the one that may recover.

    Returns:
        Per pool, a size for `update` and each revision of `tallies`. The sizes of revisions other
        than `update` grow only to free a rollout that could not go on otherwise (rule 4).
    """
    step = _Step(goals, update, tallies, settled)
    step.trim_update()
    step.shrink_old()
    step.grow_update()
    return step.targets


class _Step:
    """The sizes while they are being decided; begins with what is."""

    def __init__(
        self,
        goals: Mapping[Role, Goal],
        update: str,
        tallies: Mapping[Role, Mapping[str, Tally]],
        settled: str,
    ) -> None:
        self._goals = goals
        self._settled = settled
        self._update = update
        self._tallies: Tallies = {
            pool: {update: Tally(), **tallies.get(pool, {})} for pool in POOLS
        }
        self.targets: Targets = {
            pool: {revision: tally.target for revision, tally in self._tallies[pool].items()}
            for pool in POOLS
        }
        self._old_router_share = self._share_of_old_routers()
        revisions = {revision for pool in POOLS for revision in self._tallies[pool]}
        self._old = sorted(revisions - {update}, key=self._worth)

    def trim_update(self) -> None:
        """The new revision is never larger than desired; workers wait for routers that leave."""
        for pool in POOLS:
            least = 1 if self._is_held(pool, self._update) else 0
            size = min(self._target(pool, self._update), self._goals[pool].desired)
            if self._target(pool, self._update):
                self.targets[pool][self._update] = max(size, least)

    def shrink_old(self) -> None:
        """Stop what may be stopped of old revisions, the least useful ones first."""
        for pool in (*_WORKERS, _ROUTER):
            for revision in self._old:
                while self._may_stop(pool, revision):
                    self.targets[pool][revision] -= 1

    def grow_update(self) -> None:
        """Start what there is room for; where no worker can start, make room for one."""
        for pool in _WORKERS:
            self._grow(pool, self._update, self._goals[pool].desired)
        rivals = [one for one in self._old if self._target(_ROUTER, one)]
        if self._is_stuck() and len(rivals) > 1:
            self.targets[_ROUTER][self._update] = self._kept(_ROUTER, self._update)
            self._grow(_ROUTER, rivals[-1], self._goals[_ROUTER].desired)
        else:
            self._grow(_ROUTER, self._update, self._most_new_routers())

    def _grow(self, pool: Role, revision: str, size: int) -> None:
        # Pods that were told to leave but are still there count: the workloads act on their own.
        others = sum(
            max(target, self._tallies[pool][other].present)
            for other, target in self.targets[pool].items()
            if other != revision
        )
        room = self._goals[pool].desired + self._goals[pool].surge - others
        if revision in self.targets[pool]:
            self.targets[pool][revision] = max(self._target(pool, revision), min(size, room))

    def _may_stop(self, pool: Role, revision: str) -> bool:
        """Whether one replica fewer of an old revision is right."""
        target = self._target(pool, revision)
        if target == 0 or (target == 1 and self._is_held(pool, revision)):
            return False
        if target > self._kept(pool, revision):
            return self._may_stop_unready(pool, revision)
        if sum(self._kept(pool, one) for one in self.targets[pool]) <= self._goals[pool].floor:
            return False
        if not self._goals[pool].may_be_empty and self._is_last_path(pool, revision):
            return False
        old_ready = sum(self._kept(pool, one) for one in self._old)
        if pool == _ROUTER:
            if revision != self._old[-1] and self._is_stuck():
                return True  # the other old revisions take its traffic
            wanted = self._goals[pool].desired * (1 - self._new_share())
            return old_ready - 1 >= ceil(wanted)
        wanted = self._goals[pool].desired * self._old_router_share
        return self._is_in_the_way(pool) or old_ready - 1 >= ceil(wanted)

    def _may_stop_unready(self, pool: Role, revision: str) -> bool:
        """Costs nothing that is ready now. But the best old revision may be ready again soon.

        A short failure of the revision that serves must not end it while the new one has nothing.
        """
        has_successor = self._kept(pool, self._update) or not self._goals[pool].desired
        if revision != self._old[-1] or has_successor:
            return True
        if any(goal.is_required and not goal.desired for goal in self._goals.values()):
            return True  # the service is not to serve: no new router will ever be ready
        if self._target(pool, revision) == 1 and not self._goals[pool].may_be_empty:
            alone = not any(self._has_routers(one) for one in self._old[:-1])
            return alone and self._is_stuck()
        return self._is_in_the_way(pool)

    def _is_in_the_way(self, pool: Role) -> bool:
        """Whether the new revision could not reach its size beside the old ones."""
        old = sum(self._target(pool, one) for one in self._old)
        return old > self._goals[pool].surge

    def _is_stuck(self) -> bool:
        """Whether old revisions leave no room for even one worker of the new one."""
        return any(self._leaves_no_room(pool) for pool in _WORKERS)

    def _leaves_no_room(self, pool: Role) -> bool:
        goal = self._goals[pool]
        old = sum(self._target(pool, one) for one in self._old)
        return 0 < goal.desired <= old - goal.surge and not self._target(pool, self._update)

    def _is_held(self, pool: Role, revision: str) -> bool:
        """Whether the last worker has to wait for routers of its revision."""
        if pool == _ROUTER or not self._has_routers(revision):
            return False
        return not self._goals[pool].may_be_empty or self._goals[_ROUTER].desired == 0

    def _has_routers(self, revision: str) -> bool:
        tally = self._tallies[_ROUTER].get(revision)
        return tally is not None and not tally.is_gone

    def _is_last_path(self, pool: Role, revision: str) -> bool:
        """Whether one replica fewer would end the last revision that serves."""
        if self._kept(pool, revision) > 1 or not self._serves(revision):
            return False
        return not any(self._serves(one) for one in (*self._old, self._update) if one != revision)

    def _serves(self, revision: str) -> bool:
        return all(self._kept(pool, revision) for pool in POOLS if self._goals[pool].desired)

    def _new_share(self) -> Fraction:
        """How much of what the new workers can become beside the old ones is ready: 0 to 1."""
        return min(self._ready_share(pool, 0) for pool in _WORKERS)

    def _ready_share(self, pool: Role, least: int) -> Fraction:
        goal = self._goals[pool]
        if goal.desired == 0:
            return Fraction(1)
        held = sum(1 for one in self._old if self._target(pool, one) and self._is_held(pool, one))
        reach = min(goal.floor or goal.desired, goal.desired + goal.surge - held)
        ready = max(self._kept(pool, self._update), least)
        return min(Fraction(1), Fraction(ready, max(1, reach)))

    def _most_new_routers(self) -> int:
        """Routers draw traffic as soon as what they require is ready: not too many of them."""
        desired = self._goals[_ROUTER].desired
        if not any(self._kept(_ROUTER, one) for one in self._old):
            return desired
        share = min(
            self._ready_share(pool, int(self._goals[pool].is_required)) for pool in _WORKERS
        )
        return floor(desired * share + Fraction(1, 2))

    def _share_of_old_routers(self) -> Fraction:
        """Share of the traffic that old revisions draw."""
        ready = {revision: tally.ready for revision, tally in self._tallies[_ROUTER].items()}
        total = sum(ready.values())
        return Fraction(total - ready[self._update], total) if total else Fraction(0)

    def _worth(self, revision: str) -> tuple[bool, int, bool, int, str]:
        """How much is lost with a revision; the name makes the order complete."""
        workers = min(self._kept(pool, revision) for pool in _WORKERS)
        routers = self._kept(_ROUTER, revision)
        settled = revision == self._settled
        return self._serves(revision), routers, settled, workers, revision

    def _target(self, pool: Role, revision: str) -> int:
        return self.targets[pool].get(revision, 0)

    def _kept(self, pool: Role, revision: str) -> int:
        """Replicas that are ready and stay so: a workload stops those first that are not."""
        tally = self._tallies[pool].get(revision)
        return min(tally.ready, self._target(pool, revision)) if tally else 0
