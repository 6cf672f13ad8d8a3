"""Objects without what nobody here reads: a cache of thousands must stay small."""

from __future__ import annotations

from sys import intern
from typing import TYPE_CHECKING, Any, Final

from redserve_operator.kube.kinds import REDPOOL

if TYPE_CHECKING:
    from redserve.cluster.facts import Manifest

_LONGEST_SHARED: Final = 64
"""Longer strings hardly ever occur twice."""
_LAST_APPLIED: Final = "kubectl.kubernetes.io/last-applied-configuration"


def slim(kind: str, manifest: Manifest) -> Manifest:
    """A copy whose keys and short strings are shared with every other copy.

    managedFields stay on RedPools only: there they say who owns `replicas`. A copy of the manifest
    that kubectl keeps in an annotation is dropped. Nothing else is.
    """
    metadata = dict(manifest.get("metadata") or {})
    if kind != REDPOOL.name:
        metadata.pop("managedFields", None)
    annotations = metadata.get("annotations")
    if annotations and _LAST_APPLIED in annotations:
        metadata["annotations"] = {k: v for k, v in annotations.items() if k != _LAST_APPLIED}
    shared: Manifest = _shared({**manifest, "metadata": metadata})
    return shared


def _shared(value: Any) -> Any:
    if isinstance(value, dict):
        return {intern(key): _shared(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_shared(entry) for entry in value]
    if type(value) is str and len(value) <= _LONGEST_SHARED:
        return intern(value)
    return value


def same_content(one: Manifest, other: Manifest) -> bool:
    """Whether two versions of an object say the same, apart from being versions."""
    if one.keys() != other.keys():
        return False
    for key, value in one.items():
        if key != "metadata" and value != other[key]:
            return False
    return _lasting(one) == _lasting(other)


def _lasting(manifest: Manifest) -> dict[str, Any]:
    metadata: dict[str, Any] = manifest["metadata"]
    return {key: value for key, value in metadata.items() if key != "resourceVersion"}
