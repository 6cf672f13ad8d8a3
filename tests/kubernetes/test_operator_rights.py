"""The operator with the rights that the chart gives it, and a ServiceAccount's token."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import yaml

from redserve.cluster import labels
from tests.helm.chart import NAMESPACE, RELEASE, template
from tests.kubernetes import definitions
from tests.kubernetes.operators import (
    Cluster,
    OperatorProcess,
    fake_kubelets,
    service,
    until_garbage_is_collected,
)
from tests.kubernetes.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tools.kubernetes.control_plane import ControlPlane

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]
GONE = "of-yesterday"
"""A namespace that is named still and is not there, nor are rights in it."""
ACCOUNT = f"{RELEASE}-operator"
RIGHTS = {"Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding", "ServiceAccount"}


@pytest.fixture(scope="module", autouse=True)
def _ready_cluster(control_plane: ControlPlane) -> Iterator[None]:
    definitions.install(control_plane)
    until_garbage_is_collected(control_plane)
    with fake_kubelets(control_plane, nodes=3):
        yield


def grant(control_plane: ControlPlane, home: str, *watched: str) -> None:
    """What the chart renders of rights, for a release in `home`."""
    rights = [
        one
        for one in template({"watchNamespaces": list(watched)})
        # Those of `helm test` have nothing to do with the operator.
        if one["kind"] in RIGHTS and "helm.sh/hook" not in one["metadata"].get("annotations", {})
    ]
    text = yaml.safe_dump_all(rights).replace(NAMESPACE, home)
    control_plane.kubectl("apply", "-f", "-", input=text)


def in_a_pod(control_plane: ControlPlane, home: str, folder: Path) -> dict[str, Any]:
    """Settings and environment as of a pod of the operator."""
    request = {"spec": {"expirationSeconds": 3600}}
    path = f"/api/v1/namespaces/{home}/serviceaccounts/{ACCOUNT}/token"
    token = control_plane.api.post(path, request)["status"]["token"]
    folder.mkdir()
    (folder / "token").write_text(token)
    (folder / "ca.crt").write_bytes(control_plane.authority.read_bytes())
    host, port = control_plane.server.removeprefix("https://").split(":")
    return {
        "environment": {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port},
        "service_account_dir": str(folder),
    }


def go_through_a_life(cluster: Cluster, operator: OperatorProcess) -> None:
    cluster.apply(service())
    cluster.until_settled("demo")
    cluster.apply(service(llm={"extraArgs": ["--min-chunk=32"]}))
    cluster.until_settled("demo")
    eventually(lambda: "RolloutComplete" in cluster.events("demo"))
    refused = [
        line for line in operator.log.read_text().splitlines() if "is forbidden: User" in line
    ]
    assert not [line for line in refused if GONE not in line]
    cluster.delete("RedService", "demo")
    eventually(lambda: not cluster.children("demo"))


def test_rights_in_the_named_namespaces_are_enough(
    control_plane: ControlPlane, make_namespace: Callable[..., str], tmp_path: Path
) -> None:
    home, served, other = make_namespace(), make_namespace(), make_namespace()
    grant(control_plane, home, served)
    with OperatorProcess(
        None,
        tmp_path / "log",
        namespace=home,
        watch_namespaces=(GONE, served),
        leader_election=True,
        **in_a_pod(control_plane, home, tmp_path / "account"),
    ) as operator:
        # The label with an empty value names no service, and holds up none.
        strange = {"metadata": {"name": "strange", "labels": {labels.SERVICE: ""}}}
        control_plane.api.post(f"/api/v1/namespaces/{served}/configmaps", strange)
        operator.until_ready()
        elsewhere = Cluster(control_plane, other)
        elsewhere.apply(service())
        go_through_a_life(Cluster(control_plane, served), operator)
        assert not elsewhere.status("demo")
        assert operator.is_running, operator.tail()
        assert operator.terminate() == 0


def test_rights_in_the_whole_cluster_are_enough(
    control_plane: ControlPlane, make_namespace: Callable[..., str], tmp_path: Path
) -> None:
    home, served = make_namespace(), make_namespace()
    grant(control_plane, home)
    with OperatorProcess(
        None,
        tmp_path / "log",
        namespace=home,
        leader_election=True,
        **in_a_pod(control_plane, home, tmp_path / "account"),
    ) as operator:
        operator.until_ready()
        go_through_a_life(Cluster(control_plane, served), operator)
        assert operator.terminate() == 0
