"""Writes and deletions of single objects."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from redserve_operator.decide.census import Census
from redserve_operator.decide.objects import key_of, stamped
from redserve_operator.decide.observed import ObjectKey
from redserve_operator.decide.plan import Action, Apply, Delete
from redserve_operator.decide.rollout import Tally
from redserve_operator.decide.upkeep import keep, leftovers, resize


def manifest(kind: str = "Service", name: str = "demo", **fields: Any) -> dict[str, Any]:
    made = {"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": "team"}}
    return {**made, **fields}


def stored(wanted: Any, **changes: Any) -> dict[str, Any]:
    have = copy.deepcopy(stamped(wanted))
    have["metadata"]["uid"] = "u1"
    return {**have, **changes}


def written(wanted: Any, have: Any = None) -> Action | None:
    return keep(wanted, {} if have is None else {key_of(have): have}, {})


SERVICE = manifest(spec={"clusterIP": "None"})
DEPLOYMENT = manifest("Deployment", spec={"replicas": 2, "template": {"a": 1}})
CONFIG = manifest("ConfigMap", data={"A": "1"}, immutable=True)
JOB = manifest("Job", spec={"template": {"spec": {"image": "a"}}})


def test_missing_is_created_and_equal_is_left():
    made = written(SERVICE)
    assert isinstance(made, Apply)
    assert made.why == "created"
    assert made.manager == "redserve-operator"
    assert written(SERVICE, stored(SERVICE)) is None
    assert written(SERVICE, stored(SERVICE, status={"a": 1})) is None


def test_why_it_is_written():
    changed = written(SERVICE, stored(manifest(spec={"clusterIP": "other"})))
    assert isinstance(changed, Apply)
    assert changed.why == "changed"
    healed = written(SERVICE, stored(SERVICE, spec={"clusterIP": "other"}))
    assert isinstance(healed, Apply)
    assert healed.why == "healed"
    scaled = written(DEPLOYMENT, stored(DEPLOYMENT, spec={"replicas": 5, "template": {"a": 1}}))
    assert isinstance(scaled, Apply)
    assert scaled.why == "scaled"


def test_what_is_being_deleted_is_awaited():
    have = stored(SERVICE, spec={})
    have["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert written(SERVICE, have) is None


def test_what_cannot_change_is_made_anew():
    action = written(CONFIG, stored(CONFIG, data={"A": "2"}))
    assert action == Delete(ObjectKey("ConfigMap", "demo"), "u1", "replaced")
    unlabelled = stored(CONFIG)
    wanted = {**CONFIG, "metadata": {**CONFIG["metadata"], "labels": {"a": "1"}}}
    action = written(wanted, unlabelled)
    assert isinstance(action, Apply)


def test_a_config_map_that_is_not_immutable_is_changed_where_it_is():
    rules = manifest("ConfigMap", data={"A": "1"})
    action = written(rules, stored(rules, data={"A": "2"}))
    assert isinstance(action, Apply)
    assert action.why == "healed"


def test_a_job_that_is_done_is_left_alone_and_one_that_is_not_is_made_anew():
    newer = manifest("Job", spec={"template": {"spec": {"image": "b"}}})
    have = stored(JOB)
    assert isinstance(written(newer, have), Delete)
    done = stored(JOB, status={"conditions": [{"type": "Complete", "status": "True"}]})
    assert written(newer, done) is None
    failed = stored(JOB, status={"conditions": [{"type": "Failed", "status": "True"}]})
    assert isinstance(written(newer, failed), Delete)
    assert written(JOB, failed) is None


def test_a_budget_loses_the_bound_that_others_gave_it():
    budget = manifest("PodDisruptionBudget", spec={"maxUnavailable": 0})
    action = written(budget, stored(budget, spec={"minAvailable": 0}))
    assert isinstance(action, Apply)
    assert action.manifest["spec"] == {"maxUnavailable": 0, "minAvailable": None}
    action = written(budget, stored(budget, spec={"maxUnavailable": 1}))
    assert isinstance(action, Apply)
    assert action.manifest["spec"] == {"maxUnavailable": 0}


def test_old_workloads_get_their_size_by_a_manager_of_its_own():
    have = stored(DEPLOYMENT)
    action = resize(have, 1, {})
    assert isinstance(action, Apply)
    assert action.manager == "redserve-rollout"
    assert action.manifest == {
        "apiVersion": "v1",
        "kind": "Deployment",
        "metadata": {"name": "demo", "namespace": "team", "uid": "u1"},
        "spec": {"replicas": 1},
    }
    assert resize(have, 2, {}) is None


def child(
    kind: str, name: str, *, owner: str = "owner", revision: str = "", pool: str = "llm"
) -> dict[str, Any]:
    marks = {"redserve.dev/pool": pool, "redserve.dev/revision": revision} if revision else {}
    metadata = {
        "name": name,
        "uid": f"uid-{name}",
        "labels": marks,
        "ownerReferences": [{"uid": owner, "controller": True}],
    }
    return {"kind": kind, "metadata": metadata}


@pytest.mark.parametrize("left", [Tally(1), Tally(0, 1), Tally(0, 0, 1), Tally(0, 0, 0, 1)])
def test_an_old_revision_goes_when_nothing_is_left_of_it(left):
    children = [
        child("ConfigMap", "llm-old", revision="old"),
        child("Deployment", "llm-old", revision="old"),
        child("Service", "llm-new", revision="new"),
        child("ServiceAccount", "unused"),
        child("NetworkPolicy", "unused"),
        child("Secret", "not-ours"),
        child("Service", "foreign", owner="other"),
    ]
    keyed = {key_of(one): one for one in children}

    def gone(tally: Tally) -> list[str]:
        census = Census({"llm": {"old": tally, "new": Tally(1, 1)}, "encoder": {}, "router": {}})
        return [str(one.key.kind) for one in leftovers(keyed, set(), "owner", census, "new")]

    assert gone(left) == ["NetworkPolicy"]
    assert gone(Tally()) == ["Deployment", "ConfigMap", "NetworkPolicy", "ServiceAccount"]
