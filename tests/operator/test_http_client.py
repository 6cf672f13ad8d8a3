"""The client against a real HTTP server that misbehaves as told."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from kubernetes.aio.client.configuration import Configuration
from prometheus_client import CollectorRegistry

from redserve.telemetry.metrics.operator import OperatorMetrics
from redserve_operator.kube.backoff import Backoff
from redserve_operator.kube.errors import Conflict, Invalid, KubeError, NotFound, Retryable
from redserve_operator.kube.http_client import HttpKubeClient
from redserve_operator.kube.kinds import DEPLOYMENT, LEASE
from tests.operator.samples import child

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    Answerer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Server:
    """Plays answers in order; the last one repeats."""

    answers: list[Answerer | tuple[int, Any, dict[str, str]]] = field(default_factory=list)
    requests: list[tuple[str, str, dict[str, str], dict[str, str], Any]] = field(
        default_factory=list
    )
    url: str = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        text = await request.text()
        self.requests.append(
            (
                request.method,
                request.path,
                dict(request.query),
                dict(request.headers),
                json.loads(text) if text else None,
            )
        )
        answer = self.answers[min(len(self.requests), len(self.answers)) - 1]
        if not isinstance(answer, tuple):
            return await answer(request)
        status, body, headers = answer
        return web.json_response(body, status=status, headers=headers)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    made = Server()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", made.handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, shutdown_timeout=0.1)
    await site.start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield made
    await runner.cleanup()


@pytest.fixture
def metrics() -> OperatorMetrics:
    return OperatorMetrics(CollectorRegistry())


@pytest.fixture
def slept() -> list[float]:
    return []


@pytest.fixture
def patience_s() -> float:
    """For one request."""
    return 20.0


@pytest.fixture
async def client(
    server: Server, metrics: OperatorMetrics, slept: list[float], patience_s: float
) -> AsyncIterator[HttpKubeClient]:
    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    made = HttpKubeClient(
        Configuration(host=server.url),
        metrics,
        request_timeout_s=patience_s,
        num_attempts=4,
        backoff=Backoff(0.2, 10.0, jitter=0.0),
        sleep=sleep,
    )
    yield made
    await made.close()


def ok(body: Any = None) -> tuple[int, Any, dict[str, str]]:
    return 200, body or {"kind": "Deployment", "metadata": {"name": "d"}}, {}


def no(status: int, message: str = "no", **headers: str) -> tuple[int, Any, dict[str, str]]:
    return status, {"kind": "Status", "message": message}, headers


MANIFEST = child("Deployment", "d", spec={"replicas": 1})


async def test_a_patch_merges_by_kubernetes_rules_and_names_the_manager(
    server: Server, client: HttpKubeClient
) -> None:
    server.answers = [ok()]
    await client.patch(MANIFEST, "redserve-operator")
    method, path, query, headers, _body = server.requests[0]
    assert (method, path) == ("PATCH", "/apis/apps/v1/namespaces/ns/deployments/d")
    assert query == {"fieldManager": "redserve-operator"}
    assert headers["Content-Type"] == "application/strategic-merge-patch+json"


async def test_apply_is_a_forced_patch_under_a_manager(
    server: Server, client: HttpKubeClient, metrics: OperatorMetrics
) -> None:
    server.answers = [ok({"kind": "Deployment", "answer": 1})]
    assert await client.apply(MANIFEST, "redserve-operator") == {"kind": "Deployment", "answer": 1}
    method, path, query, headers, body = server.requests[0]
    assert (method, path) == ("PATCH", "/apis/apps/v1/namespaces/ns/deployments/d")
    assert query == {"fieldManager": "redserve-operator", "force": "true"}
    assert headers["Content-Type"] == "application/apply-patch+yaml"
    assert body == MANIFEST
    samples = {
        tuple(sorted(sample.labels.items())): sample.value
        for family in metrics.api_request.collect()
        for sample in family.samples
        if sample.name.endswith("_count")
    }
    assert samples == {(("code", "200"), ("verb", "apply")): 1.0}


async def test_every_other_call_has_its_path(server: Server, client: HttpKubeClient) -> None:
    server.answers = [ok()]
    await client.apply_status(MANIFEST, "m")
    await client.create(MANIFEST, "m")
    await client.dry_run(MANIFEST, "m")
    await client.replace(MANIFEST)
    await client.delete(DEPLOYMENT, "ns", "d", "u1")
    await client.get(LEASE, "ns", "lock")
    seen = [(method, path, query) for method, path, query, _, _ in server.requests]
    root = "/apis/apps/v1/namespaces/ns/deployments"
    assert seen == [
        ("PATCH", f"{root}/d/status", {"fieldManager": "m", "force": "true"}),
        ("POST", root, {"fieldManager": "m"}),
        ("POST", root, {"fieldManager": "m", "dryRun": "All", "fieldValidation": "Strict"}),
        ("PUT", f"{root}/d", {}),
        ("DELETE", f"{root}/d", {}),
        ("GET", "/apis/coordination.k8s.io/v1/namespaces/ns/leases/lock", {}),
    ]
    options = server.requests[4][4]
    assert options["preconditions"] == {"uid": "u1"}
    assert options["propagationPolicy"] == "Background"


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
async def test_a_server_in_trouble_is_asked_again_ever_later(
    server: Server, client: HttpKubeClient, slept: list[float], status: int
) -> None:
    server.answers = [no(status), no(status), no(status), ok()]
    await client.apply(MANIFEST, "m")
    assert slept == [0.2, 0.4, 0.8]
    assert len(server.requests) == 4


async def test_the_attempts_end(server: Server, client: HttpKubeClient) -> None:
    server.answers = [no(503, "etcd is away")]
    with pytest.raises(Retryable, match="etcd is away") as raised:
        await client.apply(MANIFEST, "m")
    assert raised.value.status == 503
    assert len(server.requests) == 4


async def test_retry_after_is_honoured_and_a_long_one_is_left_to_the_queue(
    server: Server, client: HttpKubeClient, slept: list[float]
) -> None:
    server.answers = [no(429, "busy", **{"Retry-After": "3"}), ok()]
    await client.apply(MANIFEST, "m")
    assert 3.0 <= slept[0] <= 3.3
    server.requests.clear()
    server.answers = [no(429, "busy", **{"Retry-After": "60"}), ok()]
    with pytest.raises(Retryable) as raised:
        await client.apply(MANIFEST, "m")
    assert raised.value.retry_after_s == 60.0
    assert len(server.requests) == 1


@pytest.mark.parametrize("patience_s", [0.5])
async def test_silence_has_an_end(
    server: Server, client: HttpKubeClient, metrics: OperatorMetrics
) -> None:
    async def never(_: web.Request) -> web.StreamResponse:
        await asyncio.sleep(30)
        raise AssertionError

    server.answers = [never, ok()]
    await client.apply(MANIFEST, "m")
    assert len(server.requests) == 2
    codes = {s.labels["code"] for f in metrics.api_request.collect() for s in f.samples}
    assert codes == {"none", "200"}


async def test_a_broken_connection_is_tried_again(server: Server, client: HttpKubeClient) -> None:
    async def cut(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    async def half(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "1000"})
        await response.prepare(request)
        await response.write(b'{"kind":')
        assert request.transport is not None
        request.transport.abort()
        return response

    server.answers = [cut, half, ok()]
    await client.apply(MANIFEST, "m")
    assert len(server.requests) == 3


async def test_nobody_listens(client: HttpKubeClient, slept: list[float]) -> None:
    client._access.host = "http://127.0.0.1:9"
    with pytest.raises(Retryable, match="no connection"):
        await client.get(LEASE, "ns", "lock")
    assert len(slept) == 3


@pytest.mark.parametrize(
    ("status", "kind"), [(409, Conflict), (404, NotFound), (422, Invalid), (400, Invalid)]
)
async def test_a_refusal_is_not_repeated(
    server: Server, client: HttpKubeClient, status: int, kind: type[KubeError]
) -> None:
    server.answers = [no(status, "spec.x: not so")]
    with pytest.raises(kind, match="not so"):
        await client.create(MANIFEST, "m")
    assert len(server.requests) == 1


@pytest.mark.parametrize("body", ["<html>", "[1]", ""])
async def test_an_answer_that_is_none(server: Server, client: HttpKubeClient, body: str) -> None:
    async def strange(_: web.Request) -> web.StreamResponse:
        return web.Response(text=body)

    server.answers = [strange]
    with pytest.raises(KubeError, match="no JSON"):
        await client.get(LEASE, "ns", "lock")


async def test_lists_come_in_pages_of_one_moment(server: Server, client: HttpKubeClient) -> None:
    def page(name: str, further: str, version: str) -> tuple[int, Any, dict[str, str]]:
        item = {"name": name, "namespace": "ns", "uid": f"u-{name}", "resourceVersion": "7"}
        metadata = {"resourceVersion": version, "continue": further}
        return 200, {"metadata": metadata, "items": [{"metadata": item}]}, {}

    server.answers = [page("a", "token", "10"), page("b", "", "10")]
    listing = await client.list_metadata(DEPLOYMENT, None, "redserve.dev/service")
    assert listing.version == 10
    assert [(one.name, one.version) for one in listing.objects] == [("a", 7), ("b", 7)]
    _, path, query, headers, _ = server.requests[1]
    assert path == "/apis/apps/v1/deployments"
    assert query == {"limit": "250", "labelSelector": "redserve.dev/service", "continue": "token"}
    assert "PartialObjectMetadataList" in headers["Accept"]


async def test_whether_a_kind_can_be_listed_is_asked_with_one_object(
    server: Server, client: HttpKubeClient
) -> None:
    server.answers = [ok({"metadata": {"continue": "more"}, "items": [{}]}), no(403, "no right")]
    await client.try_list(DEPLOYMENT, "ns")
    with pytest.raises(KubeError, match="no right"):
        await client.try_list(DEPLOYMENT, None)
    assert [(request[1], request[2]) for request in server.requests] == [
        ("/apis/apps/v1/namespaces/ns/deployments", {"limit": "1"}),
        ("/apis/apps/v1/deployments", {"limit": "1"}),
    ]


async def test_an_empty_list_may_be_null(server: Server, client: HttpKubeClient) -> None:
    server.answers = [ok({"metadata": {"resourceVersion": "3"}, "items": None})]
    assert (await client.list_metadata(DEPLOYMENT, "ns", "")).objects == ()


async def test_kinds_that_nobody_serves(server: Server, client: HttpKubeClient) -> None:
    server.answers = [no(404), ok({"resources": [{"kind": "PodMonitor"}, {"kind": "Probe"}]})]
    assert await client.served_kinds("monitoring.coreos.com/v1") == frozenset()
    assert await client.served_kinds("monitoring.coreos.com/v1") == {"PodMonitor", "Probe"}
