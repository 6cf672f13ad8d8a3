"""From EndpointSlices to members of a pool. Pure.

Who gets new work (`Member.takes_work`) is whoever is neither terminating nor unready:

| conditions | meaning | member |
|---|---|---|
| serving, not terminating | probes say ready | takes work |
| not serving | starts, or its probe fails | only finishes |
| terminating | its pod is being deleted | only finishes |
| not listed | gone, or going | no member: finishes what it has |

`ready` is not looked at where `serving` is there: a Service may publish addresses that are not
ready, and then calls all of them ready.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from redserve.routing import Member, merge_members

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

SERVICE_LABEL: Final = "kubernetes.io/service-name"
PORT_NAME: Final = "grpc"

Object = dict[str, Any]
"""A Kubernetes object as JSON has it."""


@dataclass(frozen=True, slots=True)
class EndpointSlice:
    """A part of the endpoints of one Service.

    Attributes:
        name: Of the slice.
        service: Name of the Service.
        address_type: IPv4, IPv6 or FQDN.
        members: The replicas that it lists.
    """

    name: str
    service: str
    address_type: str
    members: tuple[Member, ...]


def slice_from_object(slice_object: Mapping[str, Any]) -> EndpointSlice:
    """An EndpointSlice of discovery.k8s.io/v1; without a port called `grpc` it has no members."""
    metadata = slice_object.get("metadata") or {}
    labels = metadata.get("labels") or {}
    ports = (port for port in slice_object.get("ports") or () if port.get("name") == PORT_NAME)
    port = next((int(port["port"]) for port in ports if port.get("port")), 0)
    endpoints = slice_object.get("endpoints") or () if port else ()
    return EndpointSlice(
        name=metadata.get("name", ""),
        service=labels.get(SERVICE_LABEL, ""),
        address_type=slice_object.get("addressType", ""),
        members=tuple(
            # All addresses of an endpoint lead to the same pod, and the first one is to be used.
            Member(_join(endpoint["addresses"][0], port), _takes_work(endpoint))
            for endpoint in endpoints
            if endpoint.get("addresses")
        ),
    )


def members_of(slices: Iterable[EndpointSlice], service: str) -> tuple[Member, ...]:
    """The replicas of a Service, each of them once, by address.

    A Service of two address families lists every pod in both: then IPv4 counts.
    """
    own = [part for part in slices if part.service == service]
    types = {part.address_type for part in own} & {"IPv4", "IPv6"}
    chosen = min(types, default="")
    listed = (member for part in own if part.address_type == chosen for member in part.members)
    return merge_members(sorted(listed, key=lambda member: member.address))


def _takes_work(endpoint: Mapping[str, Any]) -> bool:
    conditions = endpoint.get("conditions") or {}
    if conditions.get("terminating"):
        return False
    serving = conditions.get("serving")
    if serving is None:
        serving = conditions.get("ready")
    return serving is not False  # unknown is to be taken as ready


def _join(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class SliceStore:
    """The slices as last told; what a watch says is applied to what a list said."""

    def __init__(self) -> None:
        self._slices: dict[str, EndpointSlice] = {}

    def replace(self, objects: Iterable[Mapping[str, Any]]) -> None:
        """These are all of them."""
        slices = map(slice_from_object, objects)
        self._slices = {part.name: part for part in slices}

    def put(self, slice_object: Mapping[str, Any]) -> None:
        """This one is new or has changed."""
        part = slice_from_object(slice_object)
        self._slices[part.name] = part

    def remove(self, slice_object: Mapping[str, Any]) -> None:
        """This one is gone."""
        self._slices.pop(slice_from_object(slice_object).name, None)

    def members(self, service: str) -> tuple[Member, ...]:
        """Of one Service; see `members_of`."""
        return members_of(self._slices.values(), service)
