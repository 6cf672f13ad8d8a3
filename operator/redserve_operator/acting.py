"""The hands: carry out one action, and let the cache know what came of it."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from redserve.cluster import labels
from redserve.telemetry.log import get_logger
from redserve_operator.decide.amended import amendment
from redserve_operator.decide.objects import is_made_for, key_of
from redserve_operator.decide.plan import Apply, ApplyStatus, Create, Delete, Patch
from redserve_operator.decide.sources import without_other_sources
from redserve_operator.decide.upkeep import ROLLOUT_MANAGER
from redserve_operator.kube.errors import (
    Conflict,
    Forbidden,
    Invalid,
    KubeError,
    NamespaceEnds,
    NotFound,
    Retryable,
)
from redserve_operator.kube.kinds import EVENT, REDSERVICE, kind_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from redserve.cluster.facts import Manifest
    from redserve.telemetry.metrics.operator import OperatorMetrics
    from redserve_operator.decide.observed import ObjectKey
    from redserve_operator.decide.plan import Action, Event
    from redserve_operator.keys import ServiceKey
    from redserve_operator.kube.client import KubeClient
    from redserve_operator.store.cache import Store

log = get_logger()

_WHOLE = (labels.MANAGER, ROLLOUT_MANAGER)
"""Field managers whose writes are compared with what came of them; the others pass sizes on."""
_LONGEST_NOTE = 1024
"""What the API server takes as the text of an Event."""


class _NameTaken(KubeError):
    """An object that somebody else made has the name of one that is wanted."""


class Hands:
    """The only ones that write.

    Args:
        client: Calls of the API server.
        store: Learns the answers.
        metrics: Counts the writes.
        identity: This process, for Events.
        may_write: Whether the Lease is still ours; nothing is written when it is not.
    """

    def __init__(
        self,
        client: KubeClient,
        store: Store,
        metrics: OperatorMetrics,
        identity: str,
        may_write: Callable[[], bool],
    ) -> None:
        self._may_write = may_write
        self._client = client
        self._store = store
        self._metrics = metrics
        self._identity = identity

    async def carry_out(self, service: ServiceKey, action: Action) -> tuple[ObjectKey, str | None]:
        """Do it.

        Returns:
            Which object it was about, and why it was refused: in the API server's words, or because
            somebody else has an object of this name; None when it was done.

        Raises:
            KubeError: It was neither done nor refused.
        """
        self._check_lease()
        if isinstance(action, Delete):
            try:
                await self._delete(service, action)
            except NamespaceEnds:
                raise
            except (Invalid, Forbidden) as error:
                return action.key, error.message
            return action.key, None
        key = key_of(action.manifest)
        try:
            await self._write(service, action)
        except NamespaceEnds:
            raise
        except (Invalid, Forbidden, _NameTaken) as error:
            self._metrics.applies.labels(key.kind, "refused").inc()
            return key, error.message
        self._metrics.applies.labels(key.kind, action.why).inc()
        return key, None

    async def write_status(self, resource: Manifest, status: Manifest) -> None:
        """Write the status of a RedService; raises `KubeError`."""
        self._check_lease()
        metadata = resource["metadata"]
        manifest = {
            "apiVersion": REDSERVICE.api_version,
            "kind": REDSERVICE.name,
            "metadata": {key: metadata[key] for key in ("name", "namespace", "uid")},
            "status": status,
        }
        try:
            answer = await self._client.apply_status(manifest, labels.MANAGER)
        except (NotFound, Conflict):
            return  # deleted meanwhile, or made anew: the watch will tell
        self._metrics.applies.labels(REDSERVICE.name, "status").inc()
        self._store.put(REDSERVICE.name, answer)

    async def tell(self, resource: Manifest, event: Event) -> None:
        """Write an Event about a RedService; a failure is logged, because Events are news only."""
        metadata = resource["metadata"]
        now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        manifest = {
            "apiVersion": EVENT.api_version,
            "kind": EVENT.name,
            "metadata": {
                "name": f"{metadata['name']}.{secrets.token_hex(8)}",
                "namespace": metadata["namespace"],
            },
            "eventTime": now,
            "type": event.type,
            "reason": event.reason,
            "action": "Reconcile",
            "note": event.message[:_LONGEST_NOTE],
            "reportingController": "redserve.dev/operator",
            "reportingInstance": self._identity[-128:],
            "regarding": {
                "apiVersion": REDSERVICE.api_version,
                "kind": REDSERVICE.name,
                "name": metadata["name"],
                "namespace": metadata["namespace"],
                "uid": metadata["uid"],
                "resourceVersion": metadata["resourceVersion"],
            },
        }
        try:
            await self._client.create(manifest, labels.MANAGER)
        except KubeError as error:
            log.warning("event not told", reason=event.reason, why=error.message)
            return
        self._metrics.events.labels(event.reason).inc()

    async def try_pod(self, pod: Manifest) -> str | None:
        """Whether the API server would take this pod: None, or why not; raises `KubeError`.

        Raises `Retryable` in a namespace that is so young that its default account is yet to come.
        """
        try:
            await self._client.dry_run(pod, labels.MANAGER)
        except Invalid as error:
            return error.message
        except NamespaceEnds:
            raise
        except Forbidden as error:
            # A used-up quota passes, and the Deployment will say so. Without the right to try,
            # nothing is known against the pod.
            if error.by_quota or not error.by_admission:
                log.warning("pod not tried", name=pod["metadata"].get("name"), why=error.message)
                return None
            if error.by_account and "serviceAccountName" not in pod["spec"]:
                raise Retryable(error.message) from error
            return error.message
        except Conflict:
            return None  # a pod of that name exists: it was taken before
        return None

    def _check_lease(self) -> None:
        if not self._may_write():
            raise KubeError("the Lease is not ours any more: nothing is written")

    async def _write(
        self, service: ServiceKey, action: Apply | Patch | ApplyStatus | Create
    ) -> None:
        manifest = action.manifest
        if action.why == "created":
            await self._check_name(service, manifest)
        match action:
            case Apply():
                answer = await self._client.apply(manifest, action.manager)
                if action.manager in _WHOLE:
                    self._compare(service, manifest, answer)
            case Patch():
                try:
                    answer = await self._client.patch(action.patch, action.manager)
                except (NotFound, Conflict):
                    return  # deleted meanwhile, or made anew: the watch will tell
                if without_other_sources(manifest, answer):
                    self._compare(service, manifest, answer)
            case ApplyStatus():
                try:
                    answer = await self._client.apply_status(manifest, action.manager)
                except NotFound:
                    return  # deleted meanwhile; it is made again in the next round
            case Create():
                try:
                    answer = await self._client.create(manifest, action.manager)
                except Conflict:
                    metadata = manifest["metadata"]
                    kind = kind_of(manifest["kind"])
                    answer = await self._client.get(kind, metadata["namespace"], metadata["name"])
        self._store.put(manifest["kind"], answer)

    def _compare(self, service: ServiceKey, manifest: Manifest, answer: Manifest) -> None:
        amended = amendment(manifest, answer)
        self._store.amendments.note(service, key_of(manifest), amended)
        if amended is not None:
            self._metrics.amended.labels(manifest["kind"]).inc()

    async def _check_name(self, service: ServiceKey, manifest: Manifest) -> None:
        """Look whether somebody else has an object of this name; raises `_NameTaken`.

        The cache cannot tell: it holds what carries our label. A forced apply would take the object
        over, and the garbage collector would delete it with the RedService.
        """
        kind = kind_of(manifest["kind"])
        try:
            have = await self._client.get(kind, service.namespace, manifest["metadata"]["name"])
        except NotFound:
            return
        if not is_made_for(have, service.name):
            raise _NameTaken(
                "exists and was not made for this RedService: rename the service, "
                "or remove the object"
            )

    async def _delete(self, service: ServiceKey, action: Delete) -> None:
        key = action.key
        answer: Manifest = {}
        try:
            answer = await self._client.delete(
                kind_of(key.kind), service.namespace, key.name, action.uid
            )
        except (NotFound, Conflict):
            pass  # gone already, or another object by now
        else:
            self._metrics.deletes.labels(key.kind).inc()
        if (answer.get("metadata") or {}).get("deletionTimestamp"):
            # Something keeps it for now: whoever wants one of its name has to wait for its end.
            self._store.put(key.kind, answer)
        else:
            self._store.deleted(key.kind, service.namespace, key.name, action.uid)
