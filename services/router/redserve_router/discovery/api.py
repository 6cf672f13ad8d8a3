"""List and watch of EndpointSlices over HTTP."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import httpx

from redserve_router.discovery.problem import Kind, Problem
from redserve_router.discovery.slices import SERVICE_LABEL

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Generator, Sequence

    from redserve_router.discovery.account import ServiceAccount
    from redserve_router.discovery.slices import Object
    from redserve_router.discovery.timing import Timing

EXPIRED: Final = 410
MAX_MESSAGE = 400
"""Characters of a server's own words that are passed on."""
_KINDS: Final[dict[int, Kind]] = {401: "unauthorized", 403: "forbidden", EXPIRED: "expired"}


@dataclass(frozen=True, slots=True)
class Listing:
    """All slices at one moment, and from where to go on."""

    objects: tuple[Object, ...]
    resource_version: str


@dataclass(frozen=True, slots=True)
class Change:
    """One event of a watch.

    Attributes:
        kind: put: the slice is new or changed; removed: it is gone; bookmark: nothing but news of
            the version.
        resource_version: From where to go on after it.
    """

    kind: Literal["put", "removed", "bookmark"]
    slice_object: Object
    resource_version: str


_CHANGES: Final[dict[str, Literal["put", "removed", "bookmark"]]] = {
    "ADDED": "put",
    "MODIFIED": "put",
    "DELETED": "removed",
    "BOOKMARK": "bookmark",
}


class SliceApi:
    """The EndpointSlices of some Services. Every method raises `Problem` and nothing else.

    Args:
        base_url: Of the API server.
        account: Credentials.
        namespace: Of the Services.
        services: Their names.
        timing: How long to wait.
    """

    def __init__(
        self,
        base_url: str,
        account: ServiceAccount,
        namespace: str,
        services: Sequence[str],
        timing: Timing,
    ) -> None:
        self._base_url = base_url
        self._server = f"the API server at {base_url}"
        self._account = account
        self._namespace = namespace
        self._path = f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"
        self._selector = f"{SERVICE_LABEL} in ({','.join(services)})"
        self._timing = timing
        self._client: httpx.AsyncClient | None = None

    async def list(self) -> Listing:
        """All of them, as of now."""
        with self._problems():
            async with asyncio.timeout(self._timing.answer_s):
                response = await self._send({}, stream=False)
            if response.status_code != httpx.codes.OK:
                raise self._refusal(response)
            body = response.json()
            return Listing(tuple(body.get("items") or ()), _version_of(body))

    @asynccontextmanager
    async def watch(self, resource_version: str) -> AsyncIterator[AsyncGenerator[Change, None]]:
        """What changes after `resource_version`, until the server ends it. Entered when it begins.

        A connection over which nothing comes for longer than agreed is a problem.
        """
        parameters = {
            "watch": "1",
            "resourceVersion": resource_version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(self._timing.watch_seconds()),
        }
        with self._problems():
            async with asyncio.timeout(self._timing.answer_s):
                response = await self._send(parameters, stream=True)
            try:
                if response.status_code != httpx.codes.OK:
                    async with asyncio.timeout(self._timing.answer_s):
                        await response.aread()
                    raise self._refusal(response)
                yield self._changes(response)
            finally:
                await response.aclose()

    async def close(self) -> None:
        """Close every connection; the next call opens new ones, with credentials read anew."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def _send(self, parameters: dict[str, str], *, stream: bool) -> httpx.Response:
        if self._client is None:
            self._client = self._connect()
        request = self._client.build_request(
            "GET",
            self._path,
            params={"labelSelector": self._selector, **parameters},
            headers={"Authorization": f"Bearer {self._account.token()}"},
        )
        return await self._client.send(request, stream=stream)

    def _connect(self) -> httpx.AsyncClient:
        timing = self._timing
        return httpx.AsyncClient(
            base_url=self._base_url,
            verify=self._account.tls() if self._base_url.startswith("https:") else False,
            # The API server is in the cluster: proxies of the environment are not meant for it.
            trust_env=False,
            timeout=httpx.Timeout(timing.connect_s, read=timing.watch_s + timing.silence_s),
            headers={"Accept": "application/json"},
        )

    async def _changes(self, response: httpx.Response) -> AsyncGenerator[Change, None]:
        rest = b""
        async for piece in response.aiter_bytes():
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                if line.strip():
                    yield self._change(json.loads(line))

    def _change(self, event: dict[str, Any]) -> Change:
        told = event.get("object") or {}
        kind = _CHANGES.get(event.get("type", ""))
        if kind is None:  # the server's way to fail after it has said 200
            raise self._problem(int(told.get("code") or 500), str(told.get("message", "")))
        return Change(kind, told, _version_of(told))

    def _refusal(self, response: httpx.Response) -> Problem:
        try:
            message = str(response.json().get("message", ""))
        except (ValueError, AttributeError):
            message = response.text
        return self._problem(
            response.status_code, message, _seconds(response.headers.get("Retry-After"))
        )

    def _problem(self, status: int, message: str, retry_after_s: float | None = None) -> Problem:
        said = message[:MAX_MESSAGE].strip() or "nothing more"
        kind = _KINDS.get(status, "refused")
        what = f"the API server answers {status} ({said})"
        if kind == "forbidden":
            what = (
                f"the router may not read EndpointSlices of namespace {self._namespace}: its "
                "ServiceAccount needs a RoleBinding to a Role with the verbs list and watch on "
                f"endpointslices of discovery.k8s.io; {what}"
            )
        return Problem(kind, what, retry_after_s=retry_after_s)

    @contextmanager
    def _problems(self) -> Generator[None, None, None]:
        try:
            yield
        except TimeoutError as error:
            raise Problem(
                "unreachable", f"{self._server} does not answer in {self._timing.answer_s:g} s"
            ) from error
        except httpx.ReadTimeout as error:
            raise Problem("unreachable", f"{self._server} has gone silent") from error
        except (httpx.HTTPError, httpx.StreamError, OSError) as error:
            said = str(error) or type(error).__name__
            raise Problem("unreachable", f"{self._server} cannot be reached: {said}") from error
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise Problem("refused", f"{self._server} does not speak JSON: {error}") from error


def _version_of(told: dict[str, Any]) -> str:
    return str((told.get("metadata") or {}).get("resourceVersion") or "")


def _seconds(header: str | None) -> float | None:
    return float(header) if header is not None and header.isdecimal() else None
