"""Plans that change nothing: the manifest is refused, or the operator is told to keep off.

What runs is still told truly: the conditions are about the revision and the sizes that were acted
upon last, and keep the generation that these belong to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from redserve.cluster.names import POOLS
from redserve_operator.decide import data_path, reasons
from redserve_operator.decide.answering import who_answers
from redserve_operator.decide.census import drains_now, take_census
from redserve_operator.decide.conditions import Scene, Verdicts, judge, store
from redserve_operator.decide.events import conditions_by_type, edges
from redserve_operator.decide.objects import uid_of
from redserve_operator.decide.plan import Plan
from redserve_operator.decide.pool_view import view_pool
from redserve_operator.decide.reasons import CONDITIONS, POOL_CONDITIONS, Verdict
from redserve_operator.decide.status import is_stored, pool_entry, write_status

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from redserve.cluster.facts import Manifest
    from redserve.spec.placement import Role
    from redserve_operator.decide.observed import Observed

_KEPT = ("currentRevision", "updateRevision", "endpoints", "model")


def refused(
    observed: Observed, verdict: Verdict, now: datetime, again_after_s: float | None = None
) -> Plan:
    """A plan for a manifest that cannot be kept: says so, and touches nothing."""
    return _plan(observed, verdict, reasons.SPEC_REFUSED.says("see Accepted"), now, again_after_s)


def paused(observed: Observed, now: datetime) -> Plan:
    """A plan for `reconcile: Paused`."""
    stored = conditions_by_type(observed.resource.get("status") or {})
    word = reasons.PAUSED.says("reconcile is Paused")
    before = stored.get("Accepted")
    return _plan(observed, _as_verdict(before) if before else word, word, now, None)


def _plan(
    observed: Observed, accepted: Verdict, word: Verdict, now: datetime, again: float | None
) -> Plan:
    resource = observed.resource
    before: Mapping[str, Any] = resource.get("status") or {}
    stored = conditions_by_type(before)
    generation = int(resource["metadata"].get("generation", 0))
    update = str(before.get("updateRevision", ""))
    pools: list[Manifest] = list(before.get("pools") or ())
    about_before = frozenset(CONDITIONS) - {"Accepted"}
    if update:
        scene = _scene(observed, before, stored, update, now)
        verdicts = judge(scene, stored, generation, now)
        if word.reason == reasons.PAUSED.name or not _is_complete(stored, verdicts):
            verdicts["Progressing"] = word
            about_before -= {"Progressing"}
        pools = [pool_entry(view) for view in scene.pools]
    else:
        verdicts = dict.fromkeys(CONDITIONS, word)
    verdicts["Accepted"] = accepted
    conditions = store(verdicts, stored, generation, now, about_before)
    kept = {field: before[field] for field in _KEPT if field in before}
    status = write_status(generation, conditions, pools, **kept)
    if is_stored(status, before):
        return Plan(requeue_after_s=again)
    return Plan(status=status, events=edges(before, status), requeue_after_s=again)


def _is_complete(stored: Mapping[str, Manifest], verdicts: Verdicts) -> bool:
    done = reasons.ROLLOUT_COMPLETE.name
    was = stored.get("Progressing", {}).get("reason")
    return verdicts["Progressing"].reason == done == was


def _scene(
    observed: Observed,
    before: Mapping[str, Any],
    stored: Mapping[str, Manifest],
    update: str,
    now: datetime,
) -> Scene:
    census = take_census(observed, uid_of(observed.resource), now)
    drains = drains_now(observed.pods, now)
    sizes = {pool["name"]: int(pool.get("desired", 0)) for pool in before.get("pools") or ()}
    has_started = any(update in census.workloads[pool] for pool in POOLS)
    model = stored.get("ModelCached")
    floors = {
        pool: _floor(stored, pool, sizes.get(pool, 0))
        for pool in POOLS
        if sizes.get(pool, 0) or pool != "encoder"
    }
    serves = all(sizes.get(pool, 0) for pool in floors)
    return Scene(
        pools=tuple(
            view_pool(
                pool,
                sizes.get(pool, 0),
                _least(stored.get(POOL_CONDITIONS[pool]), sizes.get(pool, 0)),
                update,
                census,
                needed=floors,
                drains=drains,
            )
            for pool in POOLS
        ),
        model=_as_verdict(model) if model else reasons.LOADING.says("not looked at yet"),
        may_start=has_started or (model is not None and model["status"] == "True"),
        update=update,
        is_rolling=before.get("currentRevision") != update,
        is_old_left=is_old_left(census.tallies, update),
        data_path=_data_path(observed, stored.get("TransportReady")),
        is_stopped=stored.get("Ready", {}).get("reason") == reasons.STOPPED.name,
        answers=who_answers(census, floors, update, is_first=not before.get("currentRevision"))
        if serves
        else None,
    )


def _data_path(observed: Observed, stored: Manifest | None) -> Verdict:
    """What was said of it; the manifest, which may not be acted upon, where nothing was yet."""
    if stored is not None and stored["reason"] in data_path.NAMES:
        return _as_verdict(stored)
    spec = observed.resource.get("spec")
    transport = spec.get("transport") if isinstance(spec, dict) else None
    return data_path.data_path(transport.get("type", "") if isinstance(transport, dict) else "")


def is_old_left(tallies: Mapping[Any, Mapping[str, Any]], update: str) -> bool:
    """Whether replicas of other revisions are wanted or there, draining ones apart."""
    return any(
        tally.target or tally.present
        for pool in tallies.values()
        for revision, tally in pool.items()
        if revision != update
    )


def _floor(stored: Mapping[str, Manifest], pool: Role, desired: int) -> int:
    """As `_least`; that a part of a pool was enough to answer is remembered by Ready's reason."""
    ready = stored.get("Ready", {})
    partly = (reasons.UPDATING.name, reasons.MINIMUM_READY.name)
    if ready.get("status") == "True" and ready.get("reason") in partly:
        return 1
    return _least(stored.get(POOL_CONDITIONS[pool]), desired)


def _least(condition: Manifest | None, desired: int) -> int:
    """Whether less than all was enough is remembered in the condition's reason."""
    lenient = condition is not None and condition["reason"] == reasons.MINIMUM_READY.name
    return min(1, desired) if lenient else desired


def _as_verdict(condition: Manifest) -> Verdict:
    return Verdict(condition["status"], condition["reason"], condition["message"])
