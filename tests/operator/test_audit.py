from __future__ import annotations

import asyncio

import pytest
from prometheus_client import CollectorRegistry

from redserve.telemetry.metrics.operator import OperatorMetrics
from redserve_operator.audit import Audit
from redserve_operator.keys import ServiceKey
from redserve_operator.kube.backoff import Backoff
from redserve_operator.kube.errors import Forbidden, KubeError, Retryable
from redserve_operator.kube.kinds import DEPLOYMENT, REDSERVICE, optional
from redserve_operator.queue import WorkQueue
from redserve_operator.store.cache import Store
from tests.operator.fake_kube import FakeKube
from tests.operator.samples import child, service

MONITOR = optional("PodMonitor")


class Room:
    def __init__(self, *namespaces: str) -> None:
        self.kube = FakeKube()
        self.store = Store()
        self.queue = WorkQueue(0.0, Backoff(1.0, 1.0))
        self.registry = CollectorRegistry()
        metrics = OperatorMetrics(self.registry)
        kinds = (REDSERVICE, MONITOR, DEPLOYMENT)
        self.audit = Audit(self.kube, self.store, self.queue, kinds, namespaces, metrics)


@pytest.fixture
def room() -> Room:
    return Room()


async def test_the_cache_is_complete_once_everything_listed_has_been_told(room: Room) -> None:
    told = [room.kube.put(service()), room.kube.put(child("Deployment", "d"))]
    foreign = child("Deployment", "foreign")
    foreign["metadata"]["labels"] = {}
    room.kube.put(foreign)
    syncing = asyncio.create_task(room.audit.synced())
    await asyncio.sleep(0.01)
    room.store.put("RedService", told[0])
    await asyncio.sleep(0.1)
    assert not syncing.done()
    room.store.put("Deployment", told[1])
    await asyncio.wait_for(syncing, 5.0)


async def test_what_was_deleted_before_the_watch_began_is_not_waited_for(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("redserve_operator.audit.RELIST_S", 0.1)
    room.kube.put(child("Deployment", "d"))
    syncing = asyncio.create_task(room.audit.synced())
    await asyncio.sleep(0.02)
    room.kube.objects.clear()
    await asyncio.wait_for(syncing, 5.0)


async def test_a_label_without_a_service_is_nobodys_concern(room: Room) -> None:
    # The watch does not tell of it, and the cache could not say whose it is.
    room.kube.put(child("Deployment", "d", of=""))
    await asyncio.wait_for(room.audit.synced(), 5.0)
    await room.audit.once(grace_s=0.0)
    assert room.audit.deaf == frozenset()


async def test_what_vanished_unseen_is_dropped_and_looked_at(room: Room) -> None:
    room.store.put("RedService", room.kube.put(service()))
    room.store.put("Deployment", room.kube.put(child("Deployment", "d")))
    del room.kube.objects["Deployment", "ns", "d"]
    room.kube.put(service("other"))
    await room.audit.once(grace_s=0.0)
    assert await room.queue.take() == ServiceKey("ns", "demo")
    assert room.store.sizes()["Deployment"] == 0


async def test_a_deaf_watch_is_noticed_and_forgiven(room: Room) -> None:
    late = room.kube.put(child("Deployment", "d"))
    await room.audit.once(grace_s=0.0)
    assert room.audit.deaf == {"Deployment"}
    room.store.put("Deployment", late)
    await room.audit.once(grace_s=0.0)
    assert room.audit.deaf == frozenset()


async def test_what_was_deleted_while_the_watch_was_waited_for_is_not_deafness(room: Room) -> None:
    room.kube.put(child("Deployment", "d"))
    auditing = asyncio.create_task(room.audit.once(grace_s=0.2))
    await asyncio.sleep(0.05)
    room.kube.objects.clear()
    await auditing
    assert room.audit.deaf == frozenset()


async def test_other_namespaces_are_nobodys_concern() -> None:
    room = Room("ns")
    elsewhere = service()
    elsewhere["metadata"]["namespace"] = "elsewhere"
    room.kube.put(elsewhere)
    await asyncio.wait_for(room.audit.synced(), 5.0)


async def test_a_namespace_that_is_gone_and_a_kind_that_is_broken_hold_up_nothing_else() -> None:
    room = Room("gone", "ns")
    room.kube.closed = {"gone"}
    room.kube.refuse["list", "PodMonitor"] = Retryable("conversion webhook failed", status=500)
    late = room.kube.put(child("Deployment", "d"))
    syncing = asyncio.create_task(room.audit.synced())
    await asyncio.sleep(0.1)
    assert not syncing.done()
    room.store.put("Deployment", late)
    await asyncio.wait_for(syncing, 5.0)
    room.kube.put(child("Deployment", "later"))
    await room.audit.once(grace_s=0.0)
    assert room.audit.deaf == {"Deployment"}
    unlisted = {
        kind: room.registry.get_sample_value(
            "redserve_operator_unlisted_namespaces", {"kind": kind}
        )
        for kind in ("RedService", "PodMonitor", "Deployment")
    }
    assert unlisted == {"RedService": 1.0, "PodMonitor": 2.0, "Deployment": 1.0}


@pytest.mark.parametrize(
    ("namespaces", "error"),
    [
        ((), Forbidden("no right in the whole cluster", status=403)),
        (("ns",), Retryable("busy", status=503)),
        (("ns",), Retryable("no connection")),
    ],
)
async def test_without_an_answer_the_cache_is_not_complete(
    namespaces: tuple[str, ...], error: KubeError
) -> None:
    room = Room(*namespaces)
    room.kube.refuse["list", "Deployment"] = error
    with pytest.raises(type(error)):
        await room.audit.synced()
