"""The decision about one RedService, whole: what is seen goes in, what to do comes out.

parse ▶ check ▶ render ▶ dry run ▶ sizes ▶ rollout ▶ writes and deletions ▶ status and events
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from redserve.cluster.facts import Owner
from redserve.cluster.names import POOLS
from redserve.cluster.scope import pool_spec
from redserve_operator.decide.accept import (
    ManifestRefused,
    is_accepted,
    judge_probe,
    probe_pods,
)
from redserve_operator.decide.answering import who_answers
from redserve_operator.decide.census import OVERDUE, drains_now, is_overdue, take_census
from redserve_operator.decide.conditions import Scene, deadline, judge, store
from redserve_operator.decide.data_path import data_path
from redserve_operator.decide.events import conditions_by_type, edges
from redserve_operator.decide.frozen import is_old_left, paused, refused
from redserve_operator.decide.goals import goal, promised
from redserve_operator.decide.loading import look_at_model
from redserve_operator.decide.monitoring import monitoring
from redserve_operator.decide.objects import is_going, is_made_for, newest, time_of, uid_of
from redserve_operator.decide.patience import patience
from redserve_operator.decide.plan import Plan
from redserve_operator.decide.pool_view import view_pool
from redserve_operator.decide.refusals import tell_of
from redserve_operator.decide.rendering import accepted, rendered
from redserve_operator.decide.rollout import next_targets
from redserve_operator.decide.sizes import may_be_none, size_of
from redserve_operator.decide.status import endpoints, is_stored, pool_entry, write_status
from redserve_operator.decide.writes import Decided, red_pool_of, writes

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from redserve.cluster.facts import Context, Rendered
    from redserve.spec.placement import Role
    from redserve.spec.service import RedService
    from redserve_operator.decide.census import Census
    from redserve_operator.decide.loading import Loading
    from redserve_operator.decide.observed import Observed
    from redserve_operator.decide.rollout import Targets
    from redserve_operator.decide.sizes import Size

_PROBE_AGAIN_S: Final = 60.0
"""A refusal by the API server may have been mended in the cluster."""
_REPORT_AGAIN_S: Final = 5.0


def reconcile(context: Context, observed: Observed, now: datetime) -> Plan:
    """What to do about a service now.

    Args:
        context: What rendering depends on beside the manifest. `namespace`, `owner` and
            `model_revision` are taken from `observed.resource`, whatever they say.
        observed: What is seen; the manifest is `observed.resource`.
        now: An aware time.
    """
    resource = observed.resource
    if is_going(resource):
        return Plan()  # the garbage collector does the rest
    # Somebody else may have put our label on theirs, which is to be left alone.
    name = resource["metadata"]["name"]
    ours = {key: have for key, have in observed.children.items() if is_made_for(have, name)}
    observed = replace(observed, children=ours)
    try:
        service = accepted(resource, context.facts)
    except ManifestRefused as error:
        return refused(observed, error.verdict, now)
    if service.spec.reconcile == "Paused":
        return paused(observed, now)
    context = replace(
        context,
        namespace=resource["metadata"]["namespace"],
        owner=Owner(service.name, uid_of(resource)),
        model_revision="",
    )
    objects, loading = _render(service, context, observed, now)
    status = resource.get("status") or {}
    if not is_accepted(conditions_by_type(status), status, objects.revision):
        if observed.probed is None or observed.probed.revision != objects.revision:
            pods = probe_pods(objects, with_loader=not loading.may_start)
            return Plan(probe=pods, probe_revision=objects.revision)
        try:
            judge_probe(observed.probed)
        except ManifestRefused as error:
            return refused(observed, error.verdict, now, _PROBE_AGAIN_S)
    return _Round(service, objects, loading, observed, now).plan()


def _render(
    service: RedService, context: Context, observed: Observed, now: datetime
) -> tuple[Rendered, Loading]:
    """The objects, of the commit that the loader has found if it has."""
    objects = rendered(observed.resource, context)
    loading = look_at_model(service, objects.loader, observed, now)
    if loading.revision:
        pinned = replace(context, model_revision=loading.revision)
        # The Job resolves the revision, so it is the one that does not know the commit.
        objects = replace(rendered(observed.resource, pinned), loader=objects.loader)
    return objects, loading


@dataclass(frozen=True, slots=True)
class _Round:
    """One decision about a manifest that is accepted."""

    service: RedService
    rendered: Rendered
    loading: Loading
    observed: Observed
    now: datetime

    def plan(self) -> Plan:
        resource = self.observed.resource
        census = take_census(self.observed, uid_of(resource), self.now)
        sizes = {pool: self._size(pool, census) for pool in POOLS}
        leading = self._leading(census)
        decided = Decided(
            self.service,
            self.rendered,
            self.loading.may_start,
            leading or self._update,
            sizes,
            self._targets(leading, census, sizes),
        )
        before = resource.get("status") or {}
        stored = conditions_by_type(before)
        generation = int(resource["metadata"].get("generation", 0))
        scene = self._scene(census, sizes, before)
        verdicts = judge(scene, stored, generation, self.now)
        verdicts["MonitoringReady"] = monitoring(self.rendered.shared, self.observed.rejected)
        tell_of(verdicts, self.observed.rejected, self.observed.amended)
        current = before.get("currentRevision", "")
        status = write_status(
            generation,
            store(verdicts, stored, generation, self.now),
            [pool_entry(view, self._note(view.pool, sizes)) for view in scene.pools],
            currentRevision=self._update if scene.is_settled and not self._is_stopped else current,
            updateRevision=self._update,
            endpoints=endpoints(self.service, resource["metadata"]["namespace"]),
            model=self.loading.record,
        )
        is_new = not is_stored(status, before)
        due = deadline(scene, verdicts["Progressing"], conditions_by_type(status)["Progressing"])
        return Plan(
            actions=tuple(writes(decided, self.observed, census)),
            status=status if is_new else None,
            events=edges(before, status) if is_new else (),
            requeue_after_s=self._again_after_s(due),
        )

    def _note(self, pool: Role, sizes: Mapping[Role, Size]) -> str:
        """What people should know of a pool although no pod of it fails to start."""
        stuck = min(
            (
                pod.name
                for pod in self.observed.pods
                if pod.pool == pool and is_overdue(pod, self.now)
            ),
            default="",
        )
        if stuck:
            return (
                f"{stuck}: its grace period is over and it is still there; its node may be gone, "
                "or a finalizer holds it"
            )
        return sizes[pool].note

    @property
    def _update(self) -> str:
        return self.rendered.revision

    @property
    def _is_stopped(self) -> bool:
        return self.service.spec.reconcile == "Stopped"

    def _size(self, pool: Role, census: Census) -> Size:
        size = size_of(
            pool_spec(self.service, pool),
            red_pool_of(self.service, pool, self.observed),
            self._standing(pool, census),
        )
        return replace(size, wanted=0, least=0) if self._is_stopped else size

    def _standing(self, pool: Role, census: Census) -> int:
        """The size that a pool had by the last status, else what its workloads were given."""
        status = self.observed.resource.get("status") or {}
        for entry in status.get("pools") or ():
            if entry["name"] == pool and entry.get("desired"):
                return int(entry["desired"])
        return sum(tally.target for tally in census.tallies.get(pool, {}).values())

    def _leading(self, census: Census) -> str:
        """The revision that is to remain for now.

        While the checkpoint of the newest one is being fetched, that is the one which serves: it
        must go on following its size.
        """
        settled = str((self.observed.resource.get("status") or {}).get("currentRevision", ""))
        if self.loading.may_start:
            return self._update
        if settled in census.revisions():
            return settled
        ready = {
            revision: sum(census.tally(pool, revision).ready for pool in POOLS)
            for revision in sorted(census.revisions())
        }
        return max(ready, key=lambda revision: ready[revision], default="")

    def _targets(self, leading: str, census: Census, sizes: Mapping[Role, Size]) -> Targets:
        if not leading:
            return {pool: {} for pool in POOLS}
        goals = {}
        for pool in POOLS:
            spec = pool_spec(self.service, pool)
            goals[pool] = goal(
                sizes[pool].wanted,
                spec.rollout.max_surge,
                spec.rollout.max_unavailable,
                is_required=pool != "encoder" or not may_be_none(spec),
            )
        status = self.observed.resource.get("status") or {}
        settled = str(status.get("currentRevision", ""))
        return next_targets(goals, leading, census.tallies, settled)

    def _scene(
        self, census: Census, sizes: Mapping[Role, Size], before: Mapping[str, Any]
    ) -> Scene:
        is_rolling = before.get("currentRevision", "") != self._update
        drains = drains_now(self.observed.pods, self.now)
        floors = {
            pool: promised(size.wanted, size.least, self._max_unavailable(pool))
            for pool, size in sizes.items()
            if size.wanted or pool != "encoder"  # texts need no encoder
        }
        serves = all(sizes[pool].wanted for pool in floors)
        views = tuple(
            view_pool(
                pool,
                sizes[pool].wanted,
                # What is scaled may lack replicas, but a revision has to be whole once.
                sizes[pool].wanted if is_rolling else sizes[pool].least,
                self._update,
                census,
                needed=floors,
                drains=drains,
            )
            for pool in POOLS
        )
        return Scene(
            pools=views,
            model=self.loading.verdict,
            may_start=self.loading.may_start,
            update=self._update,
            is_rolling=is_rolling,
            is_old_left=is_old_left(census.tallies, self._update),
            data_path=data_path(self.service.spec.transport.type),
            is_stopped=self._is_stopped,
            answers=who_answers(
                census, floors, self._update, is_first=not before.get("currentRevision")
            )
            if serves
            else None,
            moved=self._moved(census),
            patience=patience(self.service, self.rendered),
            model_trouble=self.loading.trouble,
        )

    def _max_unavailable(self, pool: Role) -> str:
        return pool_spec(self.service, pool).rollout.max_unavailable

    def _moved(self, census: Census) -> datetime | None:
        """When a workload was made or a pod changed last."""
        made = [
            time_of(workload["metadata"].get("creationTimestamp"))
            for pool in POOLS
            for workload in census.workloads[pool].values()
        ]
        return newest(*made, *(pod.changed for pod in self.observed.pods))

    def _again_after_s(self, due: datetime | None) -> float | None:
        if self.loading.waits_for_report:
            return _REPORT_AGAIN_S
        overdue = [
            pod.leaves_by + OVERDUE
            for pod in self.observed.pods
            if pod.leaves_by is not None and not is_overdue(pod, self.now)
        ]
        times = [*overdue, *(one for one in (due, self.loading.again_at) if one is not None)]
        return max(1.0, (min(times) - self.now).total_seconds()) if times else None
