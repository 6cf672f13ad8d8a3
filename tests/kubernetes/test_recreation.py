"""A RedService that is deleted and made anew while what belonged to the old one is still there."""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.kubernetes import definitions
from tests.kubernetes.operators import (
    Cluster,
    OperatorProcess,
    fake_kubelets,
    service,
    until_garbage_is_collected,
)
from tests.kubernetes.waiting import eventually
from tools.kubernetes.fault_proxy import FaultProxy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.kubernetes.operators import Manifest
    from tools.kubernetes.control_plane import ControlPlane
    from tools.kubernetes.faults import Call, Fault

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]
RESYNC_S = 600.0
"""Nothing here may be healed by looking again after a while."""


@pytest.fixture(scope="module", autouse=True)
def _ready_cluster(control_plane: ControlPlane) -> Iterator[None]:
    definitions.install(control_plane)
    until_garbage_is_collected(control_plane)
    with fake_kubelets(control_plane, nodes=3):
        yield


@pytest.fixture
def proxy(control_plane: ControlPlane, tmp_path: Path) -> Iterator[FaultProxy]:
    with FaultProxy(control_plane.kubeconfig, tmp_path) as started:
        yield started


@pytest.fixture
def operator(proxy: FaultProxy, tmp_path: Path) -> Iterator[OperatorProcess]:
    with OperatorProcess(proxy.kubeconfig, tmp_path / "log", resync_s=RESYNC_S) as started:
        yield started.until_ready()


@pytest.fixture
def cluster(control_plane: ControlPlane, operator: OperatorProcess, namespace: str) -> Cluster:
    return Cluster(control_plane, namespace)


@contextmanager
def no_controllers(control_plane: ControlPlane) -> Iterator[None]:
    """Nobody collects garbage, makes pods or accounts meanwhile."""
    pid = control_plane.pid("kube-controller-manager")
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def scaled() -> Manifest:
    made = service(encoder={"scaling": {"mode": "External", "minReplicas": 1, "maxReplicas": 4}})
    del made["spec"]["encoder"]["replicas"]
    return made


def owners(cluster: Cluster) -> set[str]:
    return {
        reference["uid"]
        for child in cluster.children("demo")
        for reference in child["metadata"].get("ownerReferences", ())
    }


def until_whole(cluster: Cluster, before: Manifest) -> None:
    """As before, and everything belongs to the RedService that there is now."""
    cluster.until_settled("demo")
    cluster.until_as("demo", before)
    owner = cluster.get("RedService", "demo")
    assert owner is not None
    assert owners(cluster) == {owner["metadata"]["uid"]}


def told(operator: OperatorProcess, *words: str) -> list[str]:
    """Lines of its log that have all of these words."""
    lines = operator.log.read_text().splitlines()
    return [line for line in lines if all(word in line for word in words)]


@pytest.mark.parametrize("make", [service, scaled])
def test_what_is_left_of_the_old_one_is_no_obstacle(
    control_plane: ControlPlane,
    cluster: Cluster,
    operator: OperatorProcess,
    make: Callable[[], Manifest],
) -> None:
    cluster.apply(make())
    cluster.until_settled("demo")
    before = cluster.snapshot("demo")
    with no_controllers(control_plane):
        cluster.delete("RedService", "demo")
        cluster.apply(make())
        cluster.until_condition("demo", "Accepted", status="True")
        cluster.until_condition("demo", "Degraded", status="False")
        owner = cluster.get("RedService", "demo")
        assert owner is not None
        eventually(lambda: owners(cluster) == {owner["metadata"]["uid"]})
    until_whole(cluster, before)
    assert not told(operator, cluster.namespace, "refused")


def test_a_size_that_was_asked_of_the_old_one_is_not_inherited(
    control_plane: ControlPlane, cluster: Cluster
) -> None:
    cluster.apply(scaled())
    cluster.until_settled("demo")
    before = cluster.snapshot("demo")
    control_plane.kubectl(
        "scale", "redpool", "demo-encoder", "--replicas=3", "-n", cluster.namespace
    )
    eventually(lambda: cluster.status("demo")["pools"][0]["readyText"] == "3/3", timeout_s=60.0)
    with no_controllers(control_plane):
        cluster.delete("RedService", "demo")
        cluster.apply(scaled())
        cluster.until_condition("demo", "Accepted", status="True")
    until_whole(cluster, before)


def test_accounts_that_leave_before_pods_are_tried(
    proxy: FaultProxy, cluster: Cluster, operator: OperatorProcess
) -> None:
    cluster.apply(service())
    cluster.until_settled("demo")
    left: list[str] = []

    def accounts_leave(call: Call) -> Fault | None:
        is_trial = "dryRun" in call.query and call.path.endswith(f"/{cluster.namespace}/pods")
        if is_trial and not left:
            for name in ("demo-router", "demo-worker"):
                cluster.delete("ServiceAccount", name)
                left.append(name)
        return None

    # In place of the garbage collector, at the worst moment: the operator has seen the accounts.
    with no_controllers(cluster.control_plane):
        proxy.rule = accounts_leave
        cluster.delete("RedService", "demo")
        cluster.apply(service(llm={"extraArgs": ["--min-chunk=32"]}))
        cluster.until_condition("demo", "Accepted", status="True")
    assert left
    cluster.until_settled("demo")
    owner = cluster.get("RedService", "demo")
    assert owner is not None
    eventually(lambda: owners(cluster) == {owner["metadata"]["uid"]})
    assert not told(operator, cluster.namespace, "refused")


def test_a_namespace_is_too_young_to_try_pods(
    control_plane: ControlPlane, operator: OperatorProcess, namespace: str
) -> None:
    """Namespace and RedService come in one file: the namespace's default account comes later."""
    cluster = Cluster(control_plane, namespace)
    with no_controllers(control_plane):
        cluster.delete("ServiceAccount", "default")
        cluster.apply(service())
        why = "error looking up service account"
        eventually(lambda: told(operator, namespace, "tried again", why))
        assert not cluster.status("demo")
    cluster.until_settled("demo", timeout_s=60.0)
    assert not told(operator, cluster.namespace, "refused")


def test_an_account_that_comes_later_is_found_soon(
    control_plane: ControlPlane, cluster: Cluster, operator: OperatorProcess
) -> None:
    """A manifest's objects are applied in some order: what it names may come after it."""
    cluster.apply(service(serviceAccountName="theirs"))
    refused = cluster.until_condition("demo", "Accepted", status="False")
    assert refused["reason"] == "InvalidPodTemplate"
    assert '"theirs" not found' in refused["message"]
    path = f"/api/v1/namespaces/{cluster.namespace}/serviceaccounts"
    control_plane.api.post(path, {"metadata": {"name": "theirs"}})
    cluster.until_settled("demo")
