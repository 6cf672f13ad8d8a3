"""The whole of a service's status."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from redserve_operator.decide.events import conditions_by_type
from redserve_operator.decide.pool_view import LONGEST_MESSAGE
from redserve_operator.decide.reasons import CONDITIONS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from redserve.cluster.facts import Manifest
    from redserve.spec.service import RedService
    from redserve_operator.decide.pool_view import PoolView

_FIELDS: Final = (
    "observedGeneration",
    "conditions",
    "pools",
    "currentRevision",
    "updateRevision",
    "endpoints",
    "model",
)


def write_status(
    generation: int,
    conditions: Sequence[Manifest],
    pools: Iterable[Manifest],
    **others: Any,
) -> Manifest:
    """A status without empty fields.

    Args:
        generation: Generation of the manifest that was decided upon.
        conditions: As they are stored.
        pools: Entries for the pools.
        others: The other fields, by name.
    """
    status: Manifest = {
        "observedGeneration": generation,
        "pools": list(pools),
        **others,
    }
    return {**_filled(status), "conditions": list(conditions)}


def pool_entry(view: PoolView, note: str = "") -> Manifest:
    """What status says of a pool; `note` is its message when no pod is in trouble."""
    troubles = (view.trouble, view.old_trouble)
    message = next((trouble.message for trouble in troubles if trouble), note)
    return {
        "name": view.pool,
        "desired": view.desired,
        "replicas": view.present,
        "ready": view.tally.ready,
        "updated": view.tally.present,
        "readyText": f"{view.tally.ready}/{view.desired}",
        "message": message[:LONGEST_MESSAGE],
    }


def endpoints(service: RedService, namespace: str) -> dict[str, str]:
    """Where clients inside the cluster reach the service."""
    host = f"{service.name}.{namespace}.svc"
    router = service.spec.router
    http = f"http://{host}:{router.http.port}" if router.open_ai == "Enabled" else ""
    return {"grpc": f"{host}:{router.grpc.port}", "http": http}


def is_stored(status: Manifest, stored: Mapping[str, Any]) -> bool:
    """Whether nothing has to be written. Conditions of others are theirs."""
    ours = {field: stored.get(field) for field in _FIELDS}
    known = conditions_by_type(stored)
    conditions = [known[kind] for kind in CONDITIONS if kind in known]
    return {**_filled({**ours, "conditions": None}), "conditions": conditions} == status


def _filled(value: Any) -> Any:
    """Without texts, lists and maps that are empty: the schema's defaults bring them back."""
    if isinstance(value, dict):
        kept = {key: _filled(entry) for key, entry in value.items()}
        return {key: entry for key, entry in kept.items() if entry not in (None, "", {}, [])}
    if isinstance(value, list):
        return [_filled(entry) for entry in value]
    return value
