"""The API server refuses, forgets, cuts and goes away; the operator outlasts it."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.kubernetes import definitions
from tests.kubernetes.operators import Cluster, OperatorProcess, fake_kubelets, quiet, service
from tests.kubernetes.waiting import eventually
from tools.kubernetes.async_api import ApiError
from tools.kubernetes.fault_proxy import FaultProxy
from tools.kubernetes.faults import Answer, Call, Cut, Expired, Fault, refuse_some

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.kubernetes.operators import Manifest
    from tools.kubernetes.control_plane import ControlPlane
    from tools.kubernetes.faults import Rule

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]


@pytest.fixture(scope="module", autouse=True)
def _ready_cluster(control_plane: ControlPlane) -> Iterator[None]:
    definitions.install(control_plane)
    with fake_kubelets(control_plane, nodes=3):
        yield


@pytest.fixture
def proxy(control_plane: ControlPlane, tmp_path: Path) -> Iterator[FaultProxy]:
    with FaultProxy(control_plane.kubeconfig, tmp_path) as started:
        yield started


@pytest.fixture
def operator(proxy: FaultProxy, namespace: str, tmp_path: Path) -> Iterator[OperatorProcess]:
    with OperatorProcess(
        proxy.kubeconfig, tmp_path / "log", watch_namespaces=(namespace,)
    ) as started:
        yield started.until_ready()


@pytest.fixture
def cluster(control_plane: ControlPlane, namespace: str) -> Cluster:
    return Cluster(control_plane, namespace)


def test_one_call_in_four_is_refused(
    proxy: FaultProxy, operator: OperatorProcess, cluster: Cluster
) -> None:
    proxy.rule = refuse_some(0.25)
    cluster.apply(service())
    cluster.until_settled("demo", timeout_s=90.0)
    cluster.apply(service(llm={"extraArgs": ["--min-chunk=32"]}))
    cluster.until_settled("demo", timeout_s=90.0)
    assert operator.is_running
    refused = operator.figure("api_request_duration_seconds_count", 'code="429"')
    assert refused + operator.figure("api_request_duration_seconds_count", 'code="500"') > 5


def test_one_write_in_three_is_lost_on_the_way_back(
    proxy: FaultProxy, operator: OperatorProcess, cluster: Cluster
) -> None:
    def rule(call: Call) -> Fault | None:
        return Cut(after=True) if call.is_write and call.number % 3 == 0 else None

    proxy.rule = rule
    cluster.apply(service())
    cluster.until_settled("demo", timeout_s=90.0)
    assert len(cluster.children("demo")) == 24


def test_a_service_whose_writes_fail_for_long_is_told_of_it(
    proxy: FaultProxy, operator: OperatorProcess, cluster: Cluster
) -> None:
    def rule(call: Call) -> Fault | None:
        is_child = call.is_write and "/networkpolicies/" in call.path
        return Answer(500) if is_child else None

    proxy.rule = rule
    cluster.apply(service())
    eventually(lambda: "ReconcileFailed" in cluster.events("demo"), timeout_s=60.0)
    proxy.reset()
    cluster.until_settled("demo", timeout_s=90.0)


def test_an_object_that_is_refused_is_told_in_the_servers_words(
    proxy: FaultProxy, operator: OperatorProcess, cluster: Cluster
) -> None:
    def rule(call: Call) -> Fault | None:
        is_child = call.is_write and "/rolebindings/" in call.path
        return Answer(403) if is_child else None

    proxy.rule = rule
    cluster.apply(service())
    found = cluster.until_condition("demo", "Accepted", status="False")
    assert found["reason"] == "ObjectRefused"
    assert "RoleBinding" in found["message"]
    proxy.reset()
    # A refused object is tried again within half a minute.
    cluster.until_settled("demo", timeout_s=90.0)


def on_watches_of(plural: str, fault: Fault) -> Rule:
    """The fault befalls watches of a kind."""

    def rule(call: Call) -> Fault | None:
        return fault if call.is_watch and call.path.endswith(f"/{plural}") else None

    return rule


def test_what_happened_while_watches_were_cut_is_seen(
    proxy: FaultProxy, operator: OperatorProcess, cluster: Cluster
) -> None:
    cluster.apply(service())
    cluster.until_settled("demo")

    def no_watches(call: Call) -> Fault | None:
        return Cut() if call.is_watch else None

    proxy.rule = no_watches
    proxy.cut_connections()
    cluster.delete("PodDisruptionBudget", "demo-llm")
    cluster.patch("Service", "demo", {"spec": {"selector": {"app": "mine"}}})
    proxy.reset()
    eventually(lambda: cluster.get("PodDisruptionBudget", "demo-llm") is not None)
    eventually(lambda: "app" not in (cluster.get("Service", "demo") or {})["spec"]["selector"])


def test_what_vanished_while_the_watch_was_too_old_is_seen(
    control_plane: ControlPlane, proxy: FaultProxy, namespace: str, tmp_path: Path
) -> None:
    cluster = Cluster(control_plane, namespace)
    with OperatorProcess(
        proxy.kubeconfig, tmp_path / "log", watch_namespaces=(namespace,), resync_s=4.0
    ) as operator:
        operator.until_ready()
        cluster.apply(service())
        cluster.until_settled("demo")

        # The watch of budgets begins anew for ever: lists tell what is there, nothing tells what
        # was deleted.
        proxy.rule = on_watches_of("poddisruptionbudgets", Expired())
        proxy.cut_connections()
        cluster.delete("PodDisruptionBudget", "demo-llm")
        eventually(lambda: cluster.get("PodDisruptionBudget", "demo-llm") is not None)
        assert operator.is_running, operator.tail()


def test_a_watch_that_is_refused_for_good_ends_the_process(
    control_plane: ControlPlane, proxy: FaultProxy, namespace: str, tmp_path: Path
) -> None:
    cluster = Cluster(control_plane, namespace)
    operator = OperatorProcess(proxy.kubeconfig, tmp_path / "log", watch_namespaces=(namespace,))
    with operator:
        operator.until_ready()
        cluster.apply(service())
        cluster.until_settled("demo")
        proxy.rule = on_watches_of("poddisruptionbudgets", Answer(410))
        proxy.cut_connections()
        # Nobody would hear of what happens to that kind: a new process has to begin anew.
        eventually(lambda: not operator.is_running)
        assert operator.process is not None
        assert operator.process.returncode == 1, operator.tail()
        proxy.reset()
        cluster.delete("PodDisruptionBudget", "demo-llm")
        operator.start().until_ready()
        eventually(lambda: cluster.get("PodDisruptionBudget", "demo-llm") is not None)


def test_the_api_server_goes_and_comes_back(
    control_plane: ControlPlane, namespace: str, tmp_path: Path
) -> None:
    cluster = Cluster(control_plane, namespace)
    with OperatorProcess(
        control_plane.kubeconfig, tmp_path / "log", watch_namespaces=(namespace,)
    ) as operator:
        operator.until_ready()
        cluster.apply(service())
        cluster.until_settled("demo")
        control_plane.stop_api_server(kill=True)
        try:
            assert operator.is_running
        finally:
            control_plane.start_api_server()
        cluster.apply(service(encoder={"replicas": 3}))
        cluster.until_settled("demo", timeout_s=90.0)
        assert operator.is_running, operator.tail()
        assert cluster.status("demo")["pools"][0]["readyText"] == "3/3"

        def writes() -> int:
            return int(operator.figure("applies_total"))

        quiet(writes, for_s=1.0)


@contextmanager
def no_network_policies(cluster: Cluster) -> Iterator[None]:
    """A policy of the cluster's owner that denies NetworkPolicies in the namespace."""
    base = "/apis/admissionregistration.k8s.io/v1"
    name = f"no-policies-{cluster.namespace}"
    policy = {
        "metadata": {"name": name},
        "spec": {
            "matchConstraints": {
                "resourceRules": [
                    {
                        "apiGroups": ["networking.k8s.io"],
                        "apiVersions": ["v1"],
                        "operations": ["CREATE", "UPDATE"],
                        "resources": ["networkpolicies"],
                    }
                ]
            },
            "validations": [{"expression": "false", "message": "only admins write these"}],
        },
    }
    here = {"kubernetes.io/metadata.name": cluster.namespace}
    binding = {
        "metadata": {"name": name},
        "spec": {
            "policyName": name,
            "validationActions": ["Deny"],
            "matchResources": {"namespaceSelector": {"matchLabels": here}},
        },
    }
    cluster.api.post(f"{base}/validatingadmissionpolicies", policy)
    cluster.api.post(f"{base}/validatingadmissionpolicybindings", binding)
    try:
        eventually(lambda: _is_denied(cluster), timeout_s=60.0)
        yield
    finally:
        cluster.api.delete(f"{base}/validatingadmissionpolicybindings/{name}")
        cluster.api.delete(f"{base}/validatingadmissionpolicies/{name}")


