"""The cache: every object of every service, at least as new as this operator's own writes.

Answers of writes go in beside what the watch tells (`written`, `deleted`), so that no decision is
made on a state that the operator itself has changed already. Whichever version is newer stays;
an object that was deleted does not come back with a late notice.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from redserve.cluster import labels
from redserve_operator.decide.objects import is_made_for
from redserve_operator.decide.observed import LoaderFacts, ObjectKey, Observed, PodFacts
from redserve_operator.keys import ServiceKey
from redserve_operator.kube.kinds import POD, REDSERVICE
from redserve_operator.store.amendments import Amendments
from redserve_operator.store.pods import loader_facts, pod_facts
from redserve_operator.store.slim import same_content, slim

if TYPE_CHECKING:
    from collections.abc import Mapping

    from redserve.cluster.facts import Manifest
    from redserve_operator.decide.observed import Probed
    from redserve_operator.kube.client import Listed

_MOST_TOMBSTONES: Final = 10_000


@dataclass(frozen=True, slots=True)
class Entry:
    """One object.

    Attributes:
        service: Whose it is.
        uid, version: Which object, and which state of it.
        content: The object, or what is known of a pod; None for a pod that tells nothing, and for
            what carries our label and was made by somebody else: no decision reads it, and it may
            be large.
    """

    service: ServiceKey
    uid: str
    version: int
    content: Manifest | PodFacts | LoaderFacts | None
    created: str


class Store:
    """Objects by kind, namespace and name, and by service. Not for several threads.

    Attributes:
        amendments: How objects came back from this operator's writes; one that goes is forgotten.
    """

    def __init__(self) -> None:
        self.amendments = Amendments()
        self._objects: dict[str, dict[tuple[str, str], Entry]] = {}
        self._by_service: dict[ServiceKey, dict[ObjectKey, Entry]] = {}
        self._tombstones: OrderedDict[str, None] = OrderedDict()

    def put(self, kind: str, manifest: Manifest) -> ServiceKey | None:
        """Take over a state of an object.

        Returns:
            The service to look at; None when nothing was learnt: it is old, known, or of no
            service.
        """
        metadata = manifest["metadata"]
        service = service_of(kind, manifest)
        place = (metadata["namespace"], metadata["name"])
        version = int(metadata["resourceVersion"])
        known = self._objects.get(kind, {}).get(place)
        if known is not None and known.version >= version:
            return None
        if service is None:
            # It was ours and its label is gone.
            return self._drop(kind, place)
        if metadata["uid"] in self._tombstones:
            return None
        content = _content(kind, manifest, service)
        entry = Entry(
            service, metadata["uid"], version, content, metadata.get("creationTimestamp", "")
        )
        if known is not None and known.service != service:
            self._drop(kind, place)
        self._objects.setdefault(kind, {})[place] = entry
        self._by_service.setdefault(service, {})[ObjectKey(kind, place[1])] = entry
        return None if known is not None and _same(known, entry) else service

    def remove(self, kind: str, manifest: Manifest) -> ServiceKey | None:
        """An object is gone, or carries our label no more; returns the service to look at."""
        metadata = manifest["metadata"]
        place = (metadata["namespace"], metadata["name"])
        known = self._objects.get(kind, {}).get(place)
        # A notice that is older than what is known: it was made anew, or its label was restored.
        if known is not None and known.version > int(metadata["resourceVersion"]):
            return None
        return self._drop(kind, place) or service_of(kind, manifest)

    def deleted(self, kind: str, namespace: str, name: str, uid: str) -> None:
        """This operator has deleted an object: whatever is told of it from now on is old."""
        self._tombstones[uid] = None
        while len(self._tombstones) > _MOST_TOMBSTONES:
            self._tombstones.popitem(last=False)
        known = self._objects.get(kind, {}).get((namespace, name))
        if known is not None and known.uid == uid:
            self._drop(kind, (namespace, name))

    def prune(
        self, kind: str, namespace: str | None, listed: tuple[Listed, ...], version: int
    ) -> list[ServiceKey]:
        """Drop what a list of `version` does not have; returns the services to look at."""
        there = {(found.namespace, found.name): found.uid for found in listed}
        gone = [
            place
            for place, entry in self._objects.get(kind, {}).items()
            if (namespace is None or place[0] == namespace)
            and entry.version <= version
            and there.get(place) != entry.uid
        ]
        return [service for place in gone if (service := self._drop(kind, place)) is not None]

    def lacks(self, kind: str, listed: Listed) -> bool:
        """Whether a listed object, in this or a later state, has not been told of."""
        if listed.uid in self._tombstones:
            return False
        known = self._objects.get(kind, {}).get((listed.namespace, listed.name))
        return known is None or known.version < listed.version

    def resource(self, service: ServiceKey) -> Manifest | None:
        """The RedService; None when there is none."""
        entry = self._objects.get(REDSERVICE.name, {}).get(service)
        return entry.content if entry is not None and isinstance(entry.content, dict) else None

    def observed(
        self, service: ServiceKey, probed: Probed | None, rejected: Mapping[ObjectKey, str]
    ) -> Observed | None:
        """Everything about a service; None when there is no such RedService."""
        resource = self.resource(service)
        if resource is None:
            return None
        children: dict[ObjectKey, Manifest] = {}
        pods: list[PodFacts] = []
        loaders: dict[str, tuple[str, LoaderFacts]] = {}
        for key, entry in self._by_service.get(service, {}).items():
            match entry.content:
                case dict():
                    if key.kind != REDSERVICE.name:
                        children[key] = entry.content
                case PodFacts() as pod:
                    pods.append(pod)
                case LoaderFacts() as loader:
                    # The newest pod of a Job speaks for it.
                    if entry.created >= loaders.get(loader.job, ("",))[0]:
                        loaders[loader.job] = (entry.created, loader)
        return Observed(
            resource=resource,
            children=children,
            pods=tuple(sorted(pods, key=lambda pod: pod.name)),
            probed=probed,
            loaders=tuple(loaders[job][1] for job in sorted(loaders)),
            rejected=rejected,
            amended=self.amendments.of(service),
        )

    def num_services(self) -> int:
        """Number of RedServices."""
        return len(self._objects.get(REDSERVICE.name, {}))

    def resources(self) -> list[Manifest]:
        """Every RedService."""
        entries = self._objects.get(REDSERVICE.name, {}).values()
        return [entry.content for entry in entries if isinstance(entry.content, dict)]

    def sizes(self) -> dict[str, int]:
        """Number of objects by kind."""
        return {kind: len(objects) for kind, objects in self._objects.items()}

    def _drop(self, kind: str, place: tuple[str, str]) -> ServiceKey | None:
        entry = self._objects.get(kind, {}).pop(place, None)
        if entry is None:
            return None
        siblings = self._by_service[entry.service]
        siblings.pop(ObjectKey(kind, place[1]), None)
        self.amendments.forget(entry.service, ObjectKey(kind, place[1]))
        if not siblings:
            del self._by_service[entry.service]
        return entry.service


def service_of(kind: str, manifest: Manifest) -> ServiceKey | None:
    """Whose object it is: a RedService's own, else by its label."""
    metadata = manifest["metadata"]
    if kind == REDSERVICE.name:
        return ServiceKey(metadata["namespace"], metadata["name"])
    name = (metadata.get("labels") or {}).get(labels.SERVICE, "")
    return ServiceKey(metadata["namespace"], name) if name else None


def _content(
    kind: str, manifest: Manifest, service: ServiceKey
) -> Manifest | PodFacts | LoaderFacts | None:
    if kind == POD.name:
        return pod_facts(manifest) or loader_facts(manifest)
    if kind != REDSERVICE.name and not is_made_for(manifest, service.name):
        return None
    return slim(kind, manifest)


def _same(one: Entry, other: Entry) -> bool:
    if one.uid != other.uid or type(one.content) is not type(other.content):
        return False
    if isinstance(one.content, dict) and isinstance(other.content, dict):
        return same_content(one.content, other.content)
    return one.content == other.content
