from __future__ import annotations

import asyncio

import pytest
from prometheus_client import CollectorRegistry

from redserve.spec.settings import OperatorSettings
from redserve.telemetry.metrics.operator import OperatorMetrics
from redserve_operator import leading
from redserve_operator.keys import ServiceKey
from redserve_operator.kube.errors import Retryable
from redserve_operator.leading import Leader
from tests.operator.fake_kube import FakeKube


class Grown(FakeKube):
    """A cluster to which kinds may be added."""

    kinds: frozenset[str] = frozenset()

    async def served_kinds(self, api_version: str) -> frozenset[str]:
        return self.kinds


@pytest.fixture
def kube() -> Grown:
    return Grown()


@pytest.fixture
def leader(kube: Grown) -> Leader:
    settings = OperatorSettings.model_validate({"stuck_after_s": 0.01, "debounce_s": 0.0})
    metrics = OperatorMetrics(CollectorRegistry())
    return Leader(settings, kube, metrics, "op-1", lambda: True)


async def test_a_kind_that_comes_ends_the_process(
    leader: Leader, kube: Grown, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leading, "RENEW_S", 0.005)
    following = asyncio.create_task(leader._follow_reach())
    await asyncio.sleep(0.03)
    assert not following.done()
    kube.kinds = frozenset({"LeaderWorkerSet"})
    await asyncio.wait_for(following, 5.0)


async def test_a_named_namespace_that_cannot_be_read_is_set_aside_until_it_can(
    kube: Grown, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leading, "RENEW_S", 0.005)
    settings = OperatorSettings.model_validate(
        {"lease_renew_s": 0.005, "watch_namespaces": ["gone", "ns"]}
    )
    registry = CollectorRegistry()
    leader = Leader(settings, kube, OperatorMetrics(registry), "op-1", lambda: True)
    kube.kinds = frozenset({"RedService", "RedPool"})
    kube.closed = {"gone", "ns"}
    discovering = asyncio.create_task(leader._discover())
    await asyncio.sleep(0.05)
    assert leader.not_ready == "may not read namespaces: gone, ns"
    kube.closed = {"gone"}
    await asyncio.wait_for(discovering, 5.0)
    assert (leader._reach.namespaces, leader._reach.aside) == (("ns",), ("gone",))
    assert registry.get_sample_value("redserve_operator_namespaces_aside") == 1.0
    # One that goes is left to its watches, one that comes needs new ones.
    following = asyncio.create_task(leader._follow_reach())
    kube.closed = {"gone", "ns"}
    await asyncio.sleep(0.03)
    assert not following.done()
    kube.closed = set()
    await asyncio.wait_for(following, 5.0)


async def test_a_kind_that_is_served_and_cannot_be_listed_is_left_out(
    kube: Grown, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leading, "RENEW_S", 0.005)
    settings = OperatorSettings.model_validate({"lease_renew_s": 0.005})
    leader = Leader(settings, kube, OperatorMetrics(CollectorRegistry()), "op-1", lambda: True)
    kube.kinds = frozenset({"RedService", "RedPool", "PodMonitor"})
    kube.refuse["list", "PodMonitor"] = Retryable("conversion webhook failed", status=500)
    await asyncio.wait_for(leader._discover(), 5.0)
    assert leader._reach.facts.kinds == frozenset()
    following = asyncio.create_task(leader._follow_reach())
    await asyncio.sleep(0.03)
    assert not following.done()
    kube.refuse.clear()
    await asyncio.wait_for(following, 5.0)


async def test_a_service_that_nobody_takes_fails_liveness(leader: Leader) -> None:
    assert leader.not_alive() == ""
    leader._queue.add(ServiceKey("ns", "demo"))
    await asyncio.sleep(0.02)
    assert "has waited" in leader.not_alive()


async def test_discovery_outlasts_an_api_server_that_is_away(
    kube: Grown, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = OperatorSettings.model_validate({"lease_renew_s": 0.005})
    leader = Leader(settings, kube, OperatorMetrics(CollectorRegistry()), "op-1", lambda: True)

    async def away(_: str) -> frozenset[str]:
        raise Retryable("away", status=503)

    monkeypatch.setattr(kube, "served_kinds", away)
    discovering = asyncio.create_task(leader._discover())
    await asyncio.sleep(0.02)
    monkeypatch.undo()
    await asyncio.sleep(0.02)
    assert "CustomResourceDefinitions" in leader.not_ready
    kube.kinds = frozenset({"RedService", "RedPool", "PodMonitor"})
    await asyncio.wait_for(discovering, 5.0)
    assert leader._reach.facts.minor == 34
