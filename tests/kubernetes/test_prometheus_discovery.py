"""Prometheus' own service discovery finds the pods, and gives their series the expected labels."""

from __future__ import annotations

import json
import re
import subprocess
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import pytest
import yaml

from redserve.cluster import labels
from redserve.cluster.facts import POD_MONITOR
from redserve.cluster.scrape import cluster_scrape_config
from tests.kubernetes import definitions
from tests.kubernetes.operators import Cluster, OperatorProcess, fake_kubelets, service
from tests.kubernetes.waiting import eventually
from tools.kubernetes.programs import locate

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tools.kubernetes.control_plane import ControlPlane

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]
LOOKS_S: Final = 5
"""How long promtool gathers what discovery tells."""
MOST_LOOKS: Final = 4


class Target(NamedTuple):
    """What Prometheus would scrape, and the labels of its series."""

    port: str
    namespace: str
    redservice: str
    pool: str
    revision: str


@pytest.fixture(scope="module")
def cluster(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A service of five pods, and pods of others that look like its own."""
    definitions.install(control_plane)
    name = "discovery"
    control_plane.api.post("/api/v1/namespaces", {"metadata": {"name": name}})
    cluster = Cluster(control_plane, name)
    log = tmp_path_factory.mktemp("operator") / "log"
    operator = OperatorProcess(control_plane.kubeconfig, log, watch_namespaces=(name,))
    with (
        definitions.served(control_plane, POD_MONITOR),
        fake_kubelets(control_plane, nodes=3),
        operator,
    ):
        operator.until_ready()
        eventually(lambda: control_plane.api.exists(f"{_accounts(name)}/default"))
        cluster.apply(service(encoder={"replicas": 2}, router={"replicas": 2}))
        cluster.until_settled("demo")
        for number, (marks, port) in enumerate(STRANGERS):
            _make_pod(cluster, f"stranger-{number}", marks, port)
        yield cluster
        control_plane.api.delete(f"/api/v1/namespaces/{name}")


OURS: Final = {labels.SERVICE: "demo", labels.POOL: "encoder"}
STRANGERS: Final = (
    (OURS, "http"),  # an encoder's `http` can only be somebody's sidecar
    ({labels.SERVICE: "demo"}, "metrics"),  # belongs to no pool
    ({"app": "other"}, "metrics"),
)
"""Labels and the name of a port."""


def _accounts(namespace: str) -> str:
    return f"/api/v1/namespaces/{namespace}/serviceaccounts"


def _make_pod(cluster: Cluster, name: str, marks: Mapping[str, str], port: str) -> None:
    ports = [{"name": port, "containerPort": 1234}]
    path = f"/api/v1/namespaces/{cluster.namespace}/pods"
    pod = {
        "metadata": {"name": name, "labels": dict(marks)},
        "spec": {"containers": [{"name": "a", "image": "a", "ports": ports}]},
    }
    cluster.api.post(path, pod)
    eventually(lambda: cluster.api.get(f"{path}/{name}").get("status", {}).get("podIP"))


def discovered(cluster: Cluster, folder: Path, jobs: list[dict[str, Any]]) -> list[Target]:
    """What promtool finds for these jobs."""
    kubeconfig = str(cluster.control_plane.kubeconfig)
    for job in jobs:
        job["kubernetes_sd_configs"][0]["kubeconfig_file"] = kubeconfig
    path = folder / "prometheus.yaml"
    path.write_text(yaml.safe_dump({"scrape_configs": jobs}))
    return sorted(target for job in jobs for target in _look(path, job["job_name"]))


def _look(path: Path, job: str) -> Iterator[Target]:
    command = ["check", "service-discovery", f"--timeout={LOOKS_S}s", str(path), job]
    said = subprocess.run(
        [locate("promtool"), *command], capture_output=True, text=True, check=True, timeout=60
    )
    for found in json.loads(said.stdout):
        kept = found.get("labels")
        if kept:  # the others were dropped
            port = kept["__address__"].rpartition(":")[2]
            yield Target(port, *(kept.get(name, "") for name in Target._fields[1:]))


def expected(cluster: Cluster) -> list[Target]:
    revision = cluster.status("demo")["currentRevision"]
    number = {"encoder": 2, "llm": 1, "router": 2}
    return sorted(
        Target("8000" if pool == "router" else "9090", cluster.namespace, "demo", pool, revision)
        for pool, size in number.items()
        for _ in range(size)
    )


def until_expected(cluster: Cluster, folder: Path, jobs: list[dict[str, Any]]) -> None:
    """Look until all are there; a machine that is busy may need a second look."""
    tries: list[list[Target]] = []
    while len(tries) < MOST_LOOKS:
        found = [one for one in discovered(cluster, folder, jobs) if one.namespace == "discovery"]
        if found == expected(cluster):
            return
        tries.append(found)
    raise AssertionError(f"expected {expected(cluster)}, found {tries}")


def as_jobs(monitor: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """What the Prometheus operator makes of a PodMonitor."""
    selector = monitor["spec"]["selector"]["matchLabels"]
    for endpoint in monitor["spec"]["podMetricsEndpoints"]:
        kept = {
            "__meta_kubernetes_pod_label_" + re.sub(r"\W", "_", name): value
            for name, value in selector.items()
        }
        kept["__meta_kubernetes_pod_container_port_name"] = endpoint["port"]
        yield {
            "job_name": endpoint["port"],
            "kubernetes_sd_configs": [
                {"role": "pod", "namespaces": {"names": [monitor["metadata"]["namespace"]]}}
            ],
            "relabel_configs": [
                *({"action": "keep", "source_labels": [k], "regex": v} for k, v in kept.items()),
                *({_snake(k): v for k, v in one.items()} for one in endpoint["relabelings"]),
            ],
        }


def _snake(name: str) -> str:
    return re.sub(r"([A-Z])", r"_\1", name).lower()


def test_by_the_pod_monitor(cluster: Cluster, tmp_path: Path) -> None:
    monitor = cluster.get(POD_MONITOR, "demo")
    assert monitor is not None
    until_expected(cluster, tmp_path, list(as_jobs(monitor)))


@pytest.mark.parametrize("namespaces", [(), ("discovery",), ("default", "discovery")])
def test_without_pod_monitors(
    cluster: Cluster, tmp_path: Path, namespaces: tuple[str, ...]
) -> None:
    jobs = cluster_scrape_config(namespaces)["scrape_configs"]
    until_expected(cluster, tmp_path, jobs)


def test_of_another_namespace(cluster: Cluster, tmp_path: Path) -> None:
    jobs = cluster_scrape_config(["kube-system"])["scrape_configs"]
    assert discovered(cluster, tmp_path, jobs) == []
