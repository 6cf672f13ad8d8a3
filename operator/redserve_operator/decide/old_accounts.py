"""Routers of old revisions keep their rights until they are gone, whichever account they have."""

from __future__ import annotations

from typing import TYPE_CHECKING

from redserve_operator.decide.accept import template_of

if TYPE_CHECKING:
    from redserve.cluster.facts import Manifest
    from redserve_operator.decide.census import Census


def with_old_routers(binding: Manifest, census: Census) -> Manifest:
    """The routers' RoleBinding with the accounts of all routers that there are."""
    (ours,) = binding["subjects"]
    names = {
        template_of(workload)["spec"].get("serviceAccountName") or "default"
        for workload in census.workloads["router"].values()
    }
    others = sorted(names - {ours["name"]})
    return {**binding, "subjects": [ours, *({**ours, "name": name} for name in others)]}
