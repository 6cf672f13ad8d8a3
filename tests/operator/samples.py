"""Objects for tests of the cache and the workers."""

from __future__ import annotations

from typing import Any

from redserve.cluster import labels

Manifest = dict[str, Any]


def service(name: str = "demo", version: int = 1, **spec: Any) -> Manifest:
    return {
        "apiVersion": "redserve.dev/v1alpha1",
        "kind": "RedService",
        "metadata": {
            "name": name,
            "namespace": "ns",
            "uid": f"uid-of-{name}",
            "resourceVersion": str(version),
        },
        "spec": spec,
    }


def child(
    kind: str, name: str, version: int = 1, *, of: str = "demo", uid: str = "", **content: Any
) -> Manifest:
    return {
        "kind": kind,
        "metadata": {
            "name": name,
            "namespace": "ns",
            "uid": uid or f"uid-of-{name}",
            "resourceVersion": str(version),
            "labels": {labels.SERVICE: of},
            "ownerReferences": [{"kind": "RedService", "name": of, "controller": True}],
        },
        **content,
    }


def pod(name: str = "demo-llm-0", version: int = 1, **status: Any) -> Manifest:
    made = child("Pod", name, version, status=status)
    made["metadata"]["labels"] |= {labels.POOL: "llm", labels.REVISION: "aaaa1111"}
    made["metadata"]["creationTimestamp"] = "2026-11-28T03:00:00Z"
    made["metadata"]["ownerReferences"] = [{"kind": "ReplicaSet", "controller": True}]
    return made
