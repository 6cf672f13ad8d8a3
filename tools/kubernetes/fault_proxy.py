"""A reverse proxy between a client and the API server: plain HTTP on loopback, in a thread.

    with FaultProxy(control_plane.kubeconfig, folder) as proxy:
        run_operator(proxy.kubeconfig)
        proxy.rule = refuse_some(0.2)

Whoever comes through it is the user of the kubeconfig that it was given. Upgraded connections
(`kubectl exec`) are not for it.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
from typing import TYPE_CHECKING, Any, Final, Self

import aiohttp
import yaml
from aiohttp import web

from redserve.local.ports import LOOPBACK
from tools.kubernetes.certificates import write_kubeconfig
from tools.kubernetes.faults import Answer, Call, Cut, Delay, Expired, Fault, Kill, Rule, no_faults

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from pathlib import Path

_HOP_BY_HOP: Final = frozenset(
    {"connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade", "host"}
)
_LARGEST_BODY: Final = 16 * 2**20
_REASONS: Final = {
    410: "Expired",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
}


class FaultProxy:
    """Runs as long as its context.

    Args:
        upstream: Kubeconfig with certificates in files, as `write_kubeconfig` writes it.
        folder: Where the proxy's own kubeconfig is written.

    Attributes:
        kubeconfig: By which clients come through the proxy.
        rule: What befalls calls; may be changed at any time, from any thread.
    """

    def __init__(self, upstream: Path, folder: Path) -> None:
        content = yaml.safe_load(upstream.read_text())
        self._cluster = content["clusters"][0]["cluster"]
        self._user = content["users"][0]["user"]
        self.kubeconfig = folder / "through-proxy.kubeconfig"
        self.rule: Rule = no_faults
        self._calls: list[Call] = []
        self._num_writes = 0
        self._num_others = 0
        self._open: dict[int, web.Request] = {}  # requests have no hash
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy")
        self._session: aiohttp.ClientSession | None = None
        self._runner: web.AppRunner | None = None

    @property
    def writes(self) -> tuple[Call, ...]:
        """Every write that changed the cluster or was meant to, in order of arrival."""
        return tuple(call for call in tuple(self._calls) if call.is_write)

    @property
    def calls(self) -> tuple[Call, ...]:
        """Every call, in order of arrival."""
        return tuple(self._calls)

    def reset(self) -> None:
        """Forget the calls, begin to count anew, and let everything pass."""
        self._wait(self._reset())

    def cut_connections(self) -> None:
        """End every call that is under way, watches among them."""
        self._wait(self._cut())

    def __enter__(self) -> Self:
        self._thread.start()
        port = self._wait(self._serve())
        write_kubeconfig(self.kubeconfig, f"http://{LOOPBACK}:{port}", None, None)
        return self

    def __exit__(self, *_: object) -> None:
        self._wait(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _wait(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    async def _serve(self) -> int:
        context = ssl.create_default_context(cafile=self._cluster["certificate-authority"])
        if "client-certificate" in self._user:
            context.load_cert_chain(self._user["client-certificate"], self._user["client-key"])
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=context, limit=0),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=5),
            auto_decompress=False,
        )
        app = web.Application(client_max_size=_LARGEST_BODY)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True)
        await self._runner.setup()
        site = web.TCPSite(self._runner, LOOPBACK, 0, shutdown_timeout=0)
        await site.start()
        port: int = self._runner.addresses[0][1]
        return port

    async def _close(self) -> None:
        await self._cut()
        if self._runner is not None:
            await self._runner.cleanup()
        if self._session is not None:
            await self._session.close()

    async def _cut(self) -> None:
        for request in tuple(self._open.values()):
            _cut(request)

    async def _reset(self) -> None:
        self._calls.clear()
        self._num_writes = self._num_others = 0
        self.rule = no_faults

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self._open[id(request)] = request
        try:
            body = await request.read()
            fault = self.rule(self._counted(request, body))
            return await self._outcome(request, body, fault)
        except aiohttp.ClientError:
            return _cut(request)  # an API server that is away looks like that too
        finally:
            self._open.pop(id(request), None)

    def _counted(self, request: web.Request, body: bytes) -> Call:
        headers = {name.lower(): value for name, value in request.headers.items()}
        call = Call(request.method, request.path, dict(request.query), headers, body=body)
        if call.is_write:
            self._num_writes += 1
            number = self._num_writes
        else:
            self._num_others += 1
            number = self._num_others
        kept = body if call.is_write else b""
        call = Call(call.method, call.path, call.query, headers, number, kept)
        self._calls.append(call)
        return call

    async def _outcome(
        self, request: web.Request, body: bytes, fault: Fault | None
    ) -> web.StreamResponse:
        match fault:
            case Answer():
                return _answer(fault)
            case Expired():
                return _expired()
            case Delay(seconds):
                await asyncio.sleep(seconds)
            case Cut(after=False):
                return _cut(request)
            case Kill(after=False):
                fault.strike()
                return _cut(request)
        return await self._forward(request, body, fault)

    async def _forward(
        self, request: web.Request, body: bytes, fault: Fault | None
    ) -> web.StreamResponse:
        assert self._session is not None
        url = self._cluster["server"].rstrip("/") + request.raw_path
        headers = {k: v for k, v in request.headers.items() if k.lower() not in _HOP_BY_HOP}
        async with self._session.request(
            request.method, url, data=body or None, headers=headers, allow_redirects=False
        ) as upstream:
            if isinstance(fault, Cut | Kill):
                await upstream.read()
                if isinstance(fault, Kill):
                    fault.strike()
                return _cut(request)
            response = web.StreamResponse(status=upstream.status, reason=upstream.reason)
            for name, value in upstream.headers.items():
                if name.lower() not in _HOP_BY_HOP:
                    response.headers.add(name, value)
            await response.prepare(request)
            async for piece in upstream.content.iter_any():
                await response.write(piece)
            await response.write_eof()
            return response


def _answer(fault: Answer) -> web.Response:
    details = {} if fault.retry_after_s is None else {"retryAfterSeconds": fault.retry_after_s}
    status = {**_failure(fault.status), "details": details}
    headers = {} if fault.retry_after_s is None else {"Retry-After": str(fault.retry_after_s)}
    return web.Response(
        status=fault.status,
        text=json.dumps(status),
        content_type="application/json",
        headers=headers,
    )


def _expired() -> web.Response:
    event = {"type": "ERROR", "object": _failure(410)}
    return web.Response(text=json.dumps(event) + "\n", content_type="application/json")


def _failure(code: int) -> dict[str, Any]:
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": f"injected {code}",
        "reason": _REASONS.get(code, ""),
        "code": code,
    }


def _cut(request: web.Request) -> web.Response:
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=502)  # nobody reads it
