"""The operator is killed at every write, and the next one goes on where it stood."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.kubernetes import definitions
from tests.kubernetes.operators import Cluster, OperatorProcess, fake_kubelets, quiet, service
from tools.kubernetes.fault_proxy import FaultProxy
from tools.kubernetes.faults import kill_at_write

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.kubernetes.operators import Manifest
    from tools.kubernetes.control_plane import ControlPlane

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

MOST_LIVES = 150
QUIET_S = 1.0
"""A life without a write for this long, in a cluster that is as it should be, is the last one."""


@pytest.fixture(scope="module")
def _ready_cluster(control_plane: ControlPlane) -> Iterator[None]:
    definitions.install(control_plane)
    with fake_kubelets(control_plane, nodes=3):
        yield


@pytest.fixture
def proxy(
    control_plane: ControlPlane, _ready_cluster: None, tmp_path: Path
) -> Iterator[FaultProxy]:
    with FaultProxy(control_plane.kubeconfig, tmp_path) as started:
        yield started


def changed() -> Manifest:
    """Another revision, and a pool that others scale from now on."""
    manifest = service(
        encoder={"scaling": {"mode": "External", "maxReplicas": 4}},
        llm={"extraArgs": ["--min-chunk=32"]},
    )
    del manifest["spec"]["encoder"]["replicas"]
    return manifest


STAGES = (service, changed, service)


def settled(cluster: Cluster) -> Callable[[], bool]:
    """As it should be, what is old cleared away."""

    def is_so() -> bool:
        if not cluster.is_settled("demo"):
            return False
        revision = cluster.status("demo")["updateRevision"]
        revisions = {
            one["metadata"]["labels"].get("redserve.dev/revision", revision)
            for one in (*cluster.children("demo"), *cluster.pods("demo"))
        }
        return revisions == {revision}

    return is_so


def undisturbed(control_plane: ControlPlane, namespace: str, log: Path) -> list[Manifest]:
    """What each stage looks like when nothing happens to the operator."""
    cluster = Cluster(control_plane, namespace)
    seen = []
    with OperatorProcess(control_plane.kubeconfig, log, watch_namespaces=(namespace,)) as operator:
        operator.until_ready()
        for stage in STAGES:
            cluster.apply(stage())
            quiet(
                lambda: operator.figure("applies_total"),
                for_s=QUIET_S,
                timeout_s=60.0,
                is_settled=settled(cluster),
            )
            seen.append(cluster.snapshot("demo"))
    return seen


def live_until_rest(
    operator: OperatorProcess, proxy: FaultProxy, cluster: Cluster, at_write: int, *, after: bool
) -> int:
    """Start operators, each killed at that write of its life, until one has nothing to write.

    Returns:
        How many were killed.
    """
    is_settled = settled(cluster)
    for killed in range(MOST_LIVES):
        proxy.reset()
        operator.start()
        # It needs a second to get to its first write, and the rule is set by then.
        proxy.rule = kill_at_write(at_write, operator.pid, after=after)
        begun, num_writes = time.monotonic(), 0
        while operator.is_running:
            if (now := len(proxy.writes)) != num_writes:
                num_writes, begun = now, time.monotonic()
            ready = operator.ask("/readyz")[0] == 200
            if not ready:
                begun = time.monotonic()
            if time.monotonic() - begun > QUIET_S and is_settled():
                operator.kill()
                return killed
            time.sleep(0.02)
    raise AssertionError(f"not settled after {MOST_LIVES} operators: {operator.tail()}")


def test_killed_after_every_single_write(
    control_plane: ControlPlane,
    proxy: FaultProxy,
    make_namespace: Callable[..., str],
    tmp_path: Path,
) -> None:
    expected = undisturbed(control_plane, make_namespace(), tmp_path / "undisturbed")
    namespace = make_namespace()
    cluster = Cluster(control_plane, namespace)
    operator = OperatorProcess(
        proxy.kubeconfig, tmp_path / "killed", watch_namespaces=(namespace,), debounce_s=0.02
    )
    lives = []
    for stage, snapshot in zip(STAGES, expected, strict=True):
        cluster.apply(stage())
        lives.append(live_until_rest(operator, proxy, cluster, 1, after=True))
        assert cluster.snapshot("demo") == snapshot
    # Each of at least 24 objects was written by an operator that never learnt of it.
    assert lives[0] >= 24
    assert min(lives) >= 10


@pytest.mark.parametrize("at_write", [6, 14, 24])
def test_killed_before_a_write_arrives(
    control_plane: ControlPlane,
    proxy: FaultProxy,
    make_namespace: Callable[..., str],
    tmp_path: Path,
    at_write: int,
) -> None:
    namespace = make_namespace()
    cluster = Cluster(control_plane, namespace)
    operator = OperatorProcess(proxy.kubeconfig, tmp_path / "log", watch_namespaces=(namespace,))
    cluster.apply(service())
    assert live_until_rest(operator, proxy, cluster, at_write, after=False) >= 1
    names = {f"{one['kind']}/{one['metadata']['name']}" for one in cluster.children("demo")}
    assert len(names) == 24
