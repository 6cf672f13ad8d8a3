"""One rendering: the manifest, what it depends on beside it, and the revision's name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from redserve.cluster import labels, names

if TYPE_CHECKING:
    from collections.abc import Mapping

    from redserve.cluster.facts import Context, Manifest
    from redserve.spec.placement import Role
    from redserve.spec.pool import PoolSpec
    from redserve.spec.service import RedService

NO_REVISION: Final = "00000000"
"""Stands for the revision while it is being computed."""


@dataclass(frozen=True, slots=True)
class Scope:
    """What every object of one rendering may look at.

    Attributes:
        service: The manifest.
        context: Everything beside it.
        revision: Label of what pods are made from; `NO_REVISION` while it is not known.
    """

    service: RedService
    context: Context
    revision: str = NO_REVISION

    @property
    def name(self) -> str:
        """Name of the service."""
        return self.service.name

    def pool(self, pool: Role) -> PoolSpec:
        """What the manifest says about a pool."""
        return pool_spec(self.service, pool)

    def shared_metadata(self, name: str, pool: Role | None = None) -> Manifest:
        """Metadata of an object that outlives revisions; of one pool if there is one."""
        of_pool = labels.pool_labels(self.name, pool) if pool else labels.service_labels(self.name)
        return self._metadata(name, of_pool)

    def monitoring_metadata(self, name: str) -> Manifest:
        """Metadata of an object that Prometheus finds by labels."""
        metadata = self.shared_metadata(name)
        asked = {**dict(self.context.watching.labels), **self.service.spec.monitoring.labels}
        # What the operator finds its objects by stays as it is.
        return {**metadata, "labels": {**asked, **metadata["labels"]}}

    def revision_metadata(self, pool: Role) -> Manifest:
        """Metadata of a workload, headless Service or ConfigMap of this revision."""
        name = names.revision_name(self.name, pool, self.revision)
        return self._metadata(name, labels.revision_labels(self.name, pool, self.revision))

    def _metadata(self, name: str, its_labels: Mapping[str, str]) -> Manifest:
        made: Manifest = {
            "name": name,
            "namespace": self.context.namespace,
            "labels": dict(its_labels),
        }
        owner = self.context.owner
        if owner is not None:
            # No blockOwnerDeletion: it would need rights on the RedService's finalizers.
            made["ownerReferences"] = [
                {
                    "apiVersion": self.service.api_version,
                    "kind": self.service.kind,
                    "name": owner.name,
                    "uid": owner.uid,
                    "controller": True,
                }
            ]
        return made


def pool_spec(service: RedService, pool: Role) -> PoolSpec:
    """What a manifest says about a pool."""
    spec = service.spec
    pools: Mapping[Role, PoolSpec] = {
        "encoder": spec.encoder,
        "llm": spec.llm,
        "router": spec.router,
    }
    return pools[pool]
