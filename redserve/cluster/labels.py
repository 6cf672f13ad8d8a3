"""Labels and annotations: how everything that belongs together is found again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from redserve.spec.placement import Role

NAME: Final = "app.kubernetes.io/name"
INSTANCE: Final = "app.kubernetes.io/instance"
COMPONENT: Final = "app.kubernetes.io/component"
PART_OF: Final = "app.kubernetes.io/part-of"
MANAGED_BY: Final = "app.kubernetes.io/managed-by"
SERVICE: Final = "redserve.dev/service"
"""Name of the RedService; on every child and every pod."""
POOL: Final = "redserve.dev/pool"
"""encoder, llm or router; on what belongs to one pool."""
REVISION: Final = "redserve.dev/revision"
"""Hash of what all pods of a service are made from; on workloads, pods, headless Services and
ConfigMaps. Routers pair encoders and engines of their own revision only."""

RULES: Final = "redserve.dev/prometheus-rules"
"""On ConfigMaps whose data are rule files, with the value "true"."""

MANAGER: Final = "redserve-operator"
"""Value of MANAGED_BY, and field manager of every apply."""
APPLIED_HASH: Final = "redserve.dev/applied-hash"
"""Annotation: hash of the object as it was last applied, so that a restart need not apply again."""


def service_labels(service: str) -> dict[str, str]:
    """Of everything that belongs to a service."""
    return {
        NAME: "redserve",
        INSTANCE: service,
        PART_OF: "redserve",
        MANAGED_BY: MANAGER,
        SERVICE: service,
    }


def pool_labels(service: str, pool: Role) -> dict[str, str]:
    """Of everything that belongs to one pool."""
    return {**service_labels(service), COMPONENT: pool, POOL: pool}


def revision_labels(service: str, pool: Role, revision: str) -> dict[str, str]:
    """Of what belongs to one pool in one revision."""
    return {**pool_labels(service, pool), REVISION: revision}


def pool_selector(service: str, pool: Role) -> dict[str, str]:
    """Selects the pods of a pool in every revision."""
    return {SERVICE: service, POOL: pool}


def revision_selector(service: str, pool: Role, revision: str) -> dict[str, str]:
    """Selects the pods of a pool in one revision."""
    return {**pool_selector(service, pool), REVISION: revision}
