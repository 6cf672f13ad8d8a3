"""`podTemplate`s that would break what pods are held together by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from redserve.cluster import labels
from redserve.cluster.check_container import REASON, container_refusals, items
from redserve.cluster.check_names import name_refusals
from redserve.cluster.facts import Context, Images, Refusal
from redserve.cluster.names import MAIN_CONTAINER
from redserve.cluster.pod_fields import MINOR
from redserve.cluster.pod_template import merged_template
from redserve.cluster.scope import Scope
from redserve.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from redserve.cluster.facts import ClusterFacts
    from redserve.spec.placement import Role
    from redserve.spec.service import RedService


def pod_template_refusals(
    service: RedService, pool: Role, facts: ClusterFacts
) -> Iterator[Refusal]:
    """What is wrong with the `podTemplate` of a pool, as far as Kubernetes does not see it."""
    field = f"spec.{pool}.podTemplate"
    # Nothing that is looked at here depends on where the service is or which images it has.
    scope = Scope(service, Context("default", Images("router", "encoder", "llm")))
    patch = scope.pool(pool).pod_template or {}
    # A cluster that is newer than the table knows more; its dry run tells.
    unknown = tuple(name_refusals(patch, field)) if facts.minor <= MINOR else ()
    if unknown:
        yield from unknown
        return
    try:
        merged = merged_template(scope, pool)
    except ConfigError as error:
        yield Refusal(REASON, error.field or field, error.message)
        return
    containers = items((merged.get("spec") or {}).get("containers"))
    main = next((one for one in containers if one["name"] == MAIN_CONTAINER), None)
    if main is None:
        yield Refusal(
            REASON,
            f"{field}.spec.containers",
            f"the container {MAIN_CONTAINER!r} is what serves; it must stay",
        )
        return
    yield from _label_refusals(scope, pool, merged, field)
    yield from _life_refusals(patch, field)
    yield from container_refusals(scope, pool, main, patch)


def _life_refusals(patch: Mapping[str, Any], field: str) -> Iterator[Refusal]:
    """What a workload's pods may not say, though a pod by itself may."""
    spec = patch.get("spec") or {}
    if spec.get("restartPolicy") not in (None, "", "Always"):
        why = "pods that serve are always started again; leave it out"
        yield Refusal(REASON, f"{field}.spec.restartPolicy", why)
    if spec.get("activeDeadlineSeconds") is not None:
        why = "pods that serve have no end; leave it out"
        yield Refusal(REASON, f"{field}.spec.activeDeadlineSeconds", why)
    if spec.get("serviceAccount") is not None:
        why = "is an old name; write serviceAccountName"
        yield Refusal(REASON, f"{field}.spec.serviceAccount", why)


def _label_refusals(
    scope: Scope, pool: Role, merged: Mapping[str, Any], field: str
) -> Iterator[Refusal]:
    found = merged.get("metadata", {}).get("labels", {})
    for name, value in labels.revision_labels(scope.name, pool, scope.revision).items():
        if found.get(name) != value:
            yield Refusal(
                REASON,
                f"{field}.metadata.labels",
                f"{name} is how pods are found; choose another label",
            )
