"""REDServe on real nodes: containers from the real images, probes, drains, restricted pods.

`make test-node` runs this. Tests go in the order of this file, on one installation: a service that
is made once, changed, and deleted at last.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from tests.kubernetes.installation import (
    MANIFEST,
    OPERATOR_NAMESPACE,
    ROOT,
    SERVICES,
    Installation,
    Load,
    ask,
    manifest,
    questions,
)
from tests.kubernetes.waiting import eventually, eventually_async
from tools.kubernetes import node_images, node_space
from tools.kubernetes.node_cluster import NodeCluster

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tools.kubernetes.node import Node

TIMEOUT_S = 600
pytestmark = [pytest.mark.node, pytest.mark.timeout(TIMEOUT_S + 120)]
NAMESPACE = "demo"
SERVICE = "demo"


class OnNodes(Installation):
    """An installation whose pods are containers, reached as clients of a cluster reach them."""

    def __init__(self, cluster: NodeCluster, namespace: str) -> None:
        self.cluster = cluster
        self.control_plane = cluster.control_plane
        self.namespace = namespace

    def endpoints(self, service: str, port: str = "grpc") -> list[str]:
        """The Service's own address; kube-proxy chooses the pod."""
        path = f"/api/v1/namespaces/{self.namespace}/services/{service}"
        spec = self.control_plane.api.get(path)["spec"]
        return [
            f"{spec['clusterIP']}:{one['port']}" for one in spec["ports"] if one["name"] == port
        ]

    def node_of(self, pod: dict[str, Any]) -> Node:
        name = pod["spec"]["nodeName"]
        return next(node for node in self.cluster.nodes if node.name == name)

    def ready(self) -> bool:
        return self.condition(SERVICE, "Ready") == "True"

    def settled(self) -> bool:
        """Ready, and nothing moves."""
        return self.ready() and self.condition(SERVICE, "Progressing") == "False"

    def story(self) -> str:
        parts = [
            self.control_plane.kubectl("get", "pods", "-A", "-o", "wide"),
            self.kubectl("describe", "redservices"),
            self.kubectl("get", "events", "--sort-by=.lastTimestamp"),
        ]
        for pod in self.pods(service=SERVICE):
            name = pod["metadata"]["name"]
            log = self.control_plane.kubectl(
                "-n", self.namespace, "logs", name, "--tail=15", check=False
            )
            parts.append(f"--- {name}\n{log}")
        return "\n".join(parts)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeCluster]:
    if not node_space.is_inside():
        why = "; ".join(node_space.problems()) or "outside of its namespaces: run `make test-node`"
        pytest.skip(f"no real nodes: {why}")
    layout = node_images.folder()
    if not layout.is_dir():
        pytest.skip("no images: run `make test-node`, or python -m tools.kubernetes.node_images")
    with NodeCluster(tmp_path_factory.mktemp("nodes"), layout, num_nodes=2) as started:
        yield started
    # Logs stay for whoever looks for a reason; tens of thousands of unpacked files do not.
    for node in started.nodes:
        shutil.rmtree(node.folder / "containerd", ignore_errors=True)


@pytest.fixture(scope="module")
def installation(cluster: NodeCluster) -> Iterator[OnNodes]:
    """The operator, by its chart; every namespace enforces the strictest standard."""
    made = OnNodes(cluster, NAMESPACE)
    for name in (OPERATOR_NAMESPACE, NAMESPACE):
        cluster.control_plane.kubectl("create", "namespace", name)
        label = "pod-security.kubernetes.io/enforce=restricted"
        cluster.control_plane.kubectl("label", "namespace", name, label)
    chart = str(ROOT / "helm/redserve")
    made.helm("install", "redserve", chart, "--wait", "--timeout=300s")
    yield made
    made.helm("uninstall", "redserve", "--wait")


def wait(installation: OnNodes, *, settled: bool = True) -> None:
    condition = installation.settled if settled else installation.ready
    try:
        eventually(condition, timeout_s=TIMEOUT_S, poll_s=0.5)
    except AssertionError:
        print(installation.story())
        raise


def ask_all(installation: OnNodes) -> None:
    """Every question of the demonstration has its right answer, by the Service's address."""
    (address,) = installation.endpoints(SERVICE)
    for question in questions():
        assert asyncio.run(ask(address, question)) == question.answer


def test_the_operator_says_that_it_is_ready(installation: OnNodes) -> None:
    said = installation.helm("test", "redserve", "--timeout=180s")
    assert "Phase:          Succeeded" in said


