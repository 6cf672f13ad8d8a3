"""From any crash, in any order of things, to the end of an undisturbed run."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from redserve_operator.decide.observed import ObjectKey
from tests.operator.decide.world import World

HUB = {"uri": "hf://org/model", "cache": {"persistentVolumeClaim": {"claimName": "models"}}}
BASE = {"model": {"uri": "file://model"}, "encoder": {}, "llm": {}, "router": {}}

SPECS: st.SearchStrategy[Any] = st.fixed_dictionaries(
    {
        "model": st.sampled_from([{"uri": "file://model"}, HUB, {**HUB, "uri": "hf://org/other"}]),
        "encoder": st.sampled_from(
            [
                {},
                {"replicas": 3},
                {"replicas": 2, "image": "encoder:2"},
                {"scaling": {"minReplicas": 1, "maxReplicas": 3}},
                {"scaling": {"minReplicas": 2, "maxReplicas": 4}, "image": "encoder:2"},
            ]
        ),
        "llm": st.sampled_from(
            [{}, {"replicas": 2}, {"rollout": {"maxSurge": 0, "maxUnavailable": 1}}]
        ),
        "router": st.sampled_from([{}, {"replicas": 2}, {"image": "broken"}]),
        "networkPolicy": st.sampled_from(["Enabled", "Disabled"]),
        "reconcile": st.sampled_from(["Active"] * 6 + ["Paused", "Stopped"]),
    },
    optional={"serviceAccountName": st.just("theirs")},
)
FINAL: st.SearchStrategy[Any] = SPECS.filter(
    lambda spec: (
        spec["reconcile"] != "Paused"
        and "scaling" not in spec["encoder"]
        and spec["router"].get("image") != "broken"
    )
)


def disturb(world: World, rng: random.Random, changes: list[Any], num_events: int) -> None:
    changes = list(changes)
    acts = (world.workload_acts, world.pod_starts, world.pod_leaves, world.pod_fails)
    for _ in range(num_events):
        world.now += timedelta(seconds=rng.choice((1, 1, 10, 2000)))
        draw = rng.random()
        if draw < 0.35:
            world.step(rng.choice((None, 0, 1, 2, 3, 5, 8, 13, 21)))
        elif draw < 0.8:
            rng.choice(acts)(rng)
        elif draw < 0.85:
            world.job_ends(rng)
        elif draw < 0.9:
            world.scale("encoder", rng.randint(1, 5))
        elif draw < 0.95:
            tamper(world, rng)
        elif changes:
            world.resource["spec"] = changes.pop(0)
            world.resource["metadata"]["generation"] += 1


def tamper(world: World, rng: random.Random) -> None:
    keys = sorted(world.objects)
    if not keys:
        return
    key = rng.choice(keys)
    edits: dict[str, tuple[tuple[str, ...], Any]] = {
        "Deployment": (("spec", "replicas"), 7),
        "Service": (("spec", "selector"), {"extra": "x"}),
        "RedPool": (("spec", "replicas"), 4),
        "ConfigMap": (("metadata", "labels", "app.kubernetes.io/name"), "none"),
    }
    if key.kind in edits:
        world.foreign_edit(key, *edits[key.kind])


@settings(max_examples=60, deadline=None)
@given(SPECS, st.lists(SPECS, max_size=5), FINAL, st.integers(0, 10**6), st.integers(0, 150))
def test_it_converges_to_the_undisturbed_end(first, changes, last, seed, num_events):
    rng = random.Random(seed)
    world = World(first, refuses={"broken": "no such image policy"})
    disturb(world, rng, changes, num_events)
    world.resource["spec"] = last
    world.resource["metadata"]["generation"] += 1
    world.settle(rng)
    fresh = World(last)
    fresh.resource["metadata"]["generation"] = world.resource["metadata"]["generation"]
    fresh.settle(random.Random(1))
    assert world.contents() == fresh.contents()
    assert world.conditions() == fresh.conditions()
    assert {p.revision for p in world.pods} == {p.revision for p in fresh.pods}
    quiet = world.plan()
    assert not quiet.actions
    assert quiet.status is None


def test_a_child_is_written_at_most_three_times_until_all_is_ready():
    world = World({**BASE, "encoder": {"scaling": {"maxReplicas": 3}}})
    world.finish()
    assert world.conditions()["Ready"] == ("True", "AllReady")
    assert max(world.num_writes.values()) <= 3


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 6))
def test_the_size_of_a_pool_survives_every_hand_over(seed, size):
    """Manifest to autoscaler and back, with crashes: the present number never falls."""
    rng = random.Random(seed)
    world = World({**BASE, "encoder": {"replicas": size}})
    world.settle(rng)
    world.edit(encoder={"scaling": {"minReplicas": 1, "maxReplicas": 8}})
    for _ in range(12):
        world.step(rng.choice((0, 1, 2, None)))
        assert world.objects[ObjectKey("RedPool", "demo-encoder")]["spec"]["replicas"] == size
    world.settle(rng)
    world.scale("encoder", 4)
    world.settle(rng)
    assert world.resource["status"]["pools"][0]["readyText"] == "4/4"
    world.edit(encoder={"replicas": size})
    world.settle(rng)
    assert world.resource["status"]["pools"][0]["readyText"] == f"{size}/{size}"
