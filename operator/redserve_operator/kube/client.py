"""What the operator asks of the API server: the narrow door that every call goes through."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from redserve.cluster.facts import Manifest
    from redserve_operator.kube.kinds import Kind


class Listed(NamedTuple):
    """One object of a list. Versions of one kind are numbers that grow with every write."""

    namespace: str
    name: str
    uid: str
    version: int


@dataclass(frozen=True, slots=True)
class Listing:
    """What there is of a kind at one moment.

    Attributes:
        version: resourceVersion of that moment.
        objects: In no order that means anything.
    """

    version: int
    objects: tuple[Listed, ...]


class KubeClient(Protocol):
    """Calls of the API server. Each answers with the object as the server has it then.

    Every call raises a `KubeError`; `Retryable` ones have been retried before that.
    """

    async def apply(self, manifest: Manifest, manager: str) -> Manifest:
        """Server-side apply with force."""
        ...

    async def patch(self, patch: Manifest, manager: str) -> Manifest:
        """Strategic merge patch; raises `Conflict` when `metadata.uid` is another one."""
        ...

    async def apply_status(self, manifest: Manifest, manager: str) -> Manifest:
        """Server-side apply with force to the status subresource."""
        ...

    async def create(self, manifest: Manifest, manager: str) -> Manifest:
        """POST; raises `Conflict` when it exists."""
        ...

    async def dry_run(self, manifest: Manifest, manager: str) -> Manifest:
        """POST that is checked and admitted, but not stored."""
        ...

    async def replace(self, manifest: Manifest) -> Manifest:
        """PUT; raises `Conflict` when `metadata.resourceVersion` is not the newest."""
        ...

    async def delete(self, kind: Kind, namespace: str, name: str, uid: str) -> Manifest:
        """Background deletion, if it still has this uid; raises `Conflict` otherwise.

        Answers with a `Status` when it is gone, else with the object, which has a deletionTimestamp
        then: somebody's finalizer or a grace period keeps it.
        """
        ...

    async def get(self, kind: Kind, namespace: str, name: str) -> Manifest:
        """One object."""
        ...

    async def list_metadata(
        self, kind: Kind, namespace: str | None, label_selector: str
    ) -> Listing:
        """What there is of a kind; namespace None is all of them."""
        ...

    async def try_list(self, kind: Kind, namespace: str | None) -> None:
        """Ask for one object of a kind; raises what a list would raise."""
        ...

    async def server_version(self) -> Manifest:
        """The answer of `/version`."""
        ...

    async def served_kinds(self, api_version: str) -> frozenset[str]:
        """Kinds of a group and version such as `apps/v1`; empty when it is not served."""
        ...
