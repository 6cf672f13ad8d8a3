"""Discovery as a router's pod does it, against a real API server and its controllers."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import CollectorRegistry

from redserve.spec.settings import RouterSettings
from redserve_router.discovery.account import ServiceAccount
from redserve_router.discovery.api import SliceApi
from redserve_router.discovery.discovery import discovery_for
from redserve_router.discovery.problem import Problem
from redserve_router.discovery.timing import Timing
from tests.kubernetes.waiting import eventually_async

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator
    from pathlib import Path

    from redserve.routing import Member
    from redserve_router.discovery.discovery import Discovery
    from tools.kubernetes.control_plane import ControlPlane

pytestmark = pytest.mark.cluster

ENCODERS, LLMS = "demo-encoder-0badcafe", "demo-llm-0badcafe"
RBAC = "rbac.authorization.k8s.io"
SLICES = "discovery.k8s.io"


class Router:
    """A pod's ServiceAccount on disk, and what discovery told of the LLM replicas."""

    def __init__(self, plane: ControlPlane, namespace: str, folder: Path) -> None:
        self.plane = plane
        self.namespace = namespace
        self.folder = folder
        self.registry = CollectorRegistry()
        self.llms: dict[str, bool] | None = None
        self.discovery: Discovery
        folder.mkdir(exist_ok=True)
        (folder / "ca.crt").write_bytes(plane.authority.read_bytes())
        (folder / "namespace").write_text(namespace)

    def mount_token_of(self, account: str) -> None:
        root = f"/api/v1/namespaces/{self.namespace}/serviceaccounts"
        self.plane.api.post(root, {"metadata": {"name": account}})
        told = self.plane.api.post(f"{root}/{account}/token", {"spec": {"expirationSeconds": 600}})
        (self.folder / "token").write_text(told["status"]["token"])

    def grant(self, account: str) -> None:
        root = f"/apis/{RBAC}/v1/namespaces/{self.namespace}"
        rule = {"apiGroups": [SLICES], "resources": ["endpointslices"], "verbs": ["list", "watch"]}
        self.plane.api.post(f"{root}/roles", {"metadata": {"name": account}, "rules": [rule]})
        subject = {"kind": "ServiceAccount", "name": account, "namespace": self.namespace}
        self.plane.api.post(
            f"{root}/rolebindings",
            {
                "metadata": {"name": account},
                "subjects": [subject],
                "roleRef": {"apiGroup": RBAC, "kind": "Role", "name": account},
            },
        )

    def publish(self, name: str, *addresses: str, service: str = LLMS, **conditions: bool) -> None:
        path = f"/apis/{SLICES}/v1/namespaces/{self.namespace}/endpointslices"
        body: dict[str, Any] = {
            "metadata": {"name": name, "labels": {"kubernetes.io/service-name": service}},
            "addressType": "IPv4",
            "ports": [{"name": "grpc", "port": 50051, "protocol": "TCP"}],
            "endpoints": [{"addresses": [a], "conditions": conditions} for a in addresses],
        }
        if self.plane.api.exists(f"{path}/{name}"):
            self.plane.api.patch(f"{path}/{name}", body)
        else:
            self.plane.api.post(path, body)

    def withdraw(self, name: str) -> None:
        self.plane.api.delete(
            f"/apis/{SLICES}/v1/namespaces/{self.namespace}/endpointslices/{name}"
        )

    def tell(self, members: Iterable[Member]) -> None:
        self.llms = {member.address.partition(":")[0]: member.takes_work for member in members}

    def problems(self, kind: str) -> float:
        name = "redserve_discovery_problems_total"
        return self.registry.get_sample_value(name, {"kind": kind}) or 0.0

    async def until(self, holds: Callable[[], Any], timeout_s: float = 30.0) -> None:
        async def look() -> Any:
            return holds()

        await eventually_async(look, timeout_s=timeout_s)

    async def until_llms(self, **wanted: bool) -> None:
        """`a=True`: 10.0.0.1 takes work."""
        by_address = {f"10.0.0.{'_abcdef'.index(key)}": value for key, value in wanted.items()}
        await self.until(lambda: self.llms == by_address)

    async def until_synced(self) -> None:
        await self.until(lambda: self.discovery.status.synced)


@pytest.fixture
def router(control_plane: ControlPlane, namespace: str, tmp_path: Path) -> Router:
    router = Router(control_plane, namespace, tmp_path / "serviceaccount")
    router.mount_token_of("router")
    return router


@asynccontextmanager
async def discovering(router: Router, **timing: float) -> AsyncIterator[None]:
    settings = RouterSettings.model_validate(
        {
            "encoder_service": ENCODERS,
            "llm_service": LLMS,
            "service_account_dir": str(router.folder),
        }
    )
    server, nothing = router.plane.server, lambda _: None
    quick = Timing(**{"first_backoff_s": 0.05, "longest_backoff_s": 0.5, **timing})
    found = discovery_for(settings, server, nothing, router.tell, router.registry, quick)
    assert found is not None
    router.discovery = found
    found.start()
    try:
        yield
    finally:
        await found.stop()


