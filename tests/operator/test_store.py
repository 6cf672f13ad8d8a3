from __future__ import annotations

from typing import Any

import pytest

from redserve_operator.decide.observed import ObjectKey, Observed
from redserve_operator.keys import ServiceKey
from redserve_operator.kube.client import Listed
from redserve_operator.store.cache import Store
from tests.operator.samples import child, pod, service

DEMO = ServiceKey("ns", "demo")


@pytest.fixture
def store() -> Store:
    made = Store()
    made.put("RedService", service(version=5))
    return made


def observed(store: Store) -> Observed:
    found = store.observed(DEMO, None, {})
    assert found is not None
    return found


def children(store: Store) -> dict[ObjectKey, Any]:
    return dict(observed(store).children)


def test_a_service_is_seen_with_all_that_is_its_own(store: Store) -> None:
    assert store.put("Service", child("Service", "demo", 6)) == DEMO
    assert store.put("Deployment", child("Deployment", "demo", 7)) == DEMO
    store.put("Deployment", child("Deployment", "other", 8, of="other"))
    store.put("Pod", pod(version=9))
    seen = observed(store)
    assert seen.resource["metadata"]["name"] == "demo"
    assert set(seen.children) == {ObjectKey("Service", "demo"), ObjectKey("Deployment", "demo")}
    assert [one.name for one in seen.pods] == ["demo-llm-0"]
    assert store.observed(ServiceKey("ns", "other"), None, {}) is None


def test_old_and_empty_news_are_no_news(store: Store) -> None:
    assert store.put("Service", child("Service", "demo", 8, spec={"a": 2})) == DEMO
    assert store.put("Service", child("Service", "demo", 7, spec={"a": 1})) is None
    assert store.put("Service", child("Service", "demo", 8, spec={"a": 2})) is None
    assert store.put("Service", child("Service", "demo", 9, spec={"a": 2})) is None
    assert children(store)[ObjectKey("Service", "demo")]["spec"] == {"a": 2}
    assert store.put("Service", child("Service", "demo", 10, spec={"a": 3})) == DEMO


def test_what_a_pod_says_beside_its_facts_is_no_news(store: Store) -> None:
    assert store.put("Pod", pod(version=6, phase="Pending")) == DEMO
    assert store.put("Pod", pod(version=7, phase="Running", hostIP="10.0.0.1")) is None
    ready = [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-11-28T03:00:09Z"}]
    assert store.put("Pod", pod(version=8, phase="Running", conditions=ready)) == DEMO


def test_a_child_that_lost_its_label_is_gone(store: Store) -> None:
    store.put("Service", child("Service", "demo", 6))
    stripped = child("Service", "demo", 7)
    stripped["metadata"]["labels"] = {}
    assert store.put("Service", stripped) == DEMO
    assert not children(store)
    # The watch says "deleted" of it, too, perhaps after the label has been restored.
    assert store.put("Service", child("Service", "demo", 8)) == DEMO
    assert store.remove("Service", child("Service", "demo", 7)) is None
    assert children(store)


def test_a_child_that_changes_hands_leaves_its_old_service(store: Store) -> None:
    store.put("RedService", service("other", 6))
    store.put("ConfigMap", child("ConfigMap", "c", 7))
    moved = child("ConfigMap", "c", 8, of="other")
    assert store.put("ConfigMap", moved) == ServiceKey("ns", "other")
    assert not children(store)


def test_what_was_deleted_by_us_does_not_come_back(store: Store) -> None:
    store.put("Deployment", child("Deployment", "d", 6, uid="u1"))
    store.deleted("Deployment", "ns", "d", "u1")
    assert not children(store)
    assert store.put("Deployment", child("Deployment", "d", 7, uid="u1")) is None
    assert not children(store)
    # Its end is told in any case: a new one may be wanted now.
    assert store.remove("Deployment", child("Deployment", "d", 8, uid="u1")) == DEMO
    assert store.put("Deployment", child("Deployment", "d", 9, uid="u2")) == DEMO
    assert children(store)


def test_deleting_an_older_object_leaves_the_newer_one(store: Store) -> None:
    store.put("Deployment", child("Deployment", "d", 6, uid="u2"))
    store.deleted("Deployment", "ns", "d", "u1")
    assert children(store)
    assert store.remove("Deployment", child("Deployment", "d", 5, uid="u1")) is None
    assert children(store)


def test_a_list_drops_what_vanished_unseen_and_nothing_newer(store: Store) -> None:
    store.put("Service", child("Service", "kept", 6, uid="a"))
    store.put("Service", child("Service", "vanished", 7, uid="b"))
    store.put("Service", child("Service", "replaced", 8, uid="c"))
    store.put("Service", child("Service", "newer", 20, uid="d"))
    listed = (Listed("ns", "kept", "a", 6), Listed("ns", "replaced", "other", 9))
    assert store.prune("Service", None, listed, version=10) == [DEMO, DEMO]
    assert {key.name for key in children(store)} == {"kept", "newer"}
    assert store.prune("Service", "elsewhere", (), version=99) == []
    assert store.prune("Service", "ns", (), version=99) == [DEMO, DEMO]


def test_the_store_knows_what_it_lacks(store: Store) -> None:
    store.put("Service", child("Service", "s", 6, uid="u"))
    assert not store.lacks("Service", Listed("ns", "s", "u", 6))
    assert store.lacks("Service", Listed("ns", "s", "u", 7))
    assert store.lacks("Service", Listed("ns", "t", "v", 1))
    store.deleted("Service", "ns", "t", "v")
    assert not store.lacks("Service", Listed("ns", "t", "v", 1))


def test_a_service_that_is_gone_is_not_observed(store: Store) -> None:
    store.put("Service", child("Service", "s", 6))
    assert store.remove("RedService", service(version=7)) == DEMO
    assert store.observed(DEMO, None, {}) is None
    assert store.sizes() == {"RedService": 0, "Service": 1}
    assert store.num_services() == 0


def test_the_newest_pod_of_a_loader_speaks_for_it(store: Store) -> None:
    def loader_pod(name: str, version: int, created: str, message: str) -> dict[str, Any]:
        made = child("Pod", name, version)
        made["metadata"]["labels"]["batch.kubernetes.io/job-name"] = "demo-model-1"
        made["metadata"]["creationTimestamp"] = created
        ended = {"exitCode": 1, "message": message}
        made["status"] = {"containerStatuses": [{"name": "l", "state": {"terminated": ended}}]}
        return made

    store.put("Pod", loader_pod("b", 7, "2026-11-28T03:00:02Z", "second"))
    store.put("Pod", loader_pod("a", 6, "2026-11-28T03:00:01Z", "first"))
    (loader,) = observed(store).loaders
    assert (loader.job, loader.report) == ("demo-model-1", "second")


def test_of_what_somebody_else_made_no_more_is_kept_than_that_it_is_there(store: Store) -> None:
    foreign = child("ConfigMap", "big", 6, uid="u", data={"x": "y" * 100_000})
    foreign["metadata"]["ownerReferences"] = []
    store.put("ConfigMap", foreign)
    assert not children(store)
    assert not store.lacks("ConfigMap", Listed("ns", "big", "u", 6))
    # It is given to the service: an owner is all that it lacked.
    given = child("ConfigMap", "big", 7, uid="u")
    assert store.put("ConfigMap", given) == DEMO
    assert ObjectKey("ConfigMap", "big") in children(store)