def _is_denied(cluster: Cluster) -> bool:
    probe = {"metadata": {"name": "probe"}, "spec": {"podSelector": {}}}
    path = f"/apis/networking.k8s.io/v1/namespaces/{cluster.namespace}/networkpolicies"
    try:
        cluster.api.post(f"{path}?dryRun=All", probe)
    except ApiError:
        return True
    return False


def test_a_policy_against_one_kind_holds_up_nothing_else(
    operator: OperatorProcess, cluster: Cluster
) -> None:
    cluster.apply(service())
    cluster.until_settled("demo")
    with no_network_policies(cluster):
        for found in cluster.children("demo"):
            if found["kind"] == "NetworkPolicy":
                cluster.delete("NetworkPolicy", found["metadata"]["name"])
        refused = cluster.until_condition("demo", "Accepted", status="False")
        assert refused["reason"] == "ObjectRefused"
        assert "NetworkPolicy" in refused["message"]
        assert "only admins write these" in refused["message"]
        cluster.until_condition("demo", "Degraded", status="True", reason="ObjectRefused")
        cluster.until_condition("demo", "Progressing", reason="RolloutComplete")

        cluster.apply(service(encoder={"replicas": 3}))
        eventually(lambda: cluster.status("demo")["pools"][0]["readyText"] == "3/3")
        gone = next(one for one in cluster.children("demo") if one["kind"] == "Deployment")
        name, uid = gone["metadata"]["name"], gone["metadata"]["uid"]
        cluster.delete("Deployment", name)
        eventually(
            lambda: (cluster.get("Deployment", name) or gone)["metadata"]["uid"] != uid,
        )
        cluster.apply(service(reconcile="Stopped"))
        eventually(lambda: not cluster.pods("demo"))
    cluster.apply(service())
    # A refused object is tried again within half a minute.
    cluster.until_settled("demo", timeout_s=90.0)


