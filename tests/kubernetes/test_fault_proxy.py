from __future__ import annotations

import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from redserve.errors import Unavailable
from tools.kubernetes.async_api import ApiError, open_api
from tools.kubernetes.client import ApiClient
from tools.kubernetes.fault_proxy import FaultProxy
from tools.kubernetes.faults import Answer, Call, Cut, Delay, kill_at_write, refuse_some

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tools.kubernetes.control_plane import ControlPlane

pytestmark = pytest.mark.cluster


@pytest.fixture
def proxy(control_plane: ControlPlane, tmp_path: Path) -> Iterator[FaultProxy]:
    with FaultProxy(control_plane.kubeconfig, tmp_path) as started:
        yield started


@pytest.fixture
def client(proxy: FaultProxy) -> Iterator[ApiClient]:
    made = ApiClient(proxy.kubeconfig)
    yield made
    made.close()


def maps(namespace: str) -> str:
    return f"/api/v1/namespaces/{namespace}/configmaps"


def config_map(name: str) -> dict[str, object]:
    return {"metadata": {"name": name}, "data": {"a": "b"}}


def test_calls_pass_and_writes_are_counted(
    proxy: FaultProxy, client: ApiClient, namespace: str
) -> None:
    client.post(maps(namespace), config_map("one"))
    client.patch(f"{maps(namespace)}/one", {"data": {"a": "c"}})
    assert client.get(f"{maps(namespace)}/one")["data"] == {"a": "c"}
    client.post(f"{maps(namespace)}?dryRun=All", config_map("two"))
    lease = {"metadata": {"name": "lock"}}
    client.post(f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases", lease)
    assert [(call.method, call.number) for call in proxy.writes] == [("POST", 1), ("PATCH", 2)]
    assert b'"one"' in proxy.writes[0].body
    assert len(proxy.calls) == 5
    proxy.reset()
    assert not proxy.calls


def test_kubectl_comes_through(
    proxy: FaultProxy, control_plane: ControlPlane, namespace: str
) -> None:
    written = control_plane.kubectl(
        *("--kubeconfig", str(proxy.kubeconfig)),
        *("create", "configmap", "here", "-n", namespace, "--from-literal=a=b"),
    )
    assert "created" in written
    assert len(proxy.writes) == 1


async def test_watches_stream_and_are_cut(
    proxy: FaultProxy, control_plane: ControlPlane, namespace: str
) -> None:
    control_plane.api.post(maps(namespace), config_map("first"))
    async with open_api(proxy.kubeconfig) as api:
        changes = api.follow(maps(namespace), fieldSelector="metadata.name!=kube-root-ca.crt")
        assert (await anext(changes)).object["metadata"]["name"] == "first"
        control_plane.api.post(maps(namespace), config_map("second"))
        assert (await anext(changes)).object["metadata"]["name"] == "second"
        proxy.cut_connections()
        control_plane.api.delete(f"{maps(namespace)}/first")
        assert (await anext(changes)).type in ("DELETED", "ADDED")
    watches = [call for call in proxy.calls if call.is_watch]
    assert len(watches) >= 1


def test_refusals(proxy: FaultProxy, client: ApiClient, namespace: str) -> None:
    proxy.rule = lambda call: Answer(429, retry_after_s=1) if call.is_write else None
    with pytest.raises(ApiError) as refused:
        client.post(maps(namespace), config_map("one"))
    assert refused.value.status == 429
    assert not client.exists(f"{maps(namespace)}/one")


@pytest.mark.parametrize("after", [False, True])
def test_cuts(proxy: FaultProxy, client: ApiClient, namespace: str, after: bool) -> None:
    proxy.rule = lambda call: Cut(after=after) if call.is_write else None
    with pytest.raises(Unavailable):
        client.post(maps(namespace), config_map("one"))
    assert client.exists(f"{maps(namespace)}/one") is after


def test_delays(proxy: FaultProxy, client: ApiClient, namespace: str) -> None:
    proxy.rule = lambda _: Delay(0.3)
    began = time.monotonic()
    client.get(maps(namespace))
    assert time.monotonic() - began >= 0.3


KILLED = """
import sys
from pathlib import Path
from tools.kubernetes.client import ApiClient
sys.stdin.readline()
client = ApiClient(Path(sys.argv[1]))
for name in ("one", "two", "three"):
    client.post(sys.argv[2], {"metadata": {"name": name}})
"""


@pytest.mark.parametrize("after", [False, True])
def test_a_process_dies_at_its_second_write(
    proxy: FaultProxy, control_plane: ControlPlane, namespace: str, after: bool
) -> None:
    command = [sys.executable, "-c", KILLED, str(proxy.kubeconfig), maps(namespace)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, text=True) as process:
        proxy.rule = kill_at_write(2, process.pid, after=after)
        process.communicate("go\n", timeout=30)
    assert process.returncode == -signal.SIGKILL
    there = {item["metadata"]["name"] for item in control_plane.api.get(maps(namespace))["items"]}
    assert there - {"kube-root-ca.crt"} == ({"one", "two"} if after else {"one"})


def test_an_api_server_that_is_away_is_away(
    proxy: FaultProxy, client: ApiClient, control_plane: ControlPlane
) -> None:
    control_plane.stop_api_server(kill=True)
    try:
        with pytest.raises(Unavailable):
            client.get("/version")
    finally:
        control_plane.start_api_server()
    assert client.get("/version")


def test_the_share_of_refusals() -> None:
    rule = refuse_some(0.25)
    read = Call("GET", "/api/v1/pods", {}, {})
    outcomes = [rule(read) for _ in range(1000)]
    refused = [fault for fault in outcomes if isinstance(fault, Answer)]
    assert 200 < len(refused) < 300
    assert {fault.status for fault in refused} == {429, 500}
    watch = Call("GET", "/api/v1/pods", {"watch": "true"}, {})
    assert all(rule(watch) is None for _ in range(100))
