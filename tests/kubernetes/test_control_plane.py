from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import yaml

from redserve.errors import Unavailable
from tests.kubernetes.waiting import eventually
from tools.kubernetes.async_api import ApiError
from tools.kubernetes.client import ApiClient
from tools.kubernetes.programs import MODULE

if TYPE_CHECKING:
    from collections.abc import Callable

    from tools.kubernetes.control_plane import ControlPlane

pytestmark = pytest.mark.cluster


def pod(name: str = "pod") -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": {"containers": [{"name": "main", "image": "any"}]}}


def test_the_server_is_of_the_version_that_is_written_down(control_plane: ControlPlane) -> None:
    assert control_plane.api.get("/version")["gitVersion"] == MODULE["k8s"].version


def test_kubectl_speaks_as_an_administrator(control_plane: ControlPlane, namespace: str) -> None:
    control_plane.kubectl("create", "configmap", "here", "-n", namespace, "--from-literal=a=b")
    written = control_plane.kubectl("get", "configmap", "here", "-n", namespace, "-o", "yaml")
    assert yaml.safe_load(written)["data"] == {"a": "b"}
    with pytest.raises(Unavailable, match="NotFound"):
        control_plane.kubectl("get", "configmap", "absent", "-n", namespace)


def test_controllers_and_scheduler_work(control_plane: ControlPlane, namespace: str) -> None:
    control_plane.kubectl(
        "create", "deployment", "web", "--image=any", "--replicas=2", "-n", namespace
    )
    pods = f"/api/v1/namespaces/{namespace}/pods"

    def unschedulable() -> bool:
        found = control_plane.api.get(pods)["items"]
        reasons = [c.get("reason") for p in found for c in p["status"].get("conditions", [])]
        return len(found) == 2 and reasons.count("Unschedulable") == 2

    eventually(unschedulable)


def test_users_may_do_what_rbac_says(control_plane: ControlPlane, namespace: str) -> None:
    user = ApiClient(control_plane.kubeconfig_for("jane", ("team/a",)))
    path = f"/api/v1/namespaces/{namespace}/pods"
    with pytest.raises(ApiError) as refused:
        user.get(path)
    assert refused.value.status == 403
    control_plane.kubectl(
        *("create", "rolebinding", "view", "--clusterrole=view", "--group=team/a", "-n", namespace)
    )
    eventually(lambda: allowed(user, path))
    user.close()


def allowed(user: ApiClient, path: str) -> bool:
    try:
        user.get(path)
    except ApiError:
        return False
    return True


def test_restricted_namespaces_refuse_root(
    control_plane: ControlPlane, make_namespace: Callable[..., str]
) -> None:
    restricted = make_namespace(restricted=True)
    with pytest.raises(ApiError, match="restricted"):
        control_plane.api.post(f"/api/v1/namespaces/{restricted}/pods", pod())
    assert control_plane.api.post(f"/api/v1/namespaces/{make_namespace()}/pods", pod())


@pytest.mark.parametrize("kill", [False, True], ids=["terminated", "killed"])
def test_the_api_server_goes_away_and_comes_back(
    control_plane: ControlPlane, namespace: str, kill: bool
) -> None:
    control_plane.stop_api_server(kill=kill)
    try:
        with pytest.raises(Unavailable):
            control_plane.api.get("/version")
    finally:
        control_plane.start_api_server()
    assert control_plane.api.exists(f"/api/v1/namespaces/{namespace}")
