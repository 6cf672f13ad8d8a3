"""Single traits of whole decisions, in a world in memory."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from redserve.spec.pool_resource import RedPoolStatus
from redserve.spec.status import RedServiceStatus
from redserve_operator.decide.objects import key_of
from redserve_operator.decide.observed import LoaderFacts, ObjectKey, Observed, PodFacts, Probed
from redserve_operator.decide.plan import ApplyStatus, Delete, Plan
from redserve_operator.decide.reconcile import reconcile
from tests.operator.decide.golden_files import HUB, SCALED, SCENES, SPEC, running
from tests.operator.decide.world import COMMIT, World


@pytest.mark.parametrize("name", SCENES)
def test_status_keeps_the_schema(name):
    plan = SCENES[name]().plan()
    RedServiceStatus.model_validate(plan.status or {})
    for action in plan.actions:
        if isinstance(action, ApplyStatus):
            RedPoolStatus.model_validate(action.manifest["status"])


@pytest.mark.parametrize("name", SCENES)
def test_deciding_twice_says_the_same_and_a_written_status_is_not_written_again(name):
    world = SCENES[name]()
    before = world.observe()
    plan = world.plan()
    assert world.plan() == plan
    assert world.observe() == before
    if plan.status is not None:
        world.resource["status"] = plan.status
        world.now += timedelta(seconds=7)
        again = world.plan()
        assert again.status is None
        assert again.events == ()


def test_what_is_being_deleted_is_left_to_the_garbage_collector():
    world = running()
    world.resource["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert world.plan() == Plan()


def test_pods_are_tried_before_anything_is_made_and_once_only():
    world = World(SPEC)
    plan = reconcile(world.context, world.observe(), world.now)
    assert [pod["metadata"]["labels"]["redserve.dev/pool"] for pod in plan.probe] == [
        "encoder",
        "llm",
        "router",
    ]
    assert all(pod["metadata"]["generateName"].startswith("demo-") for pod in plan.probe)
    # Whether our own accounts are there yet, or still, says nothing about the manifest.
    assert all("serviceAccountName" not in pod["spec"] for pod in plan.probe)
    assert (plan.actions, plan.status) == ((), None)
    world.finish()
    assert not reconcile(world.context, world.observe(), world.now).probe
    world.edit(llm={"replicas": 2})  # the same pods
    assert not reconcile(world.context, world.observe(), world.now).probe
    world.edit(llm={"replicas": 2, "image": "llm:2"})
    again = reconcile(world.context, world.observe(), world.now).probe
    assert again
    assert all("serviceAccountName" not in pod["spec"] for pod in again)


def test_pods_are_tried_with_the_account_that_the_manifest_names():
    world = World({**SPEC, "serviceAccountName": "theirs"})
    plan = reconcile(world.context, world.observe(), world.now)
    assert {pod["spec"]["serviceAccountName"] for pod in plan.probe} == {"theirs"}


def test_a_red_pool_of_a_service_that_is_gone_is_not_taken_over():
    """One that was seeded has two managers, and an apply would leave it two owners."""
    spec = {**SPEC, "encoder": {"scaling": {"minReplicas": 1, "maxReplicas": 8}}}
    world = World(spec)
    world.finish()
    key = ObjectKey("RedPool", "demo-encoder")
    world.objects[key]["spec"]["replicas"] = 7
    world.resource["metadata"]["uid"] = "anew"
    world.resource["status"] = {}
    world.finish()
    red_pool = world.objects[key]
    (owner,) = red_pool["metadata"]["ownerReferences"]
    assert owner["uid"] == "anew"
    assert red_pool["spec"]["replicas"] == 1


def test_a_used_up_quota_refuses_nothing():
    world = World(SPEC)
    plan = reconcile(world.context, world.observe(), world.now)
    message = 'pods "demo" is forbidden: exceeded quota: gpus, requested: ...'
    probed = Probed(plan.probe_revision, {"llm": message})
    assert reconcile(world.context, world.observe(probed), world.now).actions


def test_a_quota_is_told_by_the_pool():
    world = World(SPEC)
    world.step()
    for have in world.objects.values():
        if have["kind"] == "Deployment" and "encoder" in have["metadata"]["name"]:
            have["status"] = {
                "conditions": [
                    {"type": "ReplicaFailure", "status": "True", "message": "exceeded quota: gpus"}
                ]
            }
    world.step()
    assert world.conditions()["EncoderReady"] == ("False", "InsufficientCapacity")


def test_a_manifest_that_only_the_models_refuse():
    world = World({**SPEC, "slos": [{"name": "x", "indicator": "TimeToFirstToken"}]})
    world.step()
    assert world.conditions()["Accepted"] == ("False", "InvalidManifest")
    message = world.resource["status"]["conditions"][0]["message"]
    assert message.startswith("spec.slos[0].thresholdMilliseconds: ")
    assert world.objects == {}


def test_a_refusal_touches_nothing_and_mending_it_goes_on():
    world = running()
    before = world.contents()
    world.edit(transport={"chunkTokens": 8})
    world.step()
    world.step()
    assert world.contents() == before
    assert world.conditions()["Accepted"] == ("False", "TransportUnsupported")
    assert world.conditions()["Ready"] == ("True", "AllReady")
    ready = next(c for c in world.resource["status"]["conditions"] if c["type"] == "Ready")
    assert ready["observedGeneration"] == 1
    world.pods.clear()  # still told truly
    world.step()
    assert world.conditions()["Ready"] == ("False", "PodsNotReady")
    world.edit(transport={})
    world.finish()
    assert world.conditions()["Ready"] == ("True", "AllReady")
    assert world.contents() == before


def test_an_object_that_was_refused_is_told_and_tried_again():
    world = running()
    world.edit(llm={"replicas": 2})
    observed = world.observe()
    key = ObjectKey("Service", "demo")
    refused = Observed(
        observed.resource, observed.children, observed.pods, rejected={key: "port is taken"}
    )
    plan = reconcile(world.context, refused, world.now)
    assert plan.actions == world.plan().actions
    assert plan.status is not None
    accepted = plan.status["conditions"][0]
    assert (accepted["status"], accepted["reason"]) == ("False", "ObjectRefused")
    assert accepted["message"] == "Service demo: port is taken"
    told = {one["type"]: one for one in plan.status["conditions"]}
    assert (told["Degraded"]["status"], told["Degraded"]["reason"]) == ("True", "ObjectRefused")
    assert told["Progressing"]["reason"] == "Scaling"  # pods start all the same


def test_nothing_is_at_work_while_what_pods_need_is_refused():
    world = running()
    gone = ObjectKey("Deployment", next(k.name for k in world.objects if k.kind == "Deployment"))
    world.act_deletion(gone)
    observed = world.observe()
    refused = replace(observed, rejected={gone: "no", ObjectKey("Service", "demo"): "no"})
    plan = reconcile(world.context, refused, world.now)
    assert plan.status is not None
    told = {one["type"]: one for one in plan.status["conditions"]}
    progressing = told["Progressing"]
    assert (progressing["status"], progressing["reason"]) == ("False", "ObjectRefused")
    assert progressing["message"] == f"Deployment {gone.name}: no (and 1 more)"


@pytest.mark.parametrize("kind", ["Service", "RedPool", "Role"])
def test_an_object_of_somebody_else_with_our_label_counts_for_nothing(kind: str):
    world = running()
    key = next(key for key in world.objects if key.kind == kind)
    metadata = world.objects[key]["metadata"]
    metadata["annotations"] = {}
    metadata["managedFields"] = []
    metadata["ownerReferences"] = []
    (action,) = (
        one
        for one in world.plan().actions
        if not isinstance(one, Delete) and key_of(one.manifest) == key
    )
    # Whoever carries it out looks first whose it is.
    assert action.why == "created"


def test_an_owner_that_was_taken_away_is_healed():
    world = running()
    key = ObjectKey("Service", "demo")
    world.objects[key]["metadata"]["ownerReferences"] = []
    (action,) = world.plan().actions
    assert action.why == "healed"
    world.objects[key]["metadata"]["ownerReferences"] = [
        {"kind": "Other", "name": "demo", "uid": "u", "controller": True}
    ]
    (action,) = world.plan().actions
    assert action.why == "created"


def test_pods_wait_for_the_checkpoint_and_get_its_commit():
    world = World({**SPEC, "model": HUB})
    world.step()
    assert {key.kind for key in world.objects} >= {"Job", "RedPool"}
    assert not any(key.kind == "Deployment" for key in world.objects)
    assert world.conditions()["ModelCached"] == ("False", "Loading")
    world.finish()
    assert world.conditions()["ModelCached"] == ("True", "Loaded")
    assert world.resource["status"]["model"]["revision"] == COMMIT
    settings = [
        have["data"]
        for key, have in world.objects.items()
        if key.kind == "ConfigMap" and have.get("immutable")
    ]
    assert all(COMMIT in one.values() for one in settings)
    # The Job and its pod may go: the commit stays until the manifest's model changes.
    revision = world.resource["status"]["currentRevision"]
    for key in [key for key in world.objects if key.kind == "Job"]:
        world.act_deletion(key)
    world.step()
    assert world.resource["status"]["currentRevision"] == revision
    assert world.conditions()["ModelCached"] == ("True", "Loaded")


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"problem": "ImagePull", "message": "Back-off pulling image"}, "ImagePullFailed"),
        ({"problem": "Unschedulable", "message": "claim not found"}, "InsufficientCapacity"),
        ({"problem": "Failing", "message": "secret not found"}, "PodFailing"),
        ({"problem": "Failing", "message": "m", "report": "the hub is busy"}, "AsExpected"),
        ({}, "AsExpected"),
    ],
)
def test_a_loader_that_cannot_work_is_no_good_state(facts, reason):
    world = World({**SPEC, "model": HUB})
    world.step()
    name = next(key.name for key in world.objects if key.kind == "Job")
    world.loaders[name] = LoaderFacts(name, **facts)
    world.step()
    assert world.conditions()["Degraded"][1] == reason
    assert world.conditions()["ModelCached"] == ("False", "Loading")
    told = [event for event in world.events if event.startswith("Degraded")]
    assert len(told) == (reason != "AsExpected")
    assert world.plan().status is None


def test_a_loader_job_without_a_pod_says_so_after_a_minute():
    world = World({**SPEC, "model": HUB})
    world.step()
    job = next(have for key, have in world.objects.items() if key.kind == "Job")
    world.now += timedelta(seconds=20)
    assert world.plan().requeue_after_s == 40
    world.now += timedelta(seconds=40)
    world.step()
    assert world.conditions()["Degraded"] == ("True", "PodsRefused")
    job["spec"]["suspend"] = True
    world.step()
    assert world.conditions()["Degraded"] == ("False", "AsExpected")
    del job["spec"]["suspend"]
    job["status"] = {"active": 1}
    world.step()
    assert world.conditions()["Degraded"] == ("False", "AsExpected")


def test_the_loaders_pod_is_tried_while_it_is_yet_to_run():
    world = World({**SPEC, "model": HUB})
    plan = reconcile(world.context, world.observe(), world.now)
    assert [pod["metadata"]["generateName"].split("-")[1] for pod in plan.probe] == [
        "model", "encoder", "llm", "router",
    ]  # fmt: skip
    refused = Probed(plan.probe_revision, {"model": "privileged is not allowed"})
    plan = reconcile(world.context, world.observe(refused), world.now)
    assert not plan.actions
    assert plan.status is not None
    accepted = plan.status["conditions"][0]
    assert accepted["reason"] == "InvalidPodTemplate"
    assert accepted["message"] == "model: privileged is not allowed"
    world.finish()
    world.edit(router={"image": "other:1"})
    plan = reconcile(world.context, world.observe(), world.now)
    assert len(plan.probe) == 3


def test_a_failed_download_says_why_and_how_to_try_again():
    world = World({**SPEC, "model": HUB})
    world.step()
    key = next(key for key in world.objects if key.kind == "Job")
    world.objects[key]["status"] = {"conditions": [{"type": "Failed", "status": "True"}]}
    world.loaders[key.name] = LoaderFacts(key.name, report="org/model needs a token.")
    world.step()
    told = {c["type"]: c for c in world.resource["status"]["conditions"]}
    assert told["ModelCached"]["reason"] == "ModelLoadFailed"
    assert told["ModelCached"]["message"] == (
        f"org/model needs a token; delete Job {key.name} to try again"
    )
    assert told["Progressing"]["reason"] == "ModelLoadFailed"
    assert told["Degraded"]["status"] == "True"
    world.act_deletion(key)
    world.finish()
    assert world.conditions()["Ready"] == ("True", "AllReady")


def test_a_report_that_was_not_seen_yet_is_awaited_but_not_for_ever():
    world = World({**SPEC, "model": HUB})
    world.step()
    world.job_ends(random.Random(0))
    world.loaders.clear()
    plan = world.plan()
    assert plan.requeue_after_s == 5.0
    assert not any("Deployment" in str(action) for action in plan.actions)
    world.now += timedelta(minutes=1)
    assert any("Deployment" in str(action) for action in world.plan().actions)


def test_the_old_revision_follows_its_size_while_a_checkpoint_is_loaded():
    world = running(encoder=SCALED)
    world.edit(model=HUB)
    world.step()
    world.scale("encoder", 3)
    world.step()
    old = world.resource["status"]["currentRevision"]
    assert world.workload("encoder", old)["spec"]["replicas"] == 3
    assert world.conditions()["Ready"] == ("True", "Updating")
    assert ready_message(world).endswith("waits for the checkpoint")


def ready_message(world: World) -> str:
    return next(
        str(one["message"])
        for one in world.resource["status"]["conditions"]
        if one["type"] == "Ready"
    )


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("least", ["0", "1"])
def test_a_healthy_rollout_is_ready_all_the_time(seed, least):
    rollout = {"maxSurge": "1", "maxUnavailable": least}
    pools = {pool: {"replicas": 2, "rollout": rollout} for pool in ("encoder", "llm", "router")}
    world = running(**pools)
    world.edit(llm={**pools["llm"], "image": "llm:2"})
    rng = random.Random(seed)
    moved = True
    while moved:
        world.now += timedelta(seconds=1)
        moved = world.step()
        assert world.conditions()["Ready"][0] == "True"
        moved |= rng.choice((world.workload_acts, world.pod_starts, world.pod_leaves))(rng)
        if not moved:
            moved = any(
                act(rng) for act in (world.workload_acts, world.pod_starts, world.pod_leaves)
            )
    assert world.conditions()["Ready"] == ("True", "AllReady")


def test_a_broken_new_revision_does_not_hide_the_one_that_serves():
    world = SCENES["rollout_is_stuck"]()
    world.step()
    status = world.resource["status"]
    assert world.conditions()["Ready"] == ("True", "Updating")
    assert world.conditions()["EncoderReady"][0] == "False"
    assert ready_message(world) == (
        f"the revision before serves while {status['updateRevision']} starts"
    )
    assert status["currentRevision"] != status["updateRevision"]
    world.pods = [pod for pod in world.pods if pod.pool != "router"]
    world.step()
    assert world.conditions()["Ready"][0] == "False"
    assert world.conditions()["RouterReady"] == ("False", "PodsNotReady")


def test_the_revision_before_is_said_to_serve_only_when_it_does_in_every_pool():
    world = SCENES["image_is_changed"]()
    world.step()
    assert world.conditions()["LLMReady"] == ("False", "Updating")
    world.pods = [pod for pod in world.pods if pod.pool != "router"]
    world.step()
    assert world.conditions()["LLMReady"] == ("False", "PodsNotReady")
    assert "serves meanwhile" not in str(world.resource["status"])


def test_a_pause_in_the_middle_of_a_rollout_leaves_it_ready():
    world = SCENES["new_revision_is_ready"]()
    world.step()
    before = world.conditions()["Ready"]
    world.edit(reconcile="Paused")
    world.step()
    assert world.conditions()["Ready"] == before


def test_a_rollout_that_does_not_move_is_stuck_until_something_moves():
    world = SCENES["rollout_is_stuck"]()
    world.step()
    assert world.conditions()["Progressing"] == ("False", "RolloutStuck")
    world.now += timedelta(hours=2)
    assert world.plan().status is None
    for pod in world.pods:
        pod.problem = ""
    world.pod_starts(random.Random(0))
    world.step()
    assert world.conditions()["Progressing"] == ("True", "RolloutInProgress")


def patient(seconds: int) -> dict[str, Any]:
    probe = {"periodSeconds": 10, "failureThreshold": seconds // 10}
    return {"spec": {"containers": [{"name": "main", "startupProbe": probe}]}}


@pytest.mark.parametrize(
    ("template", "minutes"), [({}, 60), (patient(60), 60), (patient(7200), 150)]
)
def test_a_start_that_the_probes_allow_is_not_stuck(template, minutes):
    world = World({**SPEC, "llm": {"podTemplate": template}})
    world.step()
    drain = timedelta(seconds=120)
    while world.workload_acts(random.Random(0)):
        pass
    world.step()
    world.now += timedelta(minutes=minutes) - timedelta(seconds=1)
    world.step()
    assert world.conditions()["Degraded"] == ("False", "AsExpected")
    world.now += drain + timedelta(seconds=1)
    world.step()
    assert world.conditions()["Degraded"] == ("True", "RolloutStuck")


@pytest.mark.parametrize("has_status", [True, False])
def test_a_scaled_pool_whose_red_pool_is_deleted_keeps_its_size(has_status):
    world = running(encoder=SCALED)
    world.scale("encoder", 3)
    world.finish()
    key = ObjectKey("RedPool", "demo-encoder")
    world.act_deletion(key)
    if not has_status:
        del world.resource["status"]
    world.finish()
    assert world.objects[key]["spec"]["replicas"] == 3
    assert world.resource["status"]["pools"][0]["readyText"] == "3/3"


def test_a_size_beyond_the_bounds_is_told():
    world = running(encoder=SCALED)
    world.scale("encoder", 99)
    world.finish()
    pool = world.resource["status"]["pools"][0]
    most = SCALED["scaling"]["maxReplicas"]
    assert pool["desired"] == most
    assert pool["message"].startswith("99 replicas are asked for, and scaling allows ")
    world.scale("encoder", most)
    world.finish()
    assert "message" not in world.resource["status"]["pools"][0]


def test_a_pod_that_does_not_go_is_named_and_waited_for_no_longer():
    world = running()
    ends = world.now + timedelta(seconds=30)
    stuck = PodFacts("demo-router-x", "router", "old", False, terminating=True, leaves_by=ends)

    def plan() -> Plan:
        observed = world.observe()
        seen = replace(observed, pods=(*observed.pods, stuck))
        return reconcile(world.context, seen, world.now)

    # It is looked at again when it should have gone, though nothing changes.
    assert plan().requeue_after_s == 90.0
    world.now = ends + timedelta(seconds=60)
    late = plan()
    assert late.status is not None
    (router,) = (pool for pool in late.status["pools"] if pool["name"] == "router")
    assert router["message"].startswith("demo-router-x: its grace period is over")
    assert late.requeue_after_s is None


@pytest.mark.parametrize("word", ["Active", "Paused"])
def test_a_dead_node_makes_no_room(word):
    world = running()
    world.edit(reconcile=word)
    world.step()
    dead = PodFacts(
        "demo-encoder-x",
        "encoder",
        world.resource["status"]["updateRevision"],
        ready=False,
        terminating=True,
        leaves_by=world.now,
    )
    pod = next(pod for pod in world.pods if pod.pool == "encoder")
    pod.started, pod.problem, pod.message = False, "Unschedulable", "0/3 nodes are available"

    def reasons_at(minutes: int) -> tuple[str, str]:
        observed = world.observe()
        seen = replace(observed, pods=(*observed.pods, dead))
        plan = reconcile(world.context, seen, world.now + timedelta(minutes=minutes))
        assert plan.status is not None
        found = {one["type"]: one["reason"] for one in plan.status["conditions"]}
        return found["EncoderReady"], found["Degraded"]

    assert reasons_at(0)[0] == "WaitingForDrain"
    assert reasons_at(5) == ("InsufficientCapacity", "InsufficientCapacity")


def test_routers_that_serve_keep_their_rights_while_others_with_another_account_start():
    world = running()
    binding = ObjectKey("RoleBinding", "demo-router")

    def subjects() -> list[str]:
        return [one["name"] for one in world.objects[binding]["subjects"]]

    assert subjects() == ["demo-router"]
    world.edit(serviceAccountName="mine")
    world.step()
    old = world.resource["status"]["currentRevision"]
    rng, num_rounds = random.Random(0), 0
    while any(pod.pool == "router" and pod.revision == old for pod in world.pods):
        assert subjects() == ["mine", "demo-router"]
        for act in (world.workload_acts, world.pod_starts, world.pod_leaves):
            act(rng)
        world.step()
        num_rounds += 1
    assert num_rounds > 3
    world.finish()
    assert subjects() == ["mine"]


def test_autoscaling_does_not_make_a_service_unready():
    world = running(encoder=SCALED)
    world.scale("encoder", 4)
    world.step()
    assert world.conditions()["EncoderReady"] == ("True", "MinimumReady")
    assert world.conditions()["Ready"] == ("True", "MinimumReady")
    assert world.conditions()["Progressing"] == ("True", "Scaling")


def test_encoders_may_be_none_and_texts_are_answered():
    world = running(encoder={"scaling": {"minReplicas": 0, "maxReplicas": 2}})
    world.scale("encoder", 0)
    world.finish()
    assert world.conditions()["EncoderReady"] == ("True", "ScaledToZero")
    assert world.conditions()["Ready"] == ("True", "AllReady")
    assert world.conditions()["Progressing"] == ("False", "RolloutComplete")
    world.edit(llm={"image": "llm:2"})
    world.finish()
    assert world.conditions()["Ready"] == ("True", "AllReady")
    assert {pod.pool for pod in world.pods} == {"llm", "router"}
    world.edit(llm={"replicas": 0})
    world.finish()
    assert world.conditions()["Ready"] == ("False", "ScaledToZero")


def test_nothing_flaps_while_a_container_backs_off():
    world = SCENES["pod_keeps_crashing"]()
    pod = next(pod for pod in world.pods if pod.problem)
    pod.message = "back-off 40s restarting failed container=main"
    world.step()
    world.step()
    pod.message = "back-off 1m20s restarting failed container=main"
    assert world.plan().status is None


def test_a_pause_holds_everything_and_tells_it():
    world = running()
    world.edit(reconcile="Paused", llm={"replicas": 3})
    world.scale("encoder", 5)
    world.step()
    assert world.conditions()["Progressing"] == ("Unknown", "Paused")
    assert world.conditions()["Accepted"] == ("True", "Valid")
    assert world.plan() == Plan()
    world.edit(reconcile="Active")
    world.finish()
    assert world.resource["status"]["pools"][1]["readyText"] == "3/3"
    assert [event.partition(":")[0] for event in world.events][:2] == ["Paused", "Resumed"]


def test_paused_at_first_sight():
    world = World({**SPEC, "reconcile": "Paused"})
    world.step()
    assert set(world.conditions().values()) == {("Unknown", "Paused")}
    assert world.objects == {}


def test_events_tell_a_whole_life():
    world = World(SPEC)
    world.finish()
    world.edit(encoder={"replicas": 2, "image": "encoder:2"})
    world.finish()
    world.edit(encoder={"replicas": 1, "image": "encoder:2"})
    world.finish()
    world.edit(reconcile="Stopped")
    world.finish()
    assert [event.partition(":")[0] for event in world.events] == [
        "RolloutStarted",
        "RolloutComplete",
        "Ready",
        "RolloutStarted",
        "RolloutComplete",
        "EncoderPoolScaled",
        "Stopped",
    ]


@pytest.mark.parametrize("kind", ["Auto", "RDMA", "TCP", "GRPC"])
def test_the_way_of_embeddings_is_told(kind):
    transport = {"type": kind}
    if kind == "RDMA":
        transport["rdma"] = {"resourceName": "rdma/ib"}
    world = running(transport=transport)
    assert world.conditions()["TransportReady"] == ("True", kind)
    world.edit(transport={**transport, "chunkTokens": 8})  # refused: told as before
    world.step()
    assert world.conditions()["Accepted"] == ("False", "TransportUnsupported")
    assert world.conditions()["TransportReady"] == ("True", kind)
    del world.resource["status"]["conditions"][-5:]  # as of an operator that knew less
    world.step()
    assert world.conditions()["TransportReady"] == ("True", kind)