async def test_needs_its_role_and_then_hears_of_every_change(router: Router) -> None:
    router.publish("llm-1", "10.0.0.1")
    async with discovering(router):
        await router.until(lambda: router.problems("forbidden") >= 2)
        why = router.discovery.status.why_not_ready or ""
        assert "Role" in why
        assert f'"system:serviceaccount:{router.namespace}:router" cannot list' in why
        router.grant("router")
        await router.until_llms(a=True)
        assert router.discovery.status.why_not_ready is None
        router.publish("llm-2", "10.0.0.2", "10.0.0.3", serving=False)
        router.publish("other", "10.0.0.6", service="demo-llm-deadbeef")
        await router.until_llms(a=True, b=False, c=False)
        router.publish("llm-2", "10.0.0.2", serving=True)
        await router.until_llms(a=True, b=True)
        router.publish("llm-1", "10.0.0.1", serving=True, terminating=True)
        await router.until_llms(a=False, b=True)
        router.withdraw("llm-1")
        await router.until_llms(b=True)


@pytest.mark.parametrize("kill", [False, True])
async def test_the_api_server_goes_and_returns(router: Router, kill: bool) -> None:
    router.grant("router")
    router.publish("llm-1", "10.0.0.1")
    async with discovering(router):
        await router.until_llms(a=True)
        await router.until_synced()
        await asyncio.to_thread(router.plane.stop_api_server, kill=kill)
        try:
            await router.until(lambda: router.problems("unreachable") >= 2)
            assert router.llms == {"10.0.0.1": True}
            assert router.discovery.status.remark is not None
        finally:
            # Not in another thread: the process ends with the thread that started it.
            router.plane.start_api_server()
            router.plane.api.close()  # its connection has died with the old one
        router.publish("llm-1", "10.0.0.2")
        await router.until_llms(b=True)
        await router.until_synced()


async def test_quiet_watches_end_and_go_on_without_a_problem(router: Router) -> None:
    router.grant("router")
    async with discovering(router, watch_s=1.0):
        await router.until_synced()
        heard: set[float] = set()
        name = "redserve_discovery_last_sync_timestamp_seconds"

        def note() -> bool:
            heard.add(router.registry.get_sample_value(name) or 0.0)
            return len(heard) >= 4

        await router.until(note)
        assert router.discovery.status.synced
        router.publish("llm-1", "10.0.0.1")
        await router.until_llms(a=True)
        assert router.problems("unreachable") == 0


async def test_a_new_token_replaces_one_that_is_worth_nothing_any_more(router: Router) -> None:
    router.grant("router")
    async with discovering(router, watch_s=1.0):
        await router.until_synced()
        router.plane.api.delete(f"/api/v1/namespaces/{router.namespace}/serviceaccounts/router")
        # The API server remembers for some seconds whom it has let in.
        await router.until(lambda: router.problems("unauthorized"), timeout_s=60.0)
        assert not router.discovery.status.synced
        router.mount_token_of("router")
        await router.until_synced()
        router.publish("llm-1", "10.0.0.1")
        await router.until_llms(a=True)


async def test_what_is_too_old_is_said_to_be(router: Router) -> None:
    router.grant("router")
    account = ServiceAccount(str(router.folder))
    api = SliceApi(router.plane.server, account, router.namespace, (LLMS,), Timing())

    async def watch_from_the_beginning() -> None:
        async with api.watch("1") as changes:
            async for _ in changes:
                pass

    try:
        with pytest.raises(Problem) as caught:
            await watch_from_the_beginning()
        assert caught.value.kind == "expired"
    finally:
        await api.close()


@pytest.fixture
def node(control_plane: ControlPlane, namespace: str) -> Iterator[str]:
    """One without a kubelet: the endpoints' controller only asks whether it is there."""
    name = f"node-of-{namespace}"
    control_plane.api.post("/api/v1/nodes", {"metadata": {"name": name}})
    yield name
    control_plane.api.delete(f"/api/v1/nodes/{name}")


async def test_slices_of_the_real_controller(router: Router, node: str) -> None:
    """A pod becomes ready, fails its probe, is deleted with a grace, and is gone."""
    router.grant("router")
    api, root = router.plane.api, f"/api/v1/namespaces/{router.namespace}"
    labels = {"redserve.dev/pool": "llm"}
    api.post(
        f"{root}/services",
        {
            "metadata": {"name": LLMS},
            "spec": {
                "clusterIP": "None",
                "selector": labels,
                "ports": [{"name": "grpc", "port": 50051, "targetPort": "grpc"}],
            },
        },
    )
    container = {
        "name": "main",
        "image": "any",
        "ports": [{"name": "grpc", "containerPort": 50051}],
    }
    spec = {"nodeName": node, "containers": [container]}
    api.post(f"{root}/pods", {"metadata": {"name": "llm", "labels": labels}, "spec": spec})

    def say(*, ready: bool) -> None:
        conditions = [{"type": "Ready", "status": str(ready)}]
        ips = {"podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}]}
        status = {"phase": "Running", "conditions": conditions, **ips}
        api.patch(f"{root}/pods/llm/status", {"status": status})

    async with discovering(router):
        say(ready=False)
        await router.until_llms(a=False)
        say(ready=True)
        await router.until_llms(a=True)
        say(ready=False)
        await router.until_llms(a=False)
        say(ready=True)
        await router.until_llms(a=True)
        api.delete(f"{root}/pods/llm", {"gracePeriodSeconds": 60})
        await router.until_llms(a=False)
        api.delete(f"{root}/pods/llm", {"gracePeriodSeconds": 0})
        await router.until_llms()
