"""Volumes and variables that others gave another source.

They may have one only. An apply puts ours beside that of others and is refused, so theirs has to be
taken away by a patch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from redserve_operator.decide.objects import uid_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from redserve.cluster.facts import Manifest

_CONTAINERS: Final = ("containers", "initContainers")


def without_other_sources(desired: Manifest, have: Manifest) -> Manifest | None:
    """A strategic merge patch for a Deployment that leaves our sources only; None for no need.

    Objects of other kinds cannot be patched so, or have no pods.
    """
    if desired["kind"] != "Deployment":
        return None
    want_pod, have_pod = _pod(desired), _pod(have)
    patch: Manifest = {}
    if volumes := _entries(want_pod.get("volumes"), have_pod.get("volumes")):
        patch["volumes"] = volumes
    for kind in _CONTAINERS:
        there = _by_name(have_pod.get(kind))
        containers = [
            {"name": one["name"], "env": env}
            for one in want_pod.get(kind) or ()
            if (env := _entries(one.get("env"), there.get(one["name"], {}).get("env")))
        ]
        if containers:
            patch[kind] = containers
    if not patch:
        return None
    metadata = {key: have["metadata"][key] for key in ("name", "namespace")}
    return {
        "apiVersion": desired["apiVersion"],
        "kind": desired["kind"],
        "metadata": {**metadata, "uid": uid_of(have)},
        "spec": {"template": {"spec": patch}},
    }


def _pod(deployment: Manifest) -> Manifest:
    pod: Manifest = (deployment["spec"].get("template") or {}).get("spec") or {}
    return pod


def _entries(
    want: Sequence[Mapping[str, Any]] | None, have: Sequence[Mapping[str, Any]] | None
) -> list[dict[str, Any]]:
    """Our entries that have more than we gave them, with null for that."""
    there = _by_name(have)
    return [
        {**one, **dict.fromkeys(foreign)}
        for one in want or ()
        if (foreign := there.get(one["name"], {}).keys() - one.keys())
    ]


def _by_name(entries: Sequence[Mapping[str, Any]] | None) -> dict[str, Mapping[str, Any]]:
    return {one["name"]: one for one in entries or ()}
