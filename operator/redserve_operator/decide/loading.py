"""The checkpoint: is it where pods read it, may pods start, and which commit is it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from redserve_operator.decide import reasons
from redserve_operator.decide.census import drains_now
from redserve_operator.decide.objects import key_of, time_of
from redserve_operator.decide.pool_view import Trouble, trouble_of
from redserve_operator.decide.upkeep import condition_of

if TYPE_CHECKING:
    from datetime import datetime

    from redserve.cluster.facts import Manifest
    from redserve.spec.service import RedService
    from redserve_operator.decide.observed import LoaderFacts, Observed
    from redserve_operator.decide.reasons import Verdict

_POD_WAIT: Final = timedelta(seconds=60)
"""How long a new Job may be without a pod before something must be wrong."""
_REPORT_WAIT: Final = timedelta(seconds=30)
"""How long the pod of a finished Job may take to be seen."""


@dataclass(frozen=True, slots=True)
class Loading:
    """The state of the checkpoint.

    Attributes:
        may_start: Whether pods find it.
        verdict: For the condition ModelCached.
        revision: Commit that an unpinned revision was resolved to; empty when there is none.
        record: `status.model`; empty for nothing to remember.
        waits_for_report: The Job has finished and its pod was not seen yet: look again soon.
        trouble: What keeps the Job from its work, though it has not given up.
        again_at: When a Job without a pod is worth another look.
    """

    may_start: bool
    verdict: Verdict
    revision: str = ""
    record: Manifest = field(default_factory=dict)
    waits_for_report: bool = False
    trouble: Trouble | None = None
    again_at: datetime | None = None


def look_at_model(
    service: RedService, loader: Manifest | None, observed: Observed, now: datetime
) -> Loading:
    """How far the checkpoint is.

    Args:
        service: The manifest.
        loader: The Job as rendered; None when nothing is to be filled.
        observed: What is seen; `status.model` remembers a Job that has succeeded before.
        now: An aware time.
    """
    if loader is None:
        return Loading(may_start=True, verdict=_without_loader(service))
    name = loader["metadata"]["name"]
    facts = next((one for one in observed.loaders if one.job == name), None)
    stored = (observed.resource.get("status") or {}).get("model") or {}
    job = observed.children.get(key_of(loader))
    if stored.get("loader") == name:
        return _loaded_before(service, stored, job, facts)
    if job is None:
        return Loading(may_start=False, verdict=reasons.LOADING.says("the loader Job starts"))
    if failed := condition_of(job, "Failed"):
        return Loading(may_start=False, verdict=_failed(name, failed, facts))
    if complete := condition_of(job, "Complete"):
        return _just_loaded(service, name, job, complete, facts, now)
    return _in_progress(job, facts, now, drains=drains_now(observed.pods, now))


def _without_loader(service: RedService) -> Verdict:
    model = service.spec.model
    claim = model.cache.persistent_volume_claim if model.cache else None
    if model.scheme == "file":
        return reasons.IN_IMAGE.says(f"{model.uri} is a folder of the containers")
    if model.scheme == "pvc" or claim is not None:
        return reasons.VOLUME.says("the volume is filled already, says the manifest")
    return reasons.EPHEMERAL.says(f"each pod fetches {model.uri} when it starts")


def _loaded_before(
    service: RedService, stored: Manifest, job: Manifest | None, facts: LoaderFacts | None
) -> Loading:
    """The volume was filled; a Job that runs again or is missing does not hold pods back."""
    revision = str(stored.get("revision", ""))
    done = _done(service, stored["loader"], revision)
    if job is not None and (failed := condition_of(job, "Failed")):
        return replace(done, verdict=_failed(stored["loader"], failed, facts))
    return done


def _just_loaded(
    service: RedService,
    name: str,
    job: Manifest,
    complete: Manifest,
    facts: LoaderFacts | None,
    now: datetime,
) -> Loading:
    if facts is None:
        finished = time_of((job.get("status") or {}).get("completionTime"))
        finished = finished or time_of(complete.get("lastTransitionTime"))
        if finished is not None and now - finished < _REPORT_WAIT:
            waits = reasons.LOADING.says("the loader has finished; its report is awaited")
            return Loading(may_start=False, verdict=waits, waits_for_report=True)
    return _done(service, name, facts.report if facts else "")


def _done(service: RedService, name: str, revision: str) -> Loading:
    uri = service.spec.model.uri
    record = {"uri": uri, "loader": name, **({"revision": revision} if revision else {})}
    at = f" at {revision}" if revision else ""
    verdict = reasons.LOADED.says(f"{uri}{at} is in the volume")
    return Loading(may_start=True, verdict=verdict, revision=revision, record=record)


def _failed(name: str, failed: Manifest, facts: LoaderFacts | None) -> Verdict:
    why = (facts.report or facts.message) if facts else ""
    why = why or str(failed.get("message") or failed.get("reason") or "it failed")
    return reasons.MODEL_LOAD_FAILED.says(f"{why.rstrip('.')}; delete Job {name} to try again")


def _in_progress(
    job: Manifest, facts: LoaderFacts | None, now: datetime, *, drains: bool
) -> Loading:
    name = job["metadata"]["name"]
    if facts is None:
        return _without_pod(job, now)
    why = facts.message or facts.report
    told = f"Job {name}: {why}" if why else f"Job {name} fills the volume"
    trouble = None
    # A pod that has said why it ended is followed by another one.
    if facts.problem and not facts.report:
        trouble = trouble_of(facts.problem, told, drains=drains)
    return Loading(may_start=False, verdict=reasons.LOADING.says(told), trouble=trouble)


def _without_pod(job: Manifest, now: datetime) -> Loading:
    name, status = job["metadata"]["name"], job.get("status") or {}
    if (job.get("spec") or {}).get("suspend"):
        waits = reasons.LOADING.says(f"Job {name} is suspended")
        return Loading(may_start=False, verdict=waits)
    if status.get("active") or status.get("failed"):
        return Loading(may_start=False, verdict=reasons.LOADING.says(f"Job {name} is at work"))
    made = time_of(job["metadata"].get("creationTimestamp"))
    again_at = made + _POD_WAIT if made is not None else None
    if again_at is None or now < again_at:
        starts = reasons.LOADING.says(f"Job {name} starts")
        return Loading(may_start=False, verdict=starts, again_at=again_at)
    told = f"Job {name} has no pod; `kubectl describe job {name}` says why"
    return Loading(
        may_start=False,
        verdict=reasons.LOADING.says(told),
        trouble=Trouble(reasons.PODS_REFUSED, told),
    )
