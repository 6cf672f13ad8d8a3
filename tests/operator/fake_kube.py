"""An API server in memory, as far as `KubeClient` knows one: versions, uids, conflicts."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from redserve_operator.kube.client import Listed, Listing
from redserve_operator.kube.errors import Conflict, Forbidden, NotFound
from redserve_operator.kube.kinds import kind_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from redserve_operator.kube.kinds import Kind

Manifest = dict[str, Any]


class FakeKube:
    """Stores what it is given; `refuse` maps (verb, kind) to errors that are raised instead."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str, str], Manifest] = {}
        self.calls: list[tuple[str, str, str]] = []
        self.refuse: dict[tuple[str, str], Exception] = {}
        self.closed: set[str] = set()
        """Namespaces in which nothing may be listed."""
        self.version = 0
        self.patches: list[Manifest] = []

    def stored(self, kind: str, name: str, namespace: str = "ns") -> Manifest:
        return copy.deepcopy(self.objects[kind, namespace, name])

    def put(self, manifest: Manifest) -> Manifest:
        """What someone else does to the cluster."""
        metadata = manifest["metadata"]
        place = (manifest["kind"], metadata["namespace"], metadata["name"])
        old = self.objects.get(place)
        self.version += 1
        given = {
            "uid": old["metadata"]["uid"] if old else f"uid-{self.version}",
            "resourceVersion": str(self.version),
        }
        self.objects[place] = {**copy.deepcopy(manifest), "metadata": {**metadata, **given}}
        return copy.deepcopy(self.objects[place])

    async def apply(self, manifest: Manifest, manager: str) -> Manifest:
        self._called("apply", manifest)
        return self.put(manifest)

    async def patch(self, patch: Manifest, manager: str) -> Manifest:
        self._called("patch", patch)
        self.patches.append(patch)
        return self.put(self.stored(patch["kind"], patch["metadata"]["name"]))

    async def apply_status(self, manifest: Manifest, manager: str) -> Manifest:
        self._called("apply_status", manifest)
        old = self.objects.get(_place(manifest))
        if old is None:
            raise NotFound("no such object", status=404)
        if manifest["metadata"].get("uid") not in (None, old["metadata"]["uid"]):
            raise Conflict("another uid", status=409)
        return self.put({**old, "status": manifest["status"]})

    async def create(self, manifest: Manifest, manager: str) -> Manifest:
        self._called("create", manifest)
        if _place(manifest) in self.objects:
            raise Conflict("it exists", status=409)
        return self.put(manifest)

    async def dry_run(self, manifest: Manifest, manager: str) -> Manifest:
        self._called("dry_run", manifest)
        return manifest

    async def replace(self, manifest: Manifest) -> Manifest:
        self._called("replace", manifest)
        old = self.objects.get(_place(manifest))
        if old is None:
            raise NotFound("no such object", status=404)
        if manifest["metadata"]["resourceVersion"] != old["metadata"]["resourceVersion"]:
            raise Conflict("it has changed", status=409)
        return self.put(manifest)

    async def delete(self, kind: Kind, namespace: str, name: str, uid: str) -> Manifest:
        self._refuse("delete", kind.name, name)
        old = self.objects.get((kind.name, namespace, name))
        if old is None:
            raise NotFound("no such object", status=404)
        if old["metadata"]["uid"] != uid:
            raise Conflict("another uid", status=409)
        if old["metadata"].get("finalizers"):
            gone_at = {"deletionTimestamp": "2026-11-28T03:00:00Z"}
            return self.put({**old, "metadata": {**old["metadata"], **gone_at}})
        del self.objects[kind.name, namespace, name]
        return {"kind": "Status", "metadata": {}, "status": "Success"}

    async def get(self, kind: Kind, namespace: str, name: str) -> Manifest:
        self._refuse("get", kind.name, name)
        try:
            return self.stored(kind.name, name, namespace)
        except KeyError:
            raise NotFound("no such object", status=404) from None

    async def list_metadata(
        self, kind: Kind, namespace: str | None, label_selector: str
    ) -> Listing:
        self._refuse("list", kind.name, "", namespace)
        found = [
            Listed(place[1], place[2], one["metadata"]["uid"], _version(one))
            for place, one in self.objects.items()
            if place[0] == kind.name and namespace in (None, place[1])
            if _selects(label_selector, one["metadata"].get("labels") or {})
        ]
        return Listing(self.version, tuple(found))

    async def try_list(self, kind: Kind, namespace: str | None) -> None:
        await self.list_metadata(kind, namespace, "")

    async def server_version(self) -> Manifest:
        return {"major": "1", "minor": "34+"}

    async def served_kinds(self, api_version: str) -> frozenset[str]:
        return frozenset({"PodMonitor"} if "monitoring" in api_version else ())

    def _called(self, verb: str, manifest: Manifest) -> None:
        kind_of(manifest["kind"])  # whatever is written has a path
        self._refuse(verb, manifest["kind"], manifest["metadata"].get("name", ""))

    def _refuse(self, verb: str, kind: str, name: str, namespace: str | None = None) -> None:
        self.calls.append((verb, kind, name))
        if namespace in self.closed:
            raise Forbidden(f"{kind} is forbidden in {namespace}", status=403)
        if error := self.refuse.get((verb, kind)):
            raise error


def _place(manifest: Manifest) -> tuple[str, str, str]:
    metadata = manifest["metadata"]
    return manifest["kind"], metadata["namespace"], metadata["name"]


def _selects(selector: str, carried: Mapping[str, str]) -> bool:
    """Terms of the forms `key` and `key!=`, as the operator uses them."""
    return all(
        carried.get(term[:-2]) != "" if term.endswith("!=") else term in carried
        for term in selector.split(",")
        if term
    )


def _version(manifest: Manifest) -> int:
    return int(manifest["metadata"]["resourceVersion"])
