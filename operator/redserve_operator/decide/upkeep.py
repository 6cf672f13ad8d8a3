"""Which writes bring the service's objects to what is wanted, and which objects go."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from redserve.cluster import labels
from redserve_operator.decide.amended import is_known
from redserve_operator.decide.drift import drifted
from redserve_operator.decide.objects import (
    WORKLOADS,
    is_going,
    is_owned_by,
    key_of,
    label_of,
    stamp_of,
    stamped,
    uid_of,
    without_replicas,
)
from redserve_operator.decide.plan import Apply, Delete, Patch
from redserve_operator.decide.sources import without_other_sources

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Set

    from redserve.cluster.facts import Manifest
    from redserve_operator.decide.census import Census
    from redserve_operator.decide.observed import Amended, ObjectKey
    from redserve_operator.decide.plan import Action

ROLLOUT_MANAGER: Final = "redserve-rollout"
"""Field manager of `spec.replicas` of old revisions' workloads: what else is in them was rendered
from a manifest that is gone, so a whole apply is not possible."""

_FIXED: Final[Mapping[str, tuple[str, ...]]] = {
    "ConfigMap": ("data", "binaryData"),
    "Job": ("spec",),
    "RoleBinding": ("roleRef",),
}
"""What the API server never lets change, of ConfigMaps if they are immutable: then the object is
made anew."""
_BOUNDS: Final = ("maxUnavailable", "minAvailable")
_NEEDED_BY_PODS: Final = frozenset({"Role", "RoleBinding", "ServiceAccount"})
"""What pods of an old revision may still use: it goes when they are gone."""
_MADE: Final = _NEEDED_BY_PODS | frozenset(
    {
        "ConfigMap",
        "Deployment",
        "Job",
        "LeaderWorkerSet",
        "NetworkPolicy",
        "PodDisruptionBudget",
        "PodMonitor",
        "PrometheusRule",
        "RedPool",
        "Service",
    }
)
"""Kinds that are made for a service. Nothing else is ever deleted, whatever it carries."""


def keep(
    manifest: Manifest,
    children: Mapping[ObjectKey, Manifest],
    amended: Mapping[ObjectKey, Amended],
) -> Action | None:
    """The write that an object needs, or None.

    An object that is being deleted needs none: it is made anew when it is gone. One that is as an
    admission made it of our last write needs none either.
    """
    desired = stamped(manifest)
    have = children.get(key_of(desired))
    if have is None:
        return Apply(desired, labels.MANAGER, "created")
    if is_going(have) or is_done(have):
        return None
    same = stamp_of(have) == stamp_of(desired)
    is_open = have["kind"] == "ConfigMap" and not have.get("immutable")
    fixed = () if is_open else _FIXED.get(have["kind"], ())
    if same and not drifted(desired, have):
        return None
    # To try again what can only be made anew would cost pods their settings, or a download.
    if is_known(desired, have, amended, for_ever=bool(fixed)):
        return None
    if any(drifted({field: desired.get(field)}, have) for field in fixed):
        return Delete(key_of(have), uid_of(have), "replaced")
    if patch := without_other_sources(desired, have):
        return Patch(desired, patch, labels.MANAGER, "healed")
    desired = without_other_bound(desired, have)
    if not same:
        return Apply(desired, labels.MANAGER, "changed")
    resized = have["kind"] in WORKLOADS and not drifted(without_replicas(desired), have)
    return Apply(desired, labels.MANAGER, "scaled" if resized else "healed")


def without_other_bound(desired: Manifest, have: Manifest) -> Manifest:
    """What to write so that a PodDisruptionBudget loses a bound that others gave it.

    It may have one only, and an apply takes away what is others' only where it says null.
    """
    if desired["kind"] != "PodDisruptionBudget":
        return desired
    spec = desired["spec"]
    foreign = [one for one in _BOUNDS if one not in spec and one in (have.get("spec") or {})]
    return {**desired, "spec": {**spec, **dict.fromkeys(foreign)}} if foreign else desired


def resize(
    workload: Manifest, replicas: int, amended: Mapping[ObjectKey, Amended]
) -> Action | None:
    """The write that brings an old revision's workload to a size, or None."""
    if is_going(workload) or workload["spec"].get("replicas", 1) == replicas:
        return None
    metadata = workload["metadata"]
    manifest: Manifest = {
        "apiVersion": workload["apiVersion"],
        "kind": workload["kind"],
        "metadata": {key: metadata[key] for key in ("name", "namespace", "uid")},
        "spec": {"replicas": replicas},
    }
    if is_known(manifest, workload, amended):
        return None
    return Apply(manifest, ROLLOUT_MANAGER, "scaled")


def leftovers(
    children: Mapping[ObjectKey, Manifest],
    wanted: Set[ObjectKey],
    uid: str,
    census: Census,
    update: str,
) -> Iterator[Delete]:
    """Deletions of what nobody needs any more, workloads first.

    Args:
        children: What there is.
        wanted: What stays.
        uid: Of the RedService; what it does not own is not touched.
        census: Pods and sizes as they are.
        update: Revision that stays.
    """
    only_one_left = all(
        census.tally(pool, revision).is_gone
        for pool, revisions in census.tallies.items()
        for revision in revisions
        if revision != update
    )
    for key in sorted(children, key=lambda key: (key.kind not in WORKLOADS, key)):
        child = children[key]
        if key in wanted or key.kind not in _MADE or is_going(child):
            continue
        if not is_owned_by(child, uid):
            continue
        revision = label_of(child, labels.REVISION)
        if revision:
            pool = label_of(child, labels.POOL)
            tally = census.tallies.get(pool, {}).get(revision)  # type: ignore[call-overload]
            if revision != update and (tally is None or tally.is_gone):
                yield Delete(key, uid_of(child), "rolled out")
        elif only_one_left or key.kind not in _NEEDED_BY_PODS:
            yield Delete(key, uid_of(child), "not wanted")


def is_done(child: Manifest) -> bool:
    """Whether it is a Job that has succeeded: its work is not done again for a new image."""
    return child["kind"] == "Job" and condition_of(child, "Complete") is not None


def condition_of(child: Manifest, condition: str) -> Manifest | None:
    """A condition of a child that is True."""
    conditions = (child.get("status") or {}).get("conditions") or ()
    for one in conditions:
        if one.get("type") == condition and one.get("status") == "True":
            return dict(one)
    return None
