"""Whole plans for the situations that matter, for review.

`python -m tests.operator.decide.golden_files` rewrites them.
"""

from __future__ import annotations

import random
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from redserve.cluster.facts import POD_MONITOR, ClusterFacts, Context
from redserve_operator.decide.objects import key_of
from redserve_operator.decide.observed import ObjectKey
from redserve_operator.decide.plan import Create, Delete
from tests.operator.decide.world import IMAGES, World

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from redserve_operator.decide.plan import Action

GOLDEN = Path(__file__).parents[1] / "golden"
SPEC: dict[str, Any] = {
    "model": {"uri": "file://model"},
    "encoder": {"replicas": 2},
    "llm": {},
    "router": {},
}
HUB = {"uri": "hf://org/model", "cache": {"persistentVolumeClaim": {"claimName": "models"}}}
SCALED = {"scaling": {"minReplicas": 1, "maxReplicas": 4}}


def running(**spec: Any) -> World:
    world = World({**SPEC, **spec})
    world.finish()
    world.events.clear()
    return world


def first_sight() -> World:
    return World(SPEC)


def first_sight_of_a_scaled_pool() -> World:
    return World({**SPEC, "encoder": SCALED})


def model_is_loading() -> World:
    world = World({**SPEC, "model": HUB})
    world.step()
    return world


def model_is_loaded() -> World:
    world = model_is_loading()
    world.step()
    world.job_ends(random.Random(0))
    return world


def all_ready() -> World:
    world = World(SPEC)
    world.step()
    while world.workload_acts(random.Random(0)) or world.pod_starts(random.Random(0)):
        pass
    return world


def nothing_to_do() -> World:
    return running()


def image_is_changed() -> World:
    world = running()
    world.edit(encoder={"replicas": 2, "image": "encoder:2"})
    return world


def new_revision_is_ready() -> World:
    world = image_is_changed()
    world.step()
    rng = random.Random(0)
    while world.workload_acts(rng) or world.pod_starts(rng):
        pass
    return world


def no_room_for_the_new_revision() -> World:
    world = image_is_changed()
    world.step()
    while world.workload_acts(random.Random(0)):
        pass
    for pod in world.pods:
        if not pod.started and pod.pool == "encoder":
            pod.problem = "Unschedulable"
            pod.message = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
        elif pod.pool == "llm":
            pod.started = True
    return world


def rollout_is_stuck() -> World:
    world = no_room_for_the_new_revision()
    world.step()
    world.now += timedelta(minutes=63)
    return world


def rolled_back_midway() -> World:
    world = new_revision_is_ready()
    world.step()
    world.edit(encoder={"replicas": 2})
    return world


def autoscaler_asks_for_more() -> World:
    world = running(encoder=SCALED)
    world.scale("encoder", 3)
    return world


def handed_to_the_autoscaler() -> World:
    world = running()
    world.edit(encoder=SCALED)
    return world


def handed_to_the_autoscaler_second_round() -> World:
    world = handed_to_the_autoscaler()
    world.step()
    return world


def taken_from_the_autoscaler() -> World:
    world = autoscaler_asks_for_more()
    world.finish()
    world.edit(encoder={"replicas": 2})
    return world


def paused_while_the_image_changes() -> World:
    world = running()
    world.edit(encoder={"replicas": 2, "image": "encoder:2"}, reconcile="Paused")
    return world


def stopped() -> World:
    world = running()
    world.edit(reconcile="Stopped")
    return world


def refused_while_running() -> World:
    world = running()
    world.refuses["encoder:2"] = 'pods "demo-encoder-x" is forbidden: violates PodSecurity'
    world.edit(encoder={"replicas": 3, "image": "encoder:2"})
    return world


def refused_at_first_sight() -> World:
    return World({**SPEC, "transport": {"type": "InProcess"}})


def edited_by_others() -> World:
    world = running()
    revision = world.resource["status"]["currentRevision"]
    deployment = ObjectKey("Deployment", f"demo-llm-{revision}")
    world.foreign_edit(deployment, ("spec", "replicas"), 5)
    world.foreign_edit(ObjectKey("Service", "demo"), ("spec", "selector"), {"app": "mine"})
    world.foreign_edit(ObjectKey("RedPool", "demo-encoder"), ("spec", "replicas"), 9)
    return world


def extras_are_switched_off() -> World:
    world = World(SPEC)
    facts = ClusterFacts(minor=33, kinds=frozenset({POD_MONITOR}))
    world.context = Context("elsewhere", IMAGES, facts)
    world.finish()
    world.edit(networkPolicy="Disabled", monitoring={"podMonitor": "Disabled"})
    return world


def pod_keeps_crashing() -> World:
    world = running()
    pod = next(pod for pod in world.pods if pod.pool == "llm")
    pod.started = False
    pod.problem, pod.message = "CrashLoop", "main ended with exit code 1: out of memory"
    return world


SCENES: Mapping[str, Callable[[], World]] = {
    scene.__name__: scene
    for scene in (
        first_sight,
        first_sight_of_a_scaled_pool,
        model_is_loading,
        model_is_loaded,
        all_ready,
        nothing_to_do,
        image_is_changed,
        new_revision_is_ready,
        no_room_for_the_new_revision,
        rollout_is_stuck,
        rolled_back_midway,
        autoscaler_asks_for_more,
        handed_to_the_autoscaler,
        handed_to_the_autoscaler_second_round,
        taken_from_the_autoscaler,
        paused_while_the_image_changes,
        stopped,
        refused_while_running,
        refused_at_first_sight,
        edited_by_others,
        extras_are_switched_off,
        pod_keeps_crashing,
    )
}


def golden_text(scene: Callable[[], World]) -> str:
    """The plan, with revisions named in the order in which they came up."""
    world = scene()
    plan = world.plan()
    made = {
        "actions": [_shown(action) for action in plan.actions],
        "status": plan.status,
        "events": [f"{event.type} {event.reason}: {event.message}" for event in plan.events],
        "requeueAfterSeconds": plan.requeue_after_s,
    }
    text = yaml.safe_dump(made, sort_keys=False, width=200)
    return _named_revisions(world, text)


def _shown(action: Action) -> str:
    if isinstance(action, Delete):
        return f"delete {action.key.kind} {action.key.name} ({action.why})"
    key = key_of(action.manifest)
    verb = "create" if isinstance(action, Create) else type(action).__name__
    verb = {"Apply": "apply", "ApplyStatus": "apply status of"}.get(verb, verb)
    shown = f"{verb} {key.kind} {key.name} as {action.manager} ({action.why})"
    if key.kind in ("Deployment", "RedPool") and "spec" in action.manifest:
        shown += f": replicas {action.manifest['spec'].get('replicas', 'left to others')}"
    if "status" in action.manifest:
        status = action.manifest["status"]
        shown += f": {status['readyReplicas']} of {status['replicas']} ready"
    return shown


def _named_revisions(world: World, text: str) -> str:
    status = world.resource.get("status") or {}
    current = status.get("currentRevision", "")
    if current:
        text = text.replace(current, "OLD")
    after = world.plan().status or status
    update = after.get("updateRevision", "")
    return text.replace(update, "NEW") if update else text


def golden_path(name: str) -> Path:
    """Where the golden file of a scene is."""
    return GOLDEN / f"{name}.yaml"


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for name, scene in SCENES.items():
        golden_path(name).write_text(golden_text(scene))
