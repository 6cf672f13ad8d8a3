"""What a `podTemplate` may not take from the serving container: how it is found and told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from redserve.cluster.container import main_container
from redserve.cluster.environment import RESERVED
from redserve.cluster.facts import Refusal
from redserve.cluster.names import MAIN_CONTAINER
from redserve.spec.pool import SETTINGS_PREFIX

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from redserve.cluster.scope import Scope
    from redserve.spec.placement import Role

REASON: Final = "InvalidPodTemplate"


def container_refusals(
    scope: Scope, pool: Role, merged: Mapping[str, Any], patch: Mapping[str, Any]
) -> Iterator[Refusal]:
    """What is missing in the merged container `main`, or is not as it was made.

    Args:
        scope: What is rendered.
        pool: Whose pods.
        merged: The container with the `podTemplate` merged over it.
        patch: The `podTemplate`, to say where.
    """
    made = main_container(scope, pool)
    whose = _Place(f"spec.{pool}.podTemplate.spec.containers", patch)
    yield from _written_by_hand(whose)
    if merged.get("command") != made["command"]:
        yield whose.refusal("command", "the command is REDServe's; leave it out, or set `image`")
    if merged.get("args") != made.get("args"):
        yield whose.refusal("args", f"leave it out, and write spec.{pool}.extraArgs")
    if made["envFrom"][0] not in items(merged.get("envFrom")):
        yield whose.refusal(
            "envFrom",
            f"it would replace the pod's settings; leave it out, and write spec.{pool}.env with "
            "valueFrom",
        )
    ours = [one for one in made["env"] if _is_ours(one["name"])]
    kept = items(merged.get("env"))
    lost = [one["name"] for one in ours if one not in kept]
    if lost:
        yield whose.refusal(
            "env", f"{', '.join(lost)} would be lost or changed; add variables by their name only"
        )
    ports = [(port.get("name"), port.get("containerPort")) for port in items(merged.get("ports"))]
    for port in made["ports"]:
        if (port["name"], port["containerPort"]) not in ports:
            yield whose.refusal(
                "ports",
                f"port {port['containerPort']} must stay, named {port['name']!r}: Services, probes "
                "and policies find it so; add other ports beside it",
            )


def items(raw: object) -> list[Any]:
    """A list as it is; nothing of anything else, which the API server refuses."""
    return raw if isinstance(raw, list) else []


class _Place:
    """Where a `podTemplate` speaks of the serving container."""

    def __init__(self, field: str, patch: Mapping[str, Any]) -> None:
        spec = patch.get("spec")
        containers = items(spec.get("containers") if isinstance(spec, dict) else None)
        self.field = field
        self.container: Mapping[str, Any] = {}
        for number, one in enumerate(containers):
            if isinstance(one, dict) and one.get("name") == MAIN_CONTAINER:
                self.field, self.container = f"{field}[{number}]", one

    def refusal(self, part: str, why: str) -> Refusal:
        """A refusal of a part of the container; of the whole if the part is not named there."""
        field = f"{self.field}.{part}" if part in self.container else self.field
        return Refusal(REASON, field, why if part in self.container else f"{part}: {why}")


def _written_by_hand(whose: _Place) -> Iterator[Refusal]:
    for position, variable in enumerate(items(whose.container.get("env"))):
        name = str(variable.get("name", "")) if isinstance(variable, dict) else ""
        if _is_ours(name):
            yield Refusal(
                REASON,
                f"{whose.field}.env[{position}].name",
                f"{name} is written by REDServe; set the manifest's field instead",
            )


def _is_ours(name: str) -> bool:
    return name.startswith(SETTINGS_PREFIX) or name in RESERVED
