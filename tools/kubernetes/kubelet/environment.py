"""The environment of a container. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from redserve.spec.quantity import Quantity

if TYPE_CHECKING:
    from tools.kubernetes.async_api import JsonObject

_REFERENCE: Final = re.compile(r"\$\$|\$\(([A-Za-z_.-][A-Za-z0-9_.-]*)\)")
_IN_MAP: Final = re.compile(r"metadata\.(labels|annotations)\['(.+)'\]")

Data = Mapping[str, str]


class Missing(Exception):
    """Something that a container needs is not there (yet); the message says what."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a pod runs.

    Attributes:
        pod_ip: Address of the pod.
        host_ip: Address of the node.
        allocatable: What the node offers, for containers without limits.
    """

    pod_ip: str
    host_ip: str
    allocatable: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Sources:
    """Objects that variables come from, by name; None where there is no such object."""

    config_maps: Mapping[str, Data | None]
    secrets: Mapping[str, Data | None]


def expand(text: str, values: Mapping[str, str]) -> str:
    """`$(NAME)` becomes its value, `$$` a dollar; unknown names stay as they are."""

    def one(match: re.Match[str]) -> str:
        return "$" if match[1] is None else values.get(match[1], match[0])

    return _REFERENCE.sub(one, text)


def environment(
    container: JsonObject, pod: JsonObject, place: Place, sources: Sources, base: Mapping[str, str]
) -> dict[str, str]:
    """All variables of a container, above those of `base`.

    Raises:
        Missing: A ConfigMap, a Secret or a key is not there.
    """
    made = dict(base)
    for group in container.get("envFrom", []):
        prefix = group.get("prefix", "")
        for kind, known in (("configMapRef", sources.config_maps), ("secretRef", sources.secrets)):
            if reference := group.get(kind):
                data = known.get(reference["name"])
                if data is None and not reference.get("optional"):
                    raise Missing(f"{kind[:-3]} {reference['name']!r} not found")
                made.update({f"{prefix}{name}": value for name, value in (data or {}).items()})
    for variable in container.get("env", []):
        name = variable["name"]
        if (source := variable.get("valueFrom")) is None:
            made[name] = expand(variable.get("value", ""), made)
        elif (value := _value_from(source, container, pod, place, sources)) is not None:
            made[name] = value
    return made


def references(container: JsonObject) -> tuple[set[str], set[str]]:
    """Names of the ConfigMaps and Secrets that the variables of a container come from."""
    maps, secrets = set(), set()
    for group in container.get("envFrom", []):
        maps |= {group["configMapRef"]["name"]} if "configMapRef" in group else set()
        secrets |= {group["secretRef"]["name"]} if "secretRef" in group else set()
    for variable in container.get("env", []):
        source = variable.get("valueFrom", {})
        maps |= {source["configMapKeyRef"]["name"]} if "configMapKeyRef" in source else set()
        secrets |= {source["secretKeyRef"]["name"]} if "secretKeyRef" in source else set()
    return maps, secrets


def field_value(path: str, pod: JsonObject, place: Place) -> str:
    """What a `fieldRef` stands for.

    Raises:
        Missing: This kubelet does not know the field.
    """
    meta, spec = pod["metadata"], pod["spec"]
    if found := _IN_MAP.fullmatch(path):
        return str(meta.get(found[1], {}).get(found[2], ""))
    if path in ("metadata.labels", "metadata.annotations"):
        items = sorted(meta.get(path.split(".")[1], {}).items())
        return "\n".join(f'{name}="{value}"' for name, value in items)
    values = {
        "metadata.name": meta["name"],
        "metadata.namespace": meta["namespace"],
        "metadata.uid": meta["uid"],
        "spec.nodeName": spec.get("nodeName", ""),
        "spec.serviceAccountName": spec.get("serviceAccountName", ""),
        "status.podIP": place.pod_ip,
        "status.podIPs": place.pod_ip,
        "status.hostIP": place.host_ip,
        "status.hostIPs": place.host_ip,
    }
    if path not in values:
        raise Missing(f"fieldPath {path} is unknown here")
    return str(values[path])


def resource_value(reference: JsonObject, container: JsonObject, place: Place) -> str:
    """What a `resourceFieldRef` stands for: whole multiples of its divisor, rounded up."""
    kind, _, name = reference["resource"].partition(".")
    resources: dict[str, Any] = container.get("resources", {})
    amount = resources.get(kind, {}).get(name) or place.allocatable.get(name, "0")
    divisor = Quantity.parse(reference.get("divisor") or "1").value or 1
    return str(math.ceil(Quantity.parse(amount).value / divisor))


def _value_from(
    source: JsonObject, container: JsonObject, pod: JsonObject, place: Place, sources: Sources
) -> str | None:
    if reference := source.get("fieldRef"):
        return field_value(reference["fieldPath"], pod, place)
    if reference := source.get("resourceFieldRef"):
        return resource_value(reference, container, place)
    for kind, known in (
        ("configMapKeyRef", sources.config_maps),
        ("secretKeyRef", sources.secrets),
    ):
        if reference := source.get(kind):
            value = (known.get(reference["name"]) or {}).get(reference["key"])
            if value is None and not reference.get("optional"):
                where = f"{kind[:-6]} {reference['name']!r}"
                raise Missing(f"couldn't find key {reference['key']} in {where}")
            return value
    raise Missing(f"valueFrom of an unknown kind: {sorted(source)}")
