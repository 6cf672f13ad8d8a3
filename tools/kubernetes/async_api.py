"""A plain REST client for the API server: what fake nodes and the tests need, and no more."""

from __future__ import annotations

import asyncio
import json
import ssl
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import aiohttp
import yaml

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

JsonObject = dict[str, Any]

MERGE_PATCH: Final = "application/merge-patch+json"
STRATEGIC_PATCH: Final = "application/strategic-merge-patch+json"
APPLY_PATCH: Final = "application/apply-patch+yaml"
_RELIST_PAUSE_S: Final = 0.2


class ApiError(Exception):
    """The API server said no.

    Attributes:
        status: HTTP status.
        message: Its own sentence.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status
        self.message = message


@dataclass(frozen=True, slots=True)
class Change:
    """One entry of a watch; `type` is ADDED, MODIFIED or DELETED."""

    type: str
    object: JsonObject


class Api:
    """Calls one API server. Use it inside one event loop; `open_api` closes it."""

    def __init__(self, server: str, session: aiohttp.ClientSession) -> None:
        self._server = server
        self._session = session

    async def call(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        content_type: str = "application/json",
        **query: str,
    ) -> JsonObject:
        """One call; `path` begins with /api or /apis.

        Raises:
            ApiError: A status of 400 or above.
        """
        data = None if body is None else json.dumps(body)
        headers = {"Content-Type": content_type}
        async with self._session.request(
            method, self._server + path, params=query, data=data, headers=headers
        ) as response:
            text = await response.text()
            if response.status >= 400:
                raise ApiError(response.status, _message(text))
            made: JsonObject = json.loads(text) if text.startswith("{") else {"text": text}
            return made

    async def follow(self, path: str, **query: str) -> AsyncIterator[Change]:
        """Every object there is and then every change, for ever; lists again when it must.

        What vanished while it was not listening is told as DELETED.
        """
        known: dict[str, JsonObject] = {}
        while True:
            try:
                listed = await self.call("GET", path, **query)
            except (ApiError, aiohttp.ClientError, TimeoutError):
                await asyncio.sleep(_RELIST_PAUSE_S)
                continue
            now = {item["metadata"]["uid"]: item for item in listed["items"]}
            for uid in known.keys() - now.keys():
                yield Change("DELETED", known.pop(uid))
            for uid, item in now.items():
                known[uid] = item
                yield Change("ADDED", item)
            version = listed["metadata"]["resourceVersion"]
            try:
                async for change in self._watch(path, version, query):
                    uid = change.object["metadata"]["uid"]
                    if change.type == "DELETED":
                        known.pop(uid, None)
                    else:
                        known[uid] = change.object
                    yield change
            except (ApiError, aiohttp.ClientError, TimeoutError):
                await asyncio.sleep(_RELIST_PAUSE_S)  # no event tells when a server is back

    async def _watch(self, path: str, version: str, query: dict[str, str]) -> AsyncIterator[Change]:
        params = {**query, "watch": "true", "resourceVersion": version, "timeoutSeconds": "600"}
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=5)
        async with self._session.get(
            self._server + path, params=params, timeout=timeout
        ) as response:
            if response.status >= 400:
                raise ApiError(response.status, _message(await response.text()))
            buffer = b""
            async for piece in response.content.iter_any():
                buffer += piece
                *lines, buffer = buffer.split(b"\n")
                for line in lines:
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        raise ApiError(event["object"].get("code", 410), "the watch is too old")
                    yield Change(event["type"], event["object"])


@asynccontextmanager
async def open_api(kubeconfig: Path) -> AsyncIterator[Api]:
    """A client with the rights of the current context of a kubeconfig with files or a token."""
    config = _read(kubeconfig)
    cluster = config["clusters"][0]["cluster"]
    user = config["users"][0]["user"]
    context: ssl.SSLContext | bool = True
    if cluster["server"].startswith("https"):
        context = ssl.create_default_context(cafile=cluster["certificate-authority"])
        if "client-certificate" in user:
            context.load_cert_chain(user["client-certificate"], user["client-key"])
    headers = {"Authorization": f"Bearer {user['token']}"} if "token" in user else {}
    connector = aiohttp.TCPConnector(ssl=context, limit=64)
    timeout = aiohttp.ClientTimeout(total=30)
    async with aiohttp.ClientSession(
        connector=connector, headers=headers, timeout=timeout
    ) as session:
        yield Api(cluster["server"].rstrip("/"), session)


def _read(kubeconfig: Path) -> Any:
    return yaml.safe_load(kubeconfig.read_text())


def _message(text: str) -> str:
    try:
        return str(json.loads(text)["message"])
    except (ValueError, KeyError, TypeError):
        return text[:300]
