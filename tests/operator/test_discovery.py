from __future__ import annotations

from redserve.cluster.facts import ClusterFacts
from redserve_operator.discovery import cluster_facts, definitions_are_there
from redserve_operator.kube.kinds import kind_of, watched
from tests.operator.fake_kube import FakeKube


async def test_what_a_cluster_can_do() -> None:
    kube = FakeKube()
    facts = await cluster_facts(kube)
    assert facts == ClusterFacts(minor=34, kinds=frozenset({"PodMonitor"}))
    assert not await definitions_are_there(kube)


def test_optional_kinds_are_watched_where_they_are_served() -> None:
    plain = {kind.name for kind in watched(frozenset())}
    more = {kind.name for kind in watched(frozenset({"PodMonitor", "LeaderWorkerSet"}))}
    assert more - plain == {"PodMonitor", "LeaderWorkerSet"}
    monitor = kind_of("PodMonitor")
    assert monitor.path("ns", "x") == "/apis/monitoring.coreos.com/v1/namespaces/ns/podmonitors/x"
    assert kind_of("Pod").path(None) == "/api/v1/pods"
