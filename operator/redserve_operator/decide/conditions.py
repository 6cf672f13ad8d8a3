"""The verdict of every condition, from the pools as they are; and how verdicts are stored."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from redserve.cluster.probes import PULL_LIMIT_S, START_LIMIT_S
from redserve_operator.decide import reasons
from redserve_operator.decide.objects import newest, text_of, time_of
from redserve_operator.decide.pool_view import LONGEST_MESSAGE
from redserve_operator.decide.reasons import CONDITIONS, POOL_CONDITIONS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from redserve.cluster.facts import Manifest
    from redserve_operator.decide.pool_view import PoolView, Trouble
    from redserve_operator.decide.reasons import Verdict

PROGRESS_DEADLINE: Final = timedelta(seconds=PULL_LIMIT_S + START_LIMIT_S)
"""Longest time without movement before a rollout is called stuck, drains and probes apart."""

Verdicts = dict[str, "Verdict"]


@dataclass(frozen=True, slots=True)
class Scene:
    """What the verdicts look at.

    Attributes:
        pools: In the order of `names.POOLS`.
        model: For ModelCached.
        may_start: Whether the newest revision's pods may start.
        update: The newest revision.
        is_rolling: Whether the newest revision was not yet fully rolled out once.
        is_old_left: Whether replicas of older revisions are left that do not drain.
        data_path: For TransportReady, once encoders and engines know each other.
        is_stopped: Whether `reconcile` is Stopped.
        answers: Revision that answers requests, if any does with as many replicas as are promised.
        moved: When something moved last, as far as objects and pods tell.
        patience: Longest time without movement.
        model_trouble: What keeps the loader from its work, though it has not given up.
    """

    pools: tuple[PoolView, ...]
    model: Verdict
    may_start: bool
    update: str
    is_rolling: bool
    is_old_left: bool
    data_path: Verdict
    is_stopped: bool = False
    answers: str | None = None
    moved: datetime | None = None
    patience: timedelta = PROGRESS_DEADLINE
    model_trouble: Trouble | None = None

    @property
    def is_settled(self) -> bool:
        """Whether nothing is left to do."""
        return self.may_start and not self.is_old_left and all(p.is_settled for p in self.pools)


def judge(scene: Scene, stored: Mapping[str, Manifest], generation: int, now: datetime) -> Verdicts:
    """What every condition but Accepted is to say.

    Args:
        scene: What there is.
        stored: Conditions by type, as they are stored.
        generation: Of the manifest.
        now: An aware time.
    """
    made: Verdicts = {"ModelCached": scene.model}
    for view in scene.pools:
        made[POOL_CONDITIONS[view.pool]] = _pool(scene, view)
    made["TransportReady"] = _transport(scene)
    made["Ready"] = _ready(scene, made)
    made["Progressing"] = _progressing(scene, stored.get("Progressing"), generation, now)
    made["Degraded"] = _degraded(scene, made)
    return made


def deadline(scene: Scene, progressing: Verdict, stored: Manifest | None) -> datetime | None:
    """When a rollout that is under way will be called stuck; None when none is."""
    if progressing.status != "True" or not scene.may_start:
        return None  # a checkpoint may take hours
    was_moving = stored is not None and stored.get("status") == "True"
    began = time_of(stored.get("lastTransitionTime")) if was_moving and stored else None
    moved = newest(began, scene.moved) if began else None
    return moved + scene.patience if moved else None


def _pool(scene: Scene, view: PoolView) -> Verdict:
    if scene.is_stopped:
        return reasons.STOPPED.says("reconcile is Stopped")
    if not scene.may_start:
        return reasons.MODEL_NOT_CACHED.says("pods wait for the checkpoint")
    return view.verdict()


def _transport(scene: Scene) -> Verdict:
    if scene.is_stopped:
        return reasons.STOPPED.says("reconcile is Stopped", "Unknown")
    if any(view.desired == 0 for view in scene.pools):
        return reasons.SCALED_TO_ZERO.says("a pool has the size 0", "Unknown")
    # A router is ready only when encoders and engines of its revision know each other.
    if any(view.pool == "router" and view.tally.ready for view in scene.pools):
        return scene.data_path
    return reasons.PODS_NOT_READY.says("no router of the newest revision is ready", "Unknown")


def _ready(scene: Scene, made: Verdicts) -> Verdict:
    if scene.is_stopped:
        return reasons.STOPPED.says("reconcile is Stopped")
    newest_is = _newest_ready(scene, made)
    if newest_is.status == "True" or scene.answers is None:
        return newest_is
    if scene.answers != scene.update:
        waits = "starts" if scene.may_start else "waits for the checkpoint"
        return reasons.UPDATING.says(
            f"the revision before serves while {scene.update} {waits}", "True"
        )
    return reasons.MINIMUM_READY.says(f"requests are answered; {newest_is.message}")


def _newest_ready(scene: Scene, made: Verdicts) -> Verdict:
    """Whether the newest revision alone is what is wanted."""
    if not scene.may_start:
        return reasons.MODEL_NOT_CACHED.says(scene.model.message)
    for view in scene.pools:
        verdict = made[POOL_CONDITIONS[view.pool]]
        if view.desired == 0 and view.pool != "encoder":  # texts need no encoder
            return reasons.SCALED_TO_ZERO.says(f"{view.pool}: {verdict.message}", "False")
        if verdict.status != "True":
            return type(verdict)("False", verdict.reason, f"{view.pool}: {verdict.message}")
    if made["TransportReady"].status == "Unknown" and all(view.desired for view in scene.pools):
        return reasons.PODS_NOT_READY.says(made["TransportReady"].message)
    if all(view.tally.ready >= view.desired for view in scene.pools):
        return reasons.ALL_READY.says("every pool is ready")
    return reasons.MINIMUM_READY.says("every pool has what it needs at least")


def _progressing(scene: Scene, stored: Manifest | None, generation: int, now: datetime) -> Verdict:
    if scene.is_stopped:
        return reasons.STOPPED.says("reconcile is Stopped")
    if not scene.may_start:
        if scene.model.reason == reasons.MODEL_LOAD_FAILED.name:
            return reasons.MODEL_LOAD_FAILED.says(scene.model.message)
        return reasons.MODEL_NOT_CACHED.says("pods wait for the checkpoint", "True")
    if scene.is_settled:
        return reasons.ROLLOUT_COMPLETE.says(f"revision {scene.update} is as it is to be")
    verdict = _moving(scene)
    if _is_still_stuck(scene, stored, generation) or _is_overdue(scene, verdict, stored, now):
        trouble = _trouble(scene)
        why = f": {trouble.message}" if trouble else ""
        minutes = int(scene.patience.total_seconds() // 60)
        return reasons.ROLLOUT_STUCK.says(f"nothing has moved for {minutes} minutes{why}")
    return verdict


def _moving(scene: Scene) -> Verdict:
    short = next(
        (
            view
            for view in scene.pools
            if view.trouble and view.trouble.reason is reasons.INSUFFICIENT_CAPACITY
        ),
        None,
    )
    if short is not None and short.trouble is not None:
        return reasons.INSUFFICIENT_CAPACITY.says(f"{short.pool}: {short.trouble.message}", "True")
    if scene.is_rolling or scene.is_old_left:
        how = "is taking over" if scene.is_old_left else "is starting"
        return reasons.ROLLOUT_IN_PROGRESS.says(f"revision {scene.update} {how}")
    return reasons.SCALING.says("pods are being started, replaced or stopped")


def _is_still_stuck(scene: Scene, stored: Manifest | None, generation: int) -> bool:
    """Stuck stays stuck until something moves or the manifest changes."""
    if stored is None or stored.get("reason") != reasons.ROLLOUT_STUCK.name:
        return False
    since = time_of(stored.get("lastTransitionTime"))
    has_moved = scene.moved is not None and since is not None and scene.moved > since
    return not has_moved and stored.get("observedGeneration") == generation


def _is_overdue(scene: Scene, verdict: Verdict, stored: Manifest | None, now: datetime) -> bool:
    due = deadline(scene, verdict, stored)
    return due is not None and now >= due


def _degraded(scene: Scene, made: Verdicts) -> Verdict:
    if scene.is_stopped:
        return reasons.STOPPED.says("reconcile is Stopped")
    if scene.model.reason == reasons.MODEL_LOAD_FAILED.name:
        return reasons.MODEL_LOAD_FAILED.says(scene.model.message, "True")
    trouble = scene.model_trouble or _trouble(scene)
    if trouble is not None and trouble.reason is not reasons.WAITING_FOR_DRAIN:
        return trouble.reason.says(trouble.message, "True")
    if made["Progressing"].reason == reasons.ROLLOUT_STUCK.name:
        return reasons.ROLLOUT_STUCK.says(made["Progressing"].message, "True")
    return reasons.AS_EXPECTED.says("nothing is wrong")


def _trouble(scene: Scene) -> Trouble | None:
    """The newest revision's comes before that of pods which are to go anyway."""
    found = [view.trouble for view in scene.pools] + [view.old_trouble for view in scene.pools]
    return next((trouble for trouble in found if trouble is not None), None)


def store(
    verdicts: Verdicts,
    stored: Mapping[str, Manifest],
    generation: int,
    now: datetime,
    keep_generation: frozenset[str] = frozenset(),
) -> list[dict[str, Any]]:
    """Verdicts as conditions of the API: the transition time moves with the status only.

    Args:
        verdicts: By type.
        stored: By type, what is stored; types without a verdict stay as they are.
        generation: That the verdicts are about.
        now: An aware time.
        keep_generation: Types whose verdict is about the generation that is stored.
    """
    made = []
    for kind in CONDITIONS:
        before = stored.get(kind)
        verdict = verdicts.get(kind)
        if verdict is None:
            if before is not None:
                made.append(before)
            continue
        same = before is not None and before.get("status") == verdict.status
        about = before.get("observedGeneration") if before and kind in keep_generation else None
        made.append(
            {
                "type": kind,
                "status": verdict.status,
                "observedGeneration": generation if about is None else about,
                "lastTransitionTime": before["lastTransitionTime"]
                if same and before
                else text_of(now),
                "reason": verdict.reason,
                "message": verdict.message[:LONGEST_MESSAGE],
            }
        )
    return made
