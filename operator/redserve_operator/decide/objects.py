"""Small questions about objects of the API server."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from redserve.cluster import labels
from redserve_operator.decide.observed import ObjectKey

if TYPE_CHECKING:
    from collections.abc import Mapping

    from redserve.cluster.facts import Manifest

WORKLOADS: Final = frozenset({"Deployment", "LeaderWorkerSet"})
"""Kinds whose `spec.replicas` the rollout decides."""
_HASH_DIGITS: Final = 16
_MANAGERS: Final = "redserve-"
"""How the names of all field managers of this operator begin."""


def key_of(manifest: Mapping[str, Any]) -> ObjectKey:
    """Kind and name."""
    return ObjectKey(manifest["kind"], manifest["metadata"]["name"])


def uid_of(manifest: Mapping[str, Any]) -> str:
    """The uid that the API server gave it; empty for what is not there yet."""
    return str(manifest["metadata"].get("uid", ""))


def label_of(manifest: Mapping[str, Any], label: str) -> str:
    """Value of a label; empty when it has none."""
    return str((manifest["metadata"].get("labels") or {}).get(label, ""))


def is_going(manifest: Mapping[str, Any]) -> bool:
    """Whether it is being deleted: it must not be written any more."""
    return bool(manifest["metadata"].get("deletionTimestamp"))


def is_owned_by(manifest: Mapping[str, Any], uid: str) -> bool:
    """Whether the object with this uid controls it."""
    owners = manifest["metadata"].get("ownerReferences") or ()
    return any(owner.get("uid") == uid and owner.get("controller") for owner in owners)


def controller_of(manifest: Mapping[str, Any]) -> str:
    """The uid of the RedService that controls it; empty when none does."""
    owners = manifest["metadata"].get("ownerReferences") or ()
    of_ours = (o for o in owners if o.get("kind") == "RedService" and o.get("controller"))
    return next((str(owner.get("uid", "")) for owner in of_ours), "")


def is_made_for(manifest: Mapping[str, Any], service: str) -> bool:
    """Whether an object was made for the RedService of this name, by whichever operator.

    Its owner says so. Without an owner (somebody took it away, or the RedService was deleted
    without its children) our hash or a field manager of ours does.
    """
    owners = manifest["metadata"].get("ownerReferences") or ()
    if any(owner.get("kind") == "RedService" and owner.get("name") == service for owner in owners):
        return True
    if any(owner.get("kind") == "RedService" or owner.get("controller") for owner in owners):
        return False
    managers = (entry.get("manager") for entry in manifest["metadata"].get("managedFields") or ())
    return bool(stamp_of(manifest)) or any(
        str(manager).startswith(_MANAGERS) for manager in managers
    )


def time_of(text: str | None) -> datetime | None:
    """A time as the API server writes it."""
    return datetime.fromisoformat(text) if text else None


def text_of(time: datetime) -> str:
    """A time as the API server writes it: whole seconds, UTC."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def newest(*times: datetime | None) -> datetime | None:
    """The latest of those that are known."""
    return max((time for time in times if time is not None), default=None)


def stamped(manifest: Manifest) -> Manifest:
    """A copy that carries the hash of what we want of it, without the size of a workload."""
    annotations = {**(manifest["metadata"].get("annotations") or {})}
    annotations[labels.APPLIED_HASH] = _hash(manifest)
    return {**manifest, "metadata": {**manifest["metadata"], "annotations": annotations}}


def stamp_of(manifest: Mapping[str, Any]) -> str:
    """The hash that it carries."""
    return str((manifest["metadata"].get("annotations") or {}).get(labels.APPLIED_HASH, ""))


def without_replicas(manifest: Manifest) -> Manifest:
    """A copy without `spec.replicas`."""
    spec = {key: value for key, value in (manifest.get("spec") or {}).items() if key != "replicas"}
    return {**manifest, "spec": spec}


def _hash(manifest: Manifest) -> str:
    counted = without_replicas(manifest) if manifest["kind"] in WORKLOADS else manifest
    text = json.dumps(counted, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:_HASH_DIGITS]
