"""Two operators: one leads by the Lease; and without it they agree rather than fight."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.kubernetes import definitions
from tests.kubernetes.operators import Cluster, OperatorProcess, fake_kubelets, quiet, service
from tests.kubernetes.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tools.kubernetes.control_plane import ControlPlane

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module", autouse=True)
def _ready_cluster(control_plane: ControlPlane) -> Iterator[None]:
    definitions.install(control_plane)
    with fake_kubelets(control_plane, nodes=3):
        yield


@pytest.fixture
def pair(
    control_plane: ControlPlane, namespace: str, tmp_path: Path
) -> Iterator[Callable[..., tuple[OperatorProcess, OperatorProcess]]]:
    made: list[OperatorProcess] = []

    def make(**settings: Any) -> tuple[OperatorProcess, OperatorProcess]:
        for name in ("a", "b"):
            made.append(
                OperatorProcess(
                    control_plane.kubeconfig, tmp_path / name, identity=name,
                    namespace=namespace, watch_namespaces=(namespace,), **settings,
                )
            )  # fmt: skip
        return made[0], made[1]

    yield make
    for operator in made:
        operator.kill()


def leads(operator: OperatorProcess) -> bool:
    return operator.figure("leader ") == 1.0


def test_a_killed_leader_is_followed(
    control_plane: ControlPlane, namespace: str, pair: Callable[..., tuple[OperatorProcess, ...]]
) -> None:
    first, second = pair(leader_election=True, lease_duration_s=8.0)
    cluster = Cluster(control_plane, namespace)
    first.start().until_ready()
    second.start().until_ready()
    cluster.apply(service())
    cluster.until_settled("demo")
    assert (leads(first), leads(second)) == (True, False)
    # The one that waits does not look.
    assert second.figure("reconcile_total") == 0
    first.kill()
    cluster.apply(service(encoder={"replicas": 3}))
    eventually(lambda: leads(second))
    cluster.until_settled("demo")
    assert cluster.status("demo")["pools"][0]["readyText"] == "3/3"


def test_a_leader_that_is_stopped_hands_over_at_once(
    control_plane: ControlPlane, namespace: str, pair: Callable[..., tuple[OperatorProcess, ...]]
) -> None:
    first, second = pair(leader_election=True, lease_duration_s=60.0, lease_renew_s=0.3)
    first.start().until_ready()
    second.start().until_ready()
    assert first.terminate() == 0
    eventually(lambda: leads(second))  # long before the Lease would be over
    assert second.terminate() == 0
    lease = control_plane.api.get(
        f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/redserve-operator"
    )
    assert lease["spec"].get("holderIdentity", "") == ""


def test_a_leader_whose_lease_was_taken_ends_in_failure(
    control_plane: ControlPlane, namespace: str, pair: Callable[..., tuple[OperatorProcess, ...]]
) -> None:
    first, _ = pair(leader_election=True)
    first.start().until_ready()
    path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/redserve-operator"
    control_plane.api.patch(path, {"spec": {"holderIdentity": "thief"}})
    assert first.process is not None
    assert first.process.wait(60) == 1
    # It was not its own any more: it does not touch it.
    assert control_plane.api.get(path)["spec"]["holderIdentity"] == "thief"


def test_two_without_election_converge_and_rest(
    control_plane: ControlPlane, namespace: str, pair: Callable[..., tuple[OperatorProcess, ...]]
) -> None:
    both = pair(leader_election=False)
    cluster = Cluster(control_plane, namespace)
    for operator in both:
        operator.start().until_ready()

    def writes() -> int:
        return int(sum(one.figure("applies_total") + one.figure("deletes_total") for one in both))

    cluster.apply(service())
    cluster.until_settled("demo")
    quiet(writes, for_s=2.0)
    cluster.apply(service(llm={"extraArgs": ["--min-chunk=32"]}))
    cluster.until_settled("demo")
    quiet(writes, for_s=2.0)
    assert all(operator.figure("reconcile_total") > 0 for operator in both)
    assert len(cluster.children("demo")) == 24
    assert len(cluster.pods("demo")) == 4
