"""Kinds that other projects bring: rendered where they are served, and they may come and go."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from redserve.cluster.facts import POD_MONITOR
from tests.kubernetes import definitions
from tests.kubernetes.operators import Cluster, OperatorProcess, fake_kubelets, service
from tests.kubernetes.waiting import eventually
from tools.kubernetes.control_plane import ControlPlane

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]


@pytest.fixture(scope="module", autouse=True)
def _ready_cluster(control_plane: ControlPlane) -> Iterator[None]:
    definitions.install(control_plane)
    with fake_kubelets(control_plane, nodes=3):
        yield


@pytest.fixture
def pod_monitors(control_plane: ControlPlane) -> Iterator[None]:
    with definitions.served(control_plane, POD_MONITOR):
        yield


@pytest.mark.usefixtures("pod_monitors")
def test_a_pod_monitor_where_the_kind_is_served_until_it_goes(
    control_plane: ControlPlane, namespace: str, tmp_path: Path
) -> None:
    cluster = Cluster(control_plane, namespace)
    operator = OperatorProcess(
        control_plane.kubeconfig, tmp_path / "log", watch_namespaces=(namespace,)
    )
    with operator:
        operator.until_ready()
        cluster.apply(service())
        cluster.until_settled("demo")
        cluster.delete(POD_MONITOR, "demo")
        eventually(lambda: cluster.get(POD_MONITOR, "demo") is not None)
        definitions.withdraw(control_plane, POD_MONITOR)
        # Its watch is over for good. A new process watches what is left.
        eventually(lambda: not operator.is_running, timeout_s=60.0)
    with operator:
        operator.until_ready()
        cluster.apply(service(encoder={"replicas": 3}))
        cluster.until_settled("demo")


def test_the_operator_waits_for_its_own_definitions(tmp_path: Path) -> None:
    """In a cluster of its own: whoever takes definitions away from others takes their objects."""
    with (
        ControlPlane(tmp_path / "control-plane") as bare,
        fake_kubelets(bare, nodes=3),
        OperatorProcess(bare.kubeconfig, tmp_path / "log") as operator,
    ):
        eventually(lambda: "CustomResourceDefinitions" in operator.ask("/readyz")[1])
        assert operator.ask("/healthz")[0] == 200
        definitions.install(bare)
        operator.until_ready()
        cluster = Cluster(bare, "default")
        cluster.apply(service())
        cluster.until_settled("demo")
        assert operator.terminate() == 0