def test_objects_of_somebody_else_are_left_alone(
    operator: OperatorProcess, cluster: Cluster
) -> None:
    theirs: list[Manifest] = [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "demo"},
            "spec": {"selector": {"app": "theirs"}, "ports": [{"port": 80}]},
        },
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "demo-router"}},
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": "demo-router"},
            "spec": {"podSelector": {"matchLabels": {"app": "theirs"}}},
        },
    ]
    before = [cluster.apply(one) for one in theirs]

    def are_untouched() -> bool:
        found = [cluster.get(one["kind"], one["metadata"]["name"]) for one in theirs]
        return found == before

    cluster.apply(service())
    refused = cluster.until_condition("demo", "Accepted", status="False")
    assert refused["reason"] == "ObjectRefused"
    assert "was not made for this RedService" in refused["message"]
    assert "(and 2 more)" in refused["message"]
    cluster.until_condition("demo", "Progressing", status="False", reason="ObjectRefused")
    # Pools that need none of these come up.
    eventually(lambda: cluster.status("demo")["pools"][0]["readyText"] == "2/2")
    assert are_untouched()
    cluster.delete("RedService", "demo")
    eventually(lambda: not cluster.children("demo"), timeout_s=60.0)
    assert are_untouched()

    cluster.apply(service())
    cluster.until_condition("demo", "Accepted", status="False")
    for one in theirs:
        cluster.delete(one["kind"], one["metadata"]["name"])
    # A refused object is tried again within half a minute.
    cluster.until_settled("demo", timeout_s=90.0)