def test_the_example_serves(installation: OnNodes) -> None:
    installation.kubectl("apply", "-f", str(MANIFEST))
    wait(installation)
    ask_all(installation)


def restarts(installation: OnNodes, pod: str) -> int:
    found = installation.control_plane.api.get(f"/api/v1/namespaces/{NAMESPACE}/pods/{pod}")
    return int(found["status"]["containerStatuses"][0]["restartCount"])


@pytest.mark.parametrize("pool", ["llm", "router"])
def test_a_killed_process_is_restarted_and_serves(installation: OnNodes, pool: str) -> None:
    pod = installation.pods(service=SERVICE, pool=pool)[0]
    name = pod["metadata"]["name"]
    (pid,) = installation.node_of(pod).running(pod_name=name, container_name="main").values()
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: restarts(installation, name) == 1, timeout_s=TIMEOUT_S)
    eventually(lambda: not installation.ready(), timeout_s=60)
    wait(installation)
    ask_all(installation)
    assert [one["metadata"]["name"] for one in installation.pods(service=SERVICE, pool=pool)] == [
        name
    ]


async def test_a_changed_manifest_rolls_without_a_broken_stream(installation: OnNodes) -> None:
    old = installation.revisions(SERVICE)
    async with Load(installation, SERVICE, num_clients=2) as load:
        await until_right(load, 3)
        change = manifest(llm={"minChunk": 5, "replicas": 2}, router={"replicas": 2})
        await asyncio.to_thread(installation.kubectl, "apply", "-f", "-", input=change)

        async def rolled() -> bool:
            return await asyncio.to_thread(
                lambda: (
                    installation.settled()
                    and len(installation.revisions(SERVICE)) == 1
                    and installation.revisions(SERVICE) != old
                )
            )

        try:
            await eventually_async(rolled, timeout_s=TIMEOUT_S, poll_s=1.0)
        except AssertionError:
            print(installation.story())
            raise
        await until_right(load, len(load.answered.right) + 3)
    assert load.answered.failed == []
    assert load.answered.wrong == []


async def until_right(load: Load, number: int) -> None:
    """More answers than that are right, or one is not."""

    async def look() -> bool:
        answered = load.answered
        return bool(len(answered.right) > number or answered.failed or answered.wrong)

    await eventually_async(look, timeout_s=TIMEOUT_S)


async def test_a_node_is_drained_without_a_broken_stream(installation: OnNodes) -> None:
    kubectl = installation.control_plane.kubectl
    pods = installation.pods(service=SERVICE)
    node = max(
        (node.name for node in installation.cluster.nodes),
        key=lambda name: sum(pod["spec"]["nodeName"] == name for pod in pods),
    )
    # The operator itself goes or stays as it happens; streams do not need it.
    async with Load(installation, SERVICE, num_clients=2) as load:
        await until_right(load, 3)
        options = ("--ignore-daemonsets", "--delete-emptydir-data", f"--timeout={TIMEOUT_S}s")
        await asyncio.to_thread(kubectl, "drain", node, *options)
        await until_right(load, len(load.answered.right) + 3)
    assert load.answered.failed == []
    assert load.answered.wrong == []
    assert not [
        pod for pod in installation.pods(service=SERVICE) if pod["spec"].get("nodeName") == node
    ]
    await asyncio.to_thread(kubectl, "uncordon", node)
    await asyncio.to_thread(wait, installation)


def test_deletion_leaves_nothing(installation: OnNodes) -> None:
    installation.kubectl("delete", "redservice", SERVICE, "--wait=false")
    kinds = (
        "pods,deployments,services,configmaps,serviceaccounts,roles,rolebindings,"
        "poddisruptionbudgets,networkpolicies,jobs,redpools"
    )
    selector = f"redserve.dev/service={SERVICE}"

    def left() -> list[str]:
        listed = json.loads(installation.kubectl("get", kinds, "-l", selector, "-o", "json"))
        return [f"{one['kind']}/{one['metadata']['name']}" for one in listed["items"]]

    # Pods drain as long as they need to.
    eventually(lambda: not left(), timeout_s=TIMEOUT_S, poll_s=0.5)
    names = installation.control_plane.api.get(f"{SERVICES}/namespaces/{NAMESPACE}/redservices")
    assert names["items"] == []
    for node in installation.cluster.nodes:
        eventually(partial(_runs_nothing, node))


def _runs_nothing(node: Node) -> bool:
    return not node.running(pod_namespace=NAMESPACE)
