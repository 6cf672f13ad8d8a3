"""The operator on a real API server, with fake nodes that make pods ready."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from redserve.cluster import labels
from tests.kubernetes import definitions
from tests.kubernetes.operators import (
    CHILD_KINDS,
    Cluster,
    OperatorProcess,
    fake_kubelets,
    quiet,
    service,
    until_garbage_is_collected,
)
from tests.kubernetes.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.kubernetes.operators import Kubelets, Manifest
    from tools.kubernetes.control_plane import ControlPlane

pytestmark = pytest.mark.cluster

GONE_WITHIN_S = 5.0
MOST_WRITES_PER_CHILD = 3


@pytest.fixture(scope="module")
def kubelets(control_plane: ControlPlane) -> Iterator[Kubelets]:
    definitions.install(control_plane)
    until_garbage_is_collected(control_plane)
    with fake_kubelets(control_plane, nodes=10) as made:
        yield made


@pytest.fixture(scope="module")
def operator(
    control_plane: ControlPlane, kubelets: Kubelets, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[OperatorProcess]:
    log = tmp_path_factory.mktemp("operator") / "log"
    with OperatorProcess(control_plane.kubeconfig, log) as started:
        yield started.until_ready()


@pytest.fixture
def cluster(control_plane: ControlPlane, operator: OperatorProcess, namespace: str) -> Cluster:
    assert operator.is_running, operator.tail()
    return Cluster(control_plane, namespace)


def workload(cluster: Cluster, pool: str) -> Manifest:
    revision = cluster.status("demo")["updateRevision"]
    found = cluster.get("Deployment", f"demo-{pool}-{revision}")
    assert found is not None
    return found


def size(cluster: Cluster, pool: str) -> int:
    return int(workload(cluster, pool)["spec"]["replicas"])


def pool_size(cluster: Cluster, pool: str) -> int:
    found = cluster.get("RedPool", f"demo-{pool}")
    assert found is not None
    return int(found["spec"]["replicas"])


def test_a_service_comes_up_and_its_status_tells_the_truth(
    cluster: Cluster, kubelets: Kubelets, operator: OperatorProcess
) -> None:
    def is_router(pod: Manifest) -> bool:
        return bool(
            pod["metadata"]["namespace"] == cluster.namespace
            and pod["metadata"]["labels"].get(labels.POOL) == "router"
        )

    with kubelets.hold(is_router):
        cluster.apply(service())
        cluster.until_condition("demo", "EncoderReady", status="True")
        cluster.until_condition("demo", "LLMReady", status="True")
        assert cluster.condition("demo", "Accepted")["status"] == "True"
        assert cluster.condition("demo", "RouterReady")["status"] == "False"
        assert cluster.condition("demo", "Ready")["status"] == "False"
        assert cluster.condition("demo", "Progressing")["status"] == "True"
    status = cluster.until_settled("demo")
    assert status["currentRevision"] == status["updateRevision"]
    assert {pool["name"]: pool["readyText"] for pool in status["pools"]} == {
        "encoder": "2/2", "llm": "1/1", "router": "1/1",
    }  # fmt: skip
    owner = cluster.get("RedService", "demo")
    assert owner is not None
    kinds = set()
    for child in cluster.children("demo"):
        kinds.add(child["kind"])
        (reference,) = child["metadata"]["ownerReferences"]
        assert reference["uid"] == owner["metadata"]["uid"]
        assert "finalizers" not in child["metadata"] or child["kind"] == "Job"
    assert kinds == {kind.name for kind in CHILD_KINDS} - {"Job"}
    assert "finalizers" not in owner["metadata"]
    assert not [key for key in owner["metadata"].get("annotations", {}) if "kopf" in key]
    eventually(lambda: "Ready" in cluster.events("demo"))
    told = cluster.events("demo")
    assert told.index("RolloutStarted") < told.index("RolloutComplete") <= told.index("Ready")


def test_writes_are_few_and_come_to_rest(cluster: Cluster, operator: OperatorProcess) -> None:
    def writes() -> int:
        return int(operator.figure("applies_total") + operator.figure("deletes_total"))

    quiet(writes, for_s=1.5)  # the namespace of the test before goes meanwhile
    before = writes()
    cluster.apply(service())
    cluster.until_settled("demo")
    quiet(writes, for_s=1.5)
    own = (writes() - before) / (len(cluster.children("demo")) + 1)
    assert own <= MOST_WRITES_PER_CHILD
    versions = [child["metadata"]["resourceVersion"] for child in cluster.children("demo")]
    # A nudge without meaning makes the operator look, and find nothing to do.
    looks = operator.figure("reconcile_total")
    cluster.patch("RedService", "demo", {"metadata": {"annotations": {"note": "hello"}}})
    eventually(lambda: operator.figure("reconcile_total") > looks)
    assert writes() - before == pytest.approx(own * (len(versions) + 1))
    assert versions == [one["metadata"]["resourceVersion"] for one in cluster.children("demo")]


def test_kubectl_scales_a_pool_that_is_scaled_from_outside(cluster: Cluster) -> None:
    scaling = {"mode": "External", "minReplicas": 1, "maxReplicas": 4}
    manifest = service(encoder={"scaling": scaling})
    del manifest["spec"]["encoder"]["replicas"]
    cluster.apply(manifest)
    cluster.until_settled("demo")
    assert size(cluster, "encoder") == 1
    kubectl = cluster.control_plane.kubectl
    kubectl("scale", "redpool", "demo-encoder", "--replicas=3", "-n", cluster.namespace)
    eventually(lambda: size(cluster, "encoder") == 3)
    kubectl("scale", "redpool", "demo-encoder", "--replicas=9", "-n", cluster.namespace)
    eventually(lambda: size(cluster, "encoder") == 4)
    eventually(lambda: (cluster.get("RedPool", "demo-encoder") or {})["status"]["replicas"] == 4)
    cluster.until_settled("demo")


def test_an_autoscaler_scales_a_pool(cluster: Cluster) -> None:
    scaling = {"mode": "External", "minReplicas": 1, "maxReplicas": 6}
    manifest = service(encoder={"scaling": scaling})
    del manifest["spec"]["encoder"]["replicas"]
    cluster.apply(manifest)
    cluster.until_settled("demo")
    target = {"apiVersion": "redserve.dev/v1alpha1", "kind": "RedPool", "name": "demo-encoder"}
    metric = {"type": "Utilization", "averageUtilization": 50}
    path = f"/apis/autoscaling/v2/namespaces/{cluster.namespace}/horizontalpodautoscalers"
    autoscaler: Manifest = {
        "metadata": {"name": "demo-encoder"},
        "spec": {
            "scaleTargetRef": target,
            "minReplicas": 3,
            "maxReplicas": 6,
            "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": metric}}],
        },
    }
    cluster.api.post(path, autoscaler)
    # It raises to its own minimum even where nobody measures, and it finds the pods.
    eventually(lambda: size(cluster, "encoder") == 3)
    eventually(lambda: cluster.status("demo")["pools"][0]["readyText"] == "3/3")

    def conditions() -> dict[str, Any]:
        found = cluster.api.get(f"{path}/demo-encoder").get("status", {}).get("conditions", ())
        return {one["type"]: one for one in found}

    eventually(lambda: conditions().get("AbleToScale", {}).get("status") == "True")
    assert conditions().get("ScalingActive", {}).get("reason") != "InvalidSelector"


def test_replicas_are_handed_over_both_ways_without_a_dip(cluster: Cluster) -> None:
    cluster.apply(service(encoder={"replicas": 3}))
    cluster.until_settled("demo")
    seen: set[int] = set()

    def handed_over(owner: str) -> bool:
        seen.add(size(cluster, "encoder"))
        seen.add(pool_size(cluster, "encoder"))
        red_pool = cluster.get("RedPool", "demo-encoder")
        assert red_pool is not None
        entries = red_pool["metadata"]["managedFields"]
        owners = {one["manager"] for one in entries if "f:replicas" in _spec_fields(one)}
        return owner in owners and (owner == "redserve-operator" or len(owners) == 1)

    manifest = service(encoder={"scaling": {"mode": "External", "maxReplicas": 8}})
    del manifest["spec"]["encoder"]["replicas"]
    cluster.apply(manifest)
    eventually(lambda: handed_over("redserve-seed"), poll_s=0.01)
    assert seen == {3}
    kubectl = cluster.control_plane.kubectl
    kubectl("scale", "redpool", "demo-encoder", "--replicas=5", "-n", cluster.namespace)
    eventually(lambda: size(cluster, "encoder") == 5)
    seen.clear()
    # Back: the manifest says what it was scaled to, and nothing moves.
    cluster.apply(service(encoder={"replicas": 5}))
    eventually(lambda: handed_over("redserve-operator"), poll_s=0.01)
    assert seen == {5}
    kubectl("scale", "redpool", "demo-encoder", "--replicas=1", "-n", cluster.namespace)
    eventually(lambda: pool_size(cluster, "encoder") == 5)
    assert size(cluster, "encoder") == 5


def _spec_fields(entry: Manifest) -> Manifest:
    found: Manifest = entry.get("fieldsV1", {}).get("f:spec", {})
    return found


EDITS: dict[str, Any] = {
    "RedPool": {"spec": {"replicas": 7}},
    "Deployment": {
        "spec": {
            "replicas": 5,
            "template": {
                "spec": {
                    "enableServiceLinks": None,
                    "volumes": [{"name": "tmp", "hostPath": {"path": "/var"}}],
                }
            },
        }
    },
    "Service": {"spec": {"selector": {"app": "mine"}}},
    "Role": {"rules": []},
    "PodDisruptionBudget": {"spec": {"maxUnavailable": None, "minAvailable": 0}},
    "NetworkPolicy": {"spec": {"podSelector": {"matchLabels": {"x": "y"}}}},
    "ServiceAccount": {"automountServiceAccountToken": True},
    "ConfigMap": {"metadata": {"labels": {labels.POOL: "mine"}}},
    "RoleBinding": {"subjects": []},
}


def test_foreign_edits_are_healed_in_every_kind(cluster: Cluster) -> None:
    cluster.apply(service())
    cluster.until_settled("demo")
    before = cluster.snapshot("demo")
    edited = set()
    for child in cluster.children("demo"):
        kind = child["kind"]
        if kind in edited:
            continue
        cluster.patch(kind, child["metadata"]["name"], EDITS[kind])
        edited.add(kind)
    assert edited == set(EDITS)
    cluster.until_as("demo", before)


def test_a_label_that_is_taken_away_comes_back(cluster: Cluster) -> None:
    cluster.apply(service())
    cluster.until_settled("demo")
    cluster.patch("Service", "demo", {"metadata": {"labels": {labels.SERVICE: None}}})

    def is_back() -> bool:
        found = cluster.get("Service", "demo")
        return found is not None and found["metadata"]["labels"].get(labels.SERVICE) == "demo"

    eventually(is_back)


def test_deleted_children_are_made_again(cluster: Cluster) -> None:
    cluster.apply(service())
    cluster.until_settled("demo")
    before = cluster.snapshot("demo")
    deleted = {}
    for child in cluster.children("demo"):
        place = (child["kind"], child["metadata"]["name"])
        deleted[place] = child["metadata"]["uid"]
        cluster.delete(*place)

    def all_new() -> bool:
        found = {p: (cluster.get(*p) or {"metadata": {}})["metadata"].get("uid") for p in deleted}
        return all(uid and uid != deleted[place] for place, uid in found.items())

    eventually(all_new)
    cluster.until_settled("demo")
    cluster.until_as("demo", before)


@pytest.mark.parametrize("propagation", ["Background", "Foreground"])
def test_deletion_leaves_nothing(cluster: Cluster, propagation: str) -> None:
    cluster.apply(service())
    cluster.until_settled("demo")
    started = time.monotonic()
    cluster.delete("RedService", "demo", propagation)
    eventually(
        lambda: not cluster.children("demo") and not cluster.pods("demo"), timeout_s=GONE_WITHIN_S
    )
    assert time.monotonic() - started < GONE_WITHIN_S
    assert cluster.get("RedService", "demo") is None


def test_a_deleted_service_may_come_back_at_once(cluster: Cluster) -> None:
    cluster.apply(service())
    first = cluster.until_settled("demo")
    before = cluster.snapshot("demo")
    cluster.delete("RedService", "demo")
    cluster.apply(service())
    second = cluster.until_settled("demo")
    cluster.until_as("demo", before)
    assert first["updateRevision"] == second["updateRevision"]
    owner = cluster.get("RedService", "demo")
    assert owner is not None
    for child in cluster.children("demo"):
        (reference,) = child["metadata"]["ownerReferences"]
        assert reference["uid"] == owner["metadata"]["uid"]


def test_a_pod_that_the_api_server_refuses_is_told_in_its_words(cluster: Cluster) -> None:
    cluster.apply(service())
    cluster.until_settled("demo")
    before = cluster.snapshot("demo")
    template = {"spec": {"containers": [{"name": "main", "imagePullPolicy": "Sometimes"}]}}
    cluster.apply(service(llm={"podTemplate": template}))
    refused = cluster.until_condition("demo", "Accepted", status="False")
    assert refused["reason"] == "InvalidPodTemplate"
    assert "Sometimes" in refused["message"]
    # What serves goes on serving.
    assert {p["metadata"]["labels"][labels.REVISION] for p in cluster.pods("demo")} == {
        cluster.status("demo")["currentRevision"]
    }
    cluster.apply(service())
    cluster.until_settled("demo")
    cluster.until_as("demo", before)


def test_a_misspelt_field_of_a_pod_template_is_refused_before_anything_is_made(
    cluster: Cluster,
) -> None:
    template = {"spec": {"nodeSelecto": {"a": "b"}}}
    cluster.apply(service(llm={"podTemplate": template}))
    refused = cluster.until_condition("demo", "Accepted", status="False")
    assert refused["reason"] == "InvalidPodTemplate"
    assert "nodeSelecto" in refused["message"]
    assert not [one for one in cluster.children("demo") if one["kind"] == "Deployment"]
    cluster.apply(service())
    settled = cluster.until_settled("demo")
    cluster.apply(service(llm={"podTemplate": template}))
    cluster.until_condition("demo", "Accepted", status="False")
    names = {one["metadata"]["name"] for one in cluster.children("demo")}
    assert all(name.endswith(settled["updateRevision"]) for name in names if name.count("-") > 1)


def test_a_changed_manifest_rolls_and_some_router_is_always_ready(cluster: Cluster) -> None:
    cluster.apply(service())
    old = cluster.until_settled("demo")["updateRevision"]
    cluster.apply(service(llm={"extraArgs": ["--min-chunk=32"]}))
    dips = []

    def rolled() -> bool:
        routers = [
            pod
            for pod in cluster.pods("demo")
            if pod["metadata"]["labels"][labels.POOL] == "router" and _is_ready(pod)
        ]
        if not routers:
            dips.append(1)
        status = cluster.status("demo")
        return status["updateRevision"] != old and cluster.is_settled("demo")

    eventually(rolled, poll_s=0.02, timeout_s=60.0)
    assert not dips

    def left() -> list[str]:
        found = (*cluster.children("demo"), *cluster.pods("demo"))
        return [one["metadata"]["name"] for one in found if old in one["metadata"]["name"]]

    eventually(lambda: not left())


def _is_ready(pod: Manifest) -> bool:
    conditions = pod.get("status", {}).get("conditions", ())
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def test_a_pool_that_no_node_has_room_for_is_told(cluster: Cluster) -> None:
    picky = {"podTemplate": {"spec": {"nodeSelector": {"gpu": "of-tomorrow"}}}}
    cluster.apply(service(encoder=picky))
    found = cluster.until_condition("demo", "EncoderReady", reason="InsufficientCapacity")
    assert "node affinity/selector" in found["message"]


def test_stop_and_pause(cluster: Cluster) -> None:
    cluster.apply(service())
    cluster.until_settled("demo")
    cluster.apply(service(reconcile="Stopped"))
    eventually(lambda: not cluster.pods("demo"))
    assert pool_size(cluster, "encoder") == 2
    cluster.apply(service(reconcile="Active"))
    cluster.until_settled("demo")
    cluster.apply(service(reconcile="Paused"))
    cluster.until_condition("demo", "Progressing", reason="Paused")
    cluster.delete("PodDisruptionBudget", "demo-llm")
    cluster.apply(service(reconcile="Active"))
    eventually(lambda: cluster.get("PodDisruptionBudget", "demo-llm") is not None)


def test_probes_answer_and_figures_are_there(operator: OperatorProcess) -> None:
    assert operator.ask("/healthz")[0] == 200
    assert operator.ask("/readyz")[0] == 200
    text = operator.ask("/metrics")[1]
    for name in ("reconcile_total", "api_request_duration_seconds", "queue_depth", "leader"):
        assert f"redserve_operator_{name}" in text
    # On a busy machine the API server may let a call wait in vain: told, and tried again.
    failed = operator.figure("reconcile_total", 'result="failed"')
    assert failed <= 0.1 * operator.figure("reconcile_total", 'result="acted"')


def test_a_service_with_the_longest_name(cluster: Cluster) -> None:
    name = "n" * 40
    cluster.apply(service(name))
    cluster.until_settled(name)
