"""Counting pods and workloads."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from redserve_operator.decide.census import OVERDUE, Census, take_census
from redserve_operator.decide.objects import key_of
from redserve_operator.decide.observed import Observed, PodFacts
from redserve_operator.decide.rollout import Tally


def workload(
    kind: str = "Deployment", uid: str = "u", revision: str = "a", **fields: Any
) -> dict[str, Any]:
    marks = {"redserve.dev/pool": "llm", "redserve.dev/revision": revision}
    return {
        "kind": kind,
        "metadata": {
            "name": f"demo-llm-{revision}",
            "labels": marks,
            "ownerReferences": [{"uid": uid, "controller": True}],
            **fields.pop("metadata", {}),
        },
        "spec": fields,
    }


def count(*children: Any, pods: Any = ()) -> Census:
    observed = Observed({}, {key_of(child): child for child in children}, tuple(pods))
    return take_census(observed, "u")


def test_pods_by_state():
    pods = [
        PodFacts("a", "llm", "a", ready=True),
        PodFacts("b", "llm", "a", ready=False),
        PodFacts("c", "llm", "a", ready=False, terminating=True),
        PodFacts("d", "llm", "old", ready=True),
    ]
    census = count(workload(replicas=3), pods=pods)
    assert census.tally("llm", "a") == Tally(3, 1, 1, 1)
    assert census.tally("llm", "old") == Tally(0, 1, 0, 0)
    assert census.tally("router", "a") == Tally()
    assert census.num_present("llm") == 3
    assert census.revisions() == {"a", "old"}


def test_a_pod_that_should_have_gone_long_ago_is_not_waited_for():
    ends = datetime(2026, 1, 1, tzinfo=UTC)
    pod = PodFacts("a", "router", "old", ready=False, terminating=True, leaves_by=ends)
    observed = Observed({}, {}, (pod,))
    assert take_census(observed, "u", ends).tally("router", "old") == Tally(0, 0, 0, 1)
    late = take_census(observed, "u", ends + OVERDUE)
    assert late.tally("router", "old").is_gone
    assert late.pods_of("router", "old") == (pod,)


def test_a_default_size_is_one_and_what_is_deleted_has_none():
    assert count(workload()).tally("llm", "a").target == 1
    going = workload(replicas=3, metadata={"deletionTimestamp": "2026-01-01T00:00:00Z"})
    assert count(going).tally("llm", "a").target == 0


def test_what_others_own_is_not_counted():
    assert count(workload(uid="other", replicas=3)).tallies["llm"] == {}


def test_a_group_is_as_good_as_its_worst_pod():
    def pod(name: str, group: str, *, ready: bool, terminating: bool = False) -> PodFacts:
        return PodFacts(name, "llm", "a", ready, terminating, group=group)

    pods = [
        pod("1", "whole", ready=True),
        pod("2", "whole", ready=True),
        pod("3", "half", ready=True),
        pod("4", "half", ready=False),
        pod("5", "alone", ready=True),
        pod("6", "going", ready=True),
        pod("7", "going", ready=False, terminating=True),
    ]
    lws = workload("LeaderWorkerSet", replicas=4, leaderWorkerTemplate={"size": 2})
    assert count(lws, pods=pods).tally("llm", "a") == Tally(4, 1, 2, 1)
