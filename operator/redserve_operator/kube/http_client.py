"""`KubeClient` over the `kubernetes.aio` client of the official package."""

from __future__ import annotations

import asyncio
import json
import random
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

import aiohttp
from kubernetes.aio.client.rest import RESTClientObject

from redserve_operator.kube.access import bearer_token, timeout
from redserve_operator.kube.backoff import Backoff
from redserve_operator.kube.client import Listed, Listing
from redserve_operator.kube.errors import KubeError, NotFound, Retryable, error_from
from redserve_operator.kube.kinds import kind_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from kubernetes.aio.client.configuration import Configuration

    from redserve.cluster.facts import Manifest
    from redserve.telemetry.metrics.operator import OperatorMetrics
    from redserve_operator.kube.kinds import Kind

_JSON = "application/json"
_APPLY = "application/apply-patch+yaml"
_MERGE = "application/strategic-merge-patch+json"
_METADATA = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"
_PAGE = 250
"""Objects of one page of a list: bounds memory on both sides."""


class HttpKubeClient:
    """Calls with time limit, retries and figures.

    The package's own retries are off: they leave PATCH and POST out and know no jitter.
    """

    def __init__(
        self,
        access: Configuration,
        metrics: OperatorMetrics,
        *,
        request_timeout_s: float,
        num_attempts: int = 4,
        backoff: Backoff = Backoff(first_s=0.2, longest_s=10.0),  # noqa: B008  # frozen
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._access = access
        self._metrics = metrics
        self._timeout = timeout(request_timeout_s)
        self._num_attempts = num_attempts
        self._backoff = backoff
        self._sleep = sleep
        self._rest = RESTClientObject(access)

    async def close(self) -> None:
        """Close the connections; no call may be made after that."""
        await self._rest.close()

    async def apply(self, manifest: Manifest, manager: str) -> Manifest:
        """Server-side apply with force."""
        return await self._apply(manifest, manager, "")

    async def patch(self, patch: Manifest, manager: str) -> Manifest:
        """Strategic merge patch; raises `Conflict` when `metadata.uid` is another one."""
        query = {"fieldManager": manager}
        return await self._call("patch", "PATCH", _object(patch), query, patch, content=_MERGE)

    async def apply_status(self, manifest: Manifest, manager: str) -> Manifest:
        """Server-side apply with force to the status subresource."""
        return await self._apply(manifest, manager, "status")

    async def create(self, manifest: Manifest, manager: str) -> Manifest:
        """POST; raises `Conflict` when it exists."""
        query = {"fieldManager": manager}
        return await self._call("create", "POST", _collection(manifest), query, manifest)

    async def dry_run(self, manifest: Manifest, manager: str) -> Manifest:
        """POST that is checked and admitted, but not stored.

        Strict: a field that the API server does not know would be dropped with a warning here, and
        fail the server-side apply afterwards.
        """
        query = {"fieldManager": manager, "dryRun": "All", "fieldValidation": "Strict"}
        return await self._call("dry_run", "POST", _collection(manifest), query, manifest)

    async def replace(self, manifest: Manifest) -> Manifest:
        """PUT; raises `Conflict` when `metadata.resourceVersion` is not the newest."""
        return await self._call("replace", "PUT", _object(manifest), {}, manifest)

    async def delete(self, kind: Kind, namespace: str, name: str, uid: str) -> Manifest:
        """Background deletion, if it still has this uid; raises `Conflict` otherwise.

        Answers with a `Status`, or with the object while something keeps it.
        """
        options = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Background",
            "preconditions": {"uid": uid},
        }
        return await self._call("delete", "DELETE", kind.path(namespace, quote(name)), {}, options)

    async def get(self, kind: Kind, namespace: str, name: str) -> Manifest:
        """One object."""
        return await self._call("get", "GET", kind.path(namespace, quote(name)), {})

    async def list_metadata(
        self, kind: Kind, namespace: str | None, label_selector: str
    ) -> Listing:
        """What there is of a kind; namespace None is all of them."""
        query = {"limit": str(_PAGE)}
        if label_selector:
            query["labelSelector"] = label_selector
        found: list[Listed] = []
        version = 0
        while True:
            page = await self._call("list", "GET", kind.path(namespace), query, accept=_METADATA)
            found += (_listed(item["metadata"]) for item in page.get("items") or ())
            # All pages are of one moment, that of the first.
            version = version or int(page["metadata"].get("resourceVersion") or 0)
            further = page["metadata"].get("continue", "")
            if not further:
                return Listing(version, tuple(found))
            query = {**query, "continue": further}

    async def try_list(self, kind: Kind, namespace: str | None) -> None:
        """Ask for one object of a kind; raises what a list would raise."""
        await self._call("list", "GET", kind.path(namespace), {"limit": "1"}, accept=_METADATA)

    async def server_version(self) -> Manifest:
        """The answer of `/version`."""
        return await self._call("discover", "GET", "/version", {})

    async def served_kinds(self, api_version: str) -> frozenset[str]:
        """Kinds of a group and version such as `apps/v1`; empty when it is not served."""
        path = f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"
        try:
            found = await self._call("discover", "GET", path, {})
        except NotFound:
            return frozenset()
        return frozenset(str(entry["kind"]) for entry in found.get("resources", ()))

    async def _apply(self, manifest: Manifest, manager: str, subresource: str) -> Manifest:
        query = {"fieldManager": manager, "force": "true"}
        path = _object(manifest, subresource)
        verb = "apply_status" if subresource else "apply"
        return await self._call(verb, "PATCH", path, query, manifest, content=_APPLY)

    async def _call(
        self,
        verb: str,
        method: str,
        path: str,
        query: dict[str, str],
        body: Manifest | None = None,
        *,
        content: str = _JSON,
        accept: str = _JSON,
    ) -> Manifest:
        url = self._access.host + path + (f"?{urlencode(query)}" if query else "")
        headers = {"Accept": accept, "Content-Type": content, "User-Agent": "redserve-operator"}
        failures = 0
        while True:
            try:
                return await self._once(verb, method, url, headers, body)
            except Retryable as error:
                failures += 1
                # Whoever is told to wait for long waits in the queue, not in a worker.
                too_long = (error.retry_after_s or 0.0) > self._backoff.longest_s
                if failures >= self._num_attempts or too_long:
                    raise
                chance = random.random()
                await self._sleep(self._backoff.wait_s(failures, chance, error.retry_after_s))

    async def _once(
        self, verb: str, method: str, url: str, headers: dict[str, str], body: Manifest | None
    ) -> Manifest:
        token = await bearer_token(self._access)
        sent = {**headers, "Authorization": f"Bearer {token}"} if token else dict(headers)
        started = time.monotonic()
        code = "none"
        try:
            response = await self._rest.request(  # type: ignore[no-untyped-call]
                method, url, headers=sent, body=body, _request_timeout=self._timeout
            )
            code = str(response.status)
            answer: bytes = await response.read()
        except TimeoutError:
            raise Retryable(f"no answer within {self._timeout.total:g} s") from None
        except (aiohttp.ClientError, OSError) as error:
            raise Retryable(f"no connection: {error or type(error).__name__}") from None
        finally:
            self._metrics.api_request.labels(verb, code).observe(time.monotonic() - started)
        if response.status >= 300:
            raise error_from(response.status, answer, response.headers.get("Retry-After"))
        return _parsed(answer)


def _parsed(answer: bytes) -> Manifest:
    try:
        found: Any = json.loads(answer)
    except ValueError:
        raise KubeError("the answer is no JSON; is this an API server?") from None
    if not isinstance(found, dict):
        raise KubeError("the answer is no JSON object; is this an API server?")
    return found


def _listed(metadata: Manifest) -> Listed:
    return Listed(
        metadata["namespace"], metadata["name"], metadata["uid"], int(metadata["resourceVersion"])
    )


def _collection(manifest: Manifest) -> str:
    return kind_of(manifest["kind"]).path(manifest["metadata"]["namespace"])


def _object(manifest: Manifest, subresource: str = "") -> str:
    metadata = manifest["metadata"]
    kind = kind_of(manifest["kind"])
    return kind.path(metadata["namespace"], quote(metadata["name"]), subresource)
