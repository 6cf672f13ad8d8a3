"""Fake nodes do what kubelets would: a Deployment becomes ready, rolls and goes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.kubernetes.waiting import eventually_async
from tools.kubernetes.async_api import open_api
from tools.kubernetes.fake_nodes import GPU, Behaviour, running

if TYPE_CHECKING:
    from tools.kubernetes.async_api import JsonObject

pytestmark = pytest.mark.cluster


def deployment(replicas: int, gpus: int = 1) -> JsonObject:
    labels = {"app": "fake"}
    container = {"name": "main", "image": "fake", "resources": {"limits": {GPU: str(gpus)}}}
    return {
        "metadata": {"name": "fake"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        },
    }


def job() -> JsonObject:
    container = {"name": "main", "image": "fake"}
    return {
        "metadata": {"name": "load"},
        "spec": {
            "template": {"spec": {"containers": [container], "restartPolicy": "Never"}},
            "backoffLimit": 0,
        },
    }


async def test_pods_become_ready_when_they_may_and_go_when_deleted(control_plane, namespace):
    allowed: set[str] = set()
    behaviour = Behaviour(
        start_delay_s=0.0,
        stop_delay_s=0.0,
        may_be_ready=lambda pod: pod["metadata"]["namespace"] in allowed,
    )
    root = f"/apis/apps/v1/namespaces/{namespace}/deployments"
    async with (
        open_api(control_plane.kubeconfig) as api,
        running(api, behaviour, nodes=2, gpus=2) as nodes,
    ):

        async def num(field: str) -> int:
            status = (await api.call("GET", f"{root}/fake"))["status"]
            return int(status.get(field, 0))

        async def pods() -> list[JsonObject]:
            listed = await api.call("GET", f"/api/v1/namespaces/{namespace}/pods")
            return list(listed["items"])

        await api.call("POST", root, deployment(3))

        async def running_pods() -> bool:
            return [p["status"]["phase"] for p in await pods()] == ["Running"] * 3

        await eventually_async(running_pods)
        assert await num("readyReplicas") == 0
        allowed.add(namespace)
        nodes.look_again()

        async def all_ready() -> bool:
            return await num("readyReplicas") == 3

        await eventually_async(all_ready)
        await api.call("DELETE", f"{root}/fake", {"propagationPolicy": "Foreground"})

        async def none_left() -> bool:
            return not await pods()

        await eventually_async(none_left)


async def test_more_pods_than_gpus_stay_unschedulable(control_plane, namespace):
    root = f"/apis/apps/v1/namespaces/{namespace}/deployments"
    async with open_api(control_plane.kubeconfig) as api, running(api, nodes=1, gpus=1):
        await api.call("POST", root, deployment(1, gpus=64))

        async def no_room() -> bool:
            listed = await api.call("GET", f"/api/v1/namespaces/{namespace}/pods")
            # At first the scheduler may know of no node yet.
            return any(
                f"Insufficient {GPU}" in condition.get("message", "")
                for pod in listed["items"]
                for condition in pod["status"].get("conditions", [])
                if condition.get("reason") == "Unschedulable"
            )

        await eventually_async(no_room)


@pytest.mark.parametrize(("succeeds", "field"), [(True, "succeeded"), (False, "failed")])
async def test_jobs_end_as_they_are_told(control_plane, namespace, succeeds, field):
    root = f"/apis/batch/v1/namespaces/{namespace}/jobs"
    behaviour = Behaviour(start_delay_s=0.0, job_succeeds=succeeds, job_message="a commit")
    async with open_api(control_plane.kubeconfig) as api, running(api, behaviour):
        await api.call("POST", root, job())

        async def ended() -> bool:
            return bool((await api.call("GET", f"{root}/load"))["status"].get(field) == 1)

        await eventually_async(ended)
