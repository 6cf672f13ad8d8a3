"""Chart, operator, rendering, services and router together: the demo model is served.

One cluster and one service for the whole file; every test leaves it serving, the last one deletes
it. The pods are processes of this machine.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import pytest

from redserve.wire.router_client import Choices
from tests.kubernetes.installation import (
    MANIFEST,
    OPERATOR_NAMESPACE,
    ROOT,
    Installation,
    Load,
    ask,
    images,
    manifest,
    questions,
)
from tests.kubernetes.waiting import eventually, eventually_async
from tools.kubernetes.control_plane import ControlPlane
from tools.kubernetes.kubelet.node import NodeOptions
from tools.kubernetes.kubelet.process_kubelet import ProcessKubelet

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1200)]

NAME = "demo"
READY_S = 360.0
"""A rollout takes minutes on a machine that is busy with other things."""
LONG = Choices(temperature=0.0, max_tokens=1500, ignore_eos=True)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """A cluster of its own: the operator looks after every namespace."""
    folder = tmp_path_factory.mktemp("end-to-end")
    with (
        ControlPlane(folder / "control-plane") as control_plane,
        ProcessKubelet(
            control_plane, images(), folder / "pods", NodeOptions(backoff_s=1.0)
        ) as kubelet,
    ):
        for namespace in (OPERATOR_NAMESPACE, "demo"):
            control_plane.kubectl("create", "namespace", namespace)
            control_plane.kubectl(
                "label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted"
            )
        made = Installation(control_plane, kubelet, "demo")
        made.helm("install", "redserve", str(ROOT / "helm/redserve"), "--wait", "--timeout=5m")
        yield made


@pytest.fixture(scope="module")
def demo(installed: Installation) -> Installation:
    installed.kubectl("apply", "-f", str(MANIFEST))
    wait_ready(installed)
    return installed


@pytest.fixture(autouse=True)
def told_when_it_fails(request: pytest.FixtureRequest, installed: Installation) -> Iterator[None]:
    failed = request.session.testsfailed
    yield
    if request.session.testsfailed > failed:
        print(installed.story())


def is_whole(installed: Installation) -> bool:
    """Ready alone may be the revision before; with nothing under way it is the newest."""
    found = [installed.condition(NAME, kind) for kind in ("Progressing", "Ready")]
    return found == ["False", "True"]


def wait_ready(installed: Installation) -> None:
    try:
        eventually(lambda: is_whole(installed), timeout_s=READY_S)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{installed.story()}") from None


async def test_every_answer_is_right(demo: Installation) -> None:
    listed = questions()
    addresses = demo.endpoints(NAME)
    assert len(addresses) == 1
    answers = [await ask(addresses[0], question) for question in listed]
    assert answers == [question.answer for question in listed]
    table = demo.kubectl("get", "redservices")
    assert "True" in table


async def answers_again(demo: Installation) -> bool:
    question = questions()[0]
    try:
        addresses = demo.endpoints(NAME)
        return bool(addresses and await ask(addresses[0], question) == question.answer)
    except Exception:
        return False


@pytest.mark.parametrize("pool", ["encoder", "llm", "router"])
async def test_a_killed_process_is_started_again(demo: Installation, pool: str) -> None:
    names = {found["metadata"]["name"] for found in demo.pods(pool=pool)}
    demo.kubelet.kill(demo.namespace, sorted(names)[0])

    async def restarted() -> bool:
        found = [p["status"]["containerStatuses"][0] for p in demo.pods(pool=pool)]
        return max(c["restartCount"] for c in found) == 1 and all(c["ready"] for c in found) is True

    await eventually_async(restarted, timeout_s=READY_S)
    await asyncio.to_thread(wait_ready, demo)
    await eventually_async(lambda: answers_again(demo), timeout_s=READY_S)
    assert {found["metadata"]["name"] for found in demo.pods(pool=pool)} == names


@pytest.mark.parametrize("pool", ["encoder", "llm"])
async def test_a_deleted_pod_is_replaced(demo: Installation, pool: str) -> None:
    pod = demo.pods(pool=pool)[0]["metadata"]["name"]
    num_pods = len(demo.pods(pool=pool))
    await asyncio.to_thread(demo.kubectl, "delete", "pod", pod)
    await asyncio.to_thread(wait_ready, demo)
    await eventually_async(lambda: answers_again(demo), timeout_s=READY_S)
    names = [found["metadata"]["name"] for found in demo.pods(pool=pool)]
    assert len(names) == num_pods
    assert pod not in names


async def test_a_changed_manifest_drops_no_stream(demo: Installation) -> None:
    before = demo.revisions(NAME)
    async with Load(demo, NAME, num_clients=3) as load:
        await eventually_async(lambda: some(load, 5), timeout_s=READY_S)
        changed = manifest(llm={"minChunk": 8})
        await asyncio.to_thread(demo.kubectl, "apply", "-f", "-", input=changed)
        await asyncio.to_thread(wait_rolled_out, demo, before)
        during = len(load.answered.right)
        await eventually_async(lambda: some(load, during + 10), timeout_s=READY_S)
    assert not load.answered.failed
    assert not load.answered.wrong

    # And back: the old content is the old revision.
    async with Load(demo, NAME, num_clients=3) as load:
        await asyncio.to_thread(demo.kubectl, "apply", "-f", str(MANIFEST))
        await asyncio.to_thread(wait_rolled_out, demo, demo.revisions(NAME))
    assert demo.revisions(NAME) == before
    assert not load.answered.failed
    assert not load.answered.wrong
    assert len(load.answered.right) > 10


async def some(load: Load, number: int) -> bool:
    return len(load.answered.right) + len(load.answered.failed) >= number


def wait_rolled_out(demo: Installation, before: set[str]) -> None:
    def done() -> bool:
        now = demo.revisions(NAME)
        settled = demo.condition(NAME, "Progressing") == "False"
        return len(now) == 1 and now != before and settled

    try:
        eventually(done, timeout_s=READY_S, poll_s=0.5)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{demo.story()}") from None
    wait_ready(demo)


async def test_running_streams_outlive_their_revision(demo: Installation) -> None:
    """Streams of many seconds: pods that they run on are told to stop in their middle."""
    before = demo.revisions(NAME)
    question = questions()[0]
    whole = await ask(demo.endpoints(NAME)[0], question, choices=LONG, timeout_s=READY_S)
    ended: list[str] = []
    running: set[str] = set()
    over_the_end: set[str] = set()
    stop = asyncio.Event()

    async def stream(number: int) -> None:
        while not stop.is_set():
            address = (await asyncio.to_thread(demo.endpoints, NAME))[0]
            running.add(key := f"{number}-{len(ended)}")
            ended.append(await ask(address, question, choices=LONG, timeout_s=READY_S))
            running.discard(key)

    async def watch() -> None:
        while not stop.is_set():
            pods = await asyncio.to_thread(demo.pods, service=NAME, pool="router")
            if any("deletionTimestamp" in pod["metadata"] for pod in pods):
                over_the_end.update(running)
            await asyncio.sleep(0.2)

    async with asyncio.TaskGroup() as group:
        group.create_task(stream(0))
        group.create_task(stream(1))
        group.create_task(watch())
        changed = manifest(llm={"minChunk": 6})
        await asyncio.to_thread(demo.kubectl, "apply", "-f", "-", input=changed)
        await asyncio.to_thread(wait_rolled_out, demo, before)
        stop.set()
    assert over_the_end, "no stream was running when a router was told to stop"
    assert set(ended) == {whole}


def test_nothing_is_left(demo: Installation) -> None:
    wait_ready(demo)
    pids = [pid for (namespace, *_), pid in demo.kubelet.pids().items() if namespace == "demo"]
    assert len(pids) == 4
    demo.kubectl("delete", "redservice", NAME, "--wait=false")
    kinds = (
        "redservices,redpools,deployments,replicasets,pods,services,configmaps,endpointslices,"
        "poddisruptionbudgets,networkpolicies,serviceaccounts,roles,rolebindings,jobs"
    )
    selector = f"redserve.dev/service={NAME}"

    def left() -> str:
        return demo.kubectl("get", kinds, "-l", selector, "-o", "name").strip()

    eventually(lambda: not left(), timeout_s=READY_S, poll_s=0.5)
    assert not demo.kubectl("get", "redservices", "-o", "name")
    eventually(lambda: not [pid for pid in pids if is_alive(pid)])
    demo.helm("uninstall", "redserve", "--wait")
    eventually(lambda: not demo.kubelet.pids(), timeout_s=60)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
