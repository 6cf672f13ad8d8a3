"""Who owns the size of a pool, and what it is: the manifest, or whoever writes the RedPool."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from redserve.cluster import labels
from redserve_operator.decide.amended import is_known
from redserve_operator.decide.drift import drifted
from redserve_operator.decide.objects import (
    controller_of,
    is_going,
    key_of,
    stamp_of,
    stamped,
    uid_of,
)
from redserve_operator.decide.plan import Apply, ApplyStatus, Create, Delete

if TYPE_CHECKING:
    from collections.abc import Mapping

    from redserve.cluster.facts import Manifest
    from redserve.spec.placement import Role
    from redserve.spec.pool import PoolSpec
    from redserve_operator.decide.observed import Amended, ObjectKey
    from redserve_operator.decide.plan import Action

SEED_MANAGER: Final = "redserve-seed"
"""Field manager of sizes that others go on writing."""


@dataclass(frozen=True, slots=True)
class Size:
    """How large a pool is to be.

    Attributes:
        wanted: Replicas that the RedPool, or the manifest, asks for, within its bounds.
        least: Replicas that must be ready before the pool counts as ready when it is being scaled;
            equal to `wanted` when the size is fixed.
        is_scaled: Whether others own the size.
        seed: What a RedPool of a pool that is scaled begins with.
        note: For people: what was asked for, when the bounds do not allow it; else empty.
    """

    wanted: int
    least: int
    is_scaled: bool = False
    seed: int = 1
    note: str = ""


def size_of(spec: PoolSpec, red_pool: Mapping[str, Any] | None, standing: int = 0) -> Size:
    """The size of a pool.

    Args:
        spec: The pool in the manifest.
        red_pool: None before there is one, or after somebody deleted it.
        standing: Size that the pool had; 0 when there is none. A RedPool that was deleted comes
            back with it: nobody asked for fewer replicas.
    """
    if spec.scaling is None:
        return Size(spec.num_replicas, spec.num_replicas)
    bounds = spec.scaling
    asked = _replicas(red_pool)
    seed = min(max(standing or _seed(spec), bounds.min_replicas), bounds.max_replicas)
    asked = seed if asked is None else asked
    wanted = min(max(asked, bounds.min_replicas), bounds.max_replicas)
    allowed = f"scaling allows {bounds.min_replicas} to {bounds.max_replicas}"
    return Size(
        wanted,
        min(wanted, max(1, bounds.min_replicas)),
        is_scaled=True,
        seed=seed,
        note=f"{asked} replicas are asked for, and {allowed}" if asked != wanted else "",
    )


def may_be_none(spec: PoolSpec) -> bool:
    """Whether the manifest lets the pool have no replica at all."""
    return (spec.scaling.min_replicas if spec.scaling else spec.replicas) == 0


def keep_red_pool(
    manifest: Manifest,
    spec: PoolSpec,
    children: Mapping[ObjectKey, Manifest],
    amended: Mapping[ObjectKey, Amended],
    seed: int = 1,
) -> Action | None:
    """The next write or deletion that a RedPool needs, or None.

    That of a RedService of the same name that is gone is not taken over: whoever seeded its size
    owns its owner reference too, so that an apply of ours would leave it two owners, which the API
    server refuses.

    One write a round: whether the operator may let go of `replicas` is read from the object's
    managedFields, never assumed of a write that was just sent.

    Args:
        manifest: As rendered, without `spec.replicas`.
        spec: The pool in the manifest.
        children: What there is.
        amended: How objects came back from our last write.
        seed: Size to begin with, as `Size.seed`.
    """
    have = children.get(key_of(manifest))
    if have is not None and is_going(have):
        return None
    if have is not None and controller_of(have) not in ("", controller_of(manifest)):
        return Delete(key_of(have), uid_of(have), "its service is gone")
    if spec.scaling is None:
        return _apply(_with_replicas(manifest, spec.num_replicas), have, amended)
    if have is None:
        return Create(_with_replicas(manifest, seed), SEED_MANAGER, "created")
    owners = replica_owners(have)
    if not owners - {labels.MANAGER}:
        # An apply without a field that nobody else owns drops it to the schema's default.
        present = _replicas(have)
        return Apply(
            _only_replicas(have, _seed(spec) if present is None else present),
            SEED_MANAGER,
            "handed over",
        )
    action = _apply(manifest, have, amended)
    if action is None and labels.MANAGER in owners:
        return Apply(stamped(manifest), labels.MANAGER, "handed over")
    return action


def replica_owners(red_pool: Mapping[str, Any]) -> set[str]:
    """Field managers that own `spec.replicas`, whichever way they wrote it."""
    entries = red_pool["metadata"].get("managedFields") or ()
    return {
        str(entry.get("manager", ""))
        for entry in entries
        if "f:replicas" in ((entry.get("fieldsV1") or {}).get("f:spec") or {})
    }


def red_pool_status(
    red_pool: Manifest, selector: Mapping[str, str], size: Size, present: int, ready: int
) -> ApplyStatus | None:
    """The write that a RedPool's status needs, or None.

    `replicas` never exceeds what is wanted: an autoscaler that finds its metric in bounds keeps
    this number, and the surge of a rollout must not become the new size.
    """
    replicas = min(present, size.wanted)
    status: Manifest = {
        "replicas": replicas,
        "readyReplicas": min(ready, replicas),
        "selector": ",".join(f"{key}={value}" for key, value in selector.items()),
        "observedGeneration": red_pool["metadata"].get("generation", 0),
    }
    stored = red_pool.get("status") or {}
    if not stored and not size.is_scaled and not present:
        return (
            None  # nobody waits for a first count of nothing; an autoscaler does for the selector
        )
    if is_going(red_pool) or all(stored.get(key) == value for key, value in status.items()):
        return None
    return ApplyStatus({**_identity(red_pool), "status": status}, labels.MANAGER, "counted")


def selector_of(service: str, pool: Role, *, one_pod_of_many: bool) -> dict[str, str]:
    """Selects one pod of each replica: averages over pods must be averages over replicas."""
    leader = {"leaderworkerset.sigs.k8s.io/worker-index": "0"} if one_pod_of_many else {}
    return {**labels.pool_selector(service, pool), **leader}


def _apply(
    manifest: Manifest, have: Manifest | None, amended: Mapping[ObjectKey, Amended]
) -> Apply | None:
    desired = stamped(manifest)
    if have is None:
        return Apply(desired, labels.MANAGER, "created")
    if is_known(desired, have, amended):
        return None
    if stamp_of(have) != stamp_of(desired):
        return Apply(desired, labels.MANAGER, "changed")
    return Apply(desired, labels.MANAGER, "healed") if drifted(desired, have) else None


def _seed(spec: PoolSpec) -> int:
    return max(1, spec.num_replicas)


def _replicas(red_pool: Mapping[str, Any] | None) -> int | None:
    replicas = ((red_pool or {}).get("spec") or {}).get("replicas")
    return None if replicas is None else int(replicas)


def _with_replicas(manifest: Manifest, replicas: int) -> Manifest:
    return {**manifest, "spec": {**manifest["spec"], "replicas": replicas}}


def _only_replicas(have: Manifest, replicas: int) -> Manifest:
    return {**_identity(have), "spec": {"replicas": replicas}}


def _identity(have: Manifest) -> Manifest:
    """Names exactly this object: an apply that bears a uid never makes another one."""
    metadata = {key: have["metadata"][key] for key in ("name", "namespace")}
    return {
        "apiVersion": have["apiVersion"],
        "kind": have["kind"],
        "metadata": {**metadata, "uid": uid_of(have)} if uid_of(have) else metadata,
    }
