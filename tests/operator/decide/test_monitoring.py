"""Rules come and go with the manifest and the cluster; MonitoringReady tells which there are."""

from __future__ import annotations

from dataclasses import replace

import pytest

from redserve.cluster.facts import POD_MONITOR, PROMETHEUS_RULE, ClusterFacts
from redserve_operator.decide.observed import ObjectKey
from redserve_operator.decide.reconcile import reconcile
from tests.operator.decide.world import World

SPEC = {"model": {"uri": "file://model"}, "encoder": {}, "llm": {}, "router": {}}
RULE = ObjectKey(PROMETHEUS_RULE, "demo")
CONFIG_MAP = ObjectKey("ConfigMap", "demo-rules")
BOTH = frozenset({POD_MONITOR, PROMETHEUS_RULE})


def world_with(kinds: frozenset[str], **monitoring: object) -> World:
    world = World({**SPEC, "monitoring": monitoring})
    serve(world, kinds)
    world.finish()
    return world


def serve(world: World, kinds: frozenset[str]) -> None:
    world.context = replace(world.context, facts=ClusterFacts(minor=33, kinds=kinds))


def told(world: World) -> tuple[str, str, str]:
    for one in world.resource["status"]["conditions"]:
        if one["type"] == "MonitoringReady":
            return one["status"], one["reason"], one["message"]
    raise AssertionError("no such condition")


def there(world: World) -> set[ObjectKey]:
    return {RULE, CONFIG_MAP} & world.objects.keys()


def test_a_prometheus_rule_where_that_is_served() -> None:
    world = world_with(BOTH)
    assert there(world) == {RULE}
    message = "rules are in the PrometheusRule demo; the PodMonitor demo finds the pods"
    assert told(world) == ("True", "PrometheusRule", message)


def test_a_config_map_where_it_is_not() -> None:
    world = world_with(frozenset())
    assert there(world) == {CONFIG_MAP}
    status, reason, message = told(world)
    assert (status, reason) == ("True", "ConfigMap")
    assert message == (
        "rules are in the ConfigMap demo-rules; no PodMonitor tells Prometheus where the pods are"
    )


@pytest.mark.parametrize("kinds", [BOTH, frozenset()], ids=["served", "not served"])
def test_none_when_it_is_disabled(kinds: frozenset[str]) -> None:
    world = world_with(kinds)
    assert there(world)
    world.edit(monitoring={"rules": "Disabled"})
    world.finish()
    assert not there(world)
    assert told(world)[:2] == ("True", "NoRules")
    world.edit(monitoring={"rules": "Auto"})
    world.finish()
    assert there(world)


def test_the_kind_comes_and_goes() -> None:
    world = world_with(frozenset())
    revision = world.resource["status"]["currentRevision"]
    serve(world, BOTH)
    world.finish()
    assert there(world) == {RULE}
    assert told(world)[1] == "PrometheusRule"
    serve(world, frozenset())
    for key in (RULE, ObjectKey(POD_MONITOR, "demo")):
        del world.objects[key]  # with their definitions
    world.finish()
    assert there(world) == {CONFIG_MAP}
    assert world.resource["status"]["currentRevision"] == revision


def test_rules_follow_the_promises_without_being_made_anew() -> None:
    world = world_with(frozenset())
    uid = world.objects[CONFIG_MAP]["metadata"]["uid"]
    slo = {"name": "available", "indicator": "Availability", "objectivePercent": "99.9"}
    world.edit(slos=[slo])
    world.finish()
    have = world.objects[CONFIG_MAP]
    assert have["metadata"]["uid"] == uid
    (text,) = have["data"].values()
    assert "RedServeSLOBurnRatePage" in text
    assert not world.plan().actions


def test_rules_that_somebody_edits_are_healed() -> None:
    world = world_with(BOTH)
    before = world.contents()
    world.foreign_edit(RULE, ("spec", "groups"), [])
    world.finish()
    assert world.contents() == before


def test_rules_that_are_refused_are_told_and_hold_no_pods() -> None:
    world = world_with(frozenset())
    world.edit(llm={"replicas": 2})
    observed = replace(world.observe(), rejected={CONFIG_MAP: "somebody else's"})
    plan = reconcile(world.context, observed, world.now)
    assert plan.status is not None
    conditions = {one["type"]: one for one in plan.status["conditions"]}
    refused = conditions["MonitoringReady"]
    assert (refused["status"], refused["reason"]) == ("False", "ObjectRefused")
    assert refused["message"] == "ConfigMap demo-rules: somebody else's"
    assert conditions["Progressing"]["reason"] == "Scaling"
