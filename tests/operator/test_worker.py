"""One look at a service, with a decision that the test makes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from redserve.cluster import labels
from redserve.telemetry.metrics.operator import OperatorMetrics
from redserve_operator.acting import Hands
from redserve_operator.decide.observed import ObjectKey, Observed, Probed
from redserve_operator.decide.plan import Apply, ApplyStatus, Create, Delete, Event, Plan
from redserve_operator.keys import ServiceKey
from redserve_operator.kube.errors import (
    Forbidden,
    Invalid,
    KubeError,
    NamespaceEnds,
    Retryable,
    Unauthorized,
)
from redserve_operator.store.cache import Store
from redserve_operator.trials import Trials
from redserve_operator.worker import Outcome, Worker
from tests.operator.fake_kube import FakeKube
from tests.operator.samples import child, pod, service

DEMO = ServiceKey("ns", "demo")
Decide = Callable[[Observed], Plan]
BUSY = Retryable("busy", status=429, retry_after_s=7.0)


class Desk:
    """A worker with everything around it; `plans` are decided in order, the last one repeats."""

    def __init__(self) -> None:
        self.kube = FakeKube()
        self.store = Store()
        self.registry = CollectorRegistry()
        self.leads = True
        self.seen: list[Observed] = []
        self.plans: list[Plan] = [Plan()]
        metrics = OperatorMetrics(self.registry)
        hands = Hands(self.kube, self.store, metrics, "op-1", lambda: self.leads)
        self.worker = Worker(self.store, hands, self.decide, debounce_s=0.3, resync_s=600.0)
        self.store.put("RedService", self.kube.put(service()))

    def decide(self, _key: ServiceKey, observed: Observed, _now: object) -> Plan:
        self.seen.append(observed)
        return self.plans[min(len(self.seen), len(self.plans)) - 1]

    async def look(self, *plans: Plan) -> Outcome:
        self.seen.clear()
        self.plans = list(plans)
        return await self.worker.look(DEMO)

    def count(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(f"redserve_operator_{name}_total", labels) or 0.0

    def events(self) -> list[dict[str, Any]]:
        return [one for place, one in self.kube.objects.items() if place[0] == "Event"]


@pytest.fixture
def desk() -> Desk:
    return Desk()


def apply(kind: str = "Service", name: str = "demo", why: str = "created") -> Apply:
    manifest = child(kind, name)
    for given in ("uid", "resourceVersion"):
        del manifest["metadata"][given]
    return Apply(manifest, "redserve-operator", why)


async def test_nothing_to_do_sends_nothing(desk: Desk) -> None:
    outcome = await desk.look(Plan())
    assert outcome.result == "unchanged"
    assert outcome.again_after_s is not None
    assert 540.0 <= outcome.again_after_s <= 600.0
    assert not desk.kube.calls


async def test_a_plan_is_carried_out_in_order_and_seen_at_once(desk: Desk) -> None:
    outcome = await desk.look(
        Plan(
            actions=(apply("ConfigMap", "c"), apply("Deployment", "d")),
            status={"observedGeneration": 1},
            events=(Event("Normal", "RolloutStarted", "it starts"),),
        )
    )
    assert outcome == Outcome("acted", 0.3)
    assert [(verb, kind) for verb, kind, _ in desk.kube.calls] == [
        ("get", "ConfigMap"), ("apply", "ConfigMap"), ("get", "Deployment"),
        ("apply", "Deployment"), ("apply_status", "RedService"), ("create", "Event"),
    ]  # fmt: skip
    await desk.look(Plan())
    seen = desk.seen[0]
    assert set(seen.children) == {ObjectKey("ConfigMap", "c"), ObjectKey("Deployment", "d")}
    assert seen.resource["status"] == {"observedGeneration": 1}
    assert desk.count("applies", kind="ConfigMap", why="created") == 1.0
    assert desk.count("applies", kind="RedService", why="status") == 1.0
    (event,) = desk.events()
    assert event["regarding"]["uid"] == desk.kube.stored("RedService", "demo")["metadata"]["uid"]
    assert (event["type"], event["reason"], event["note"]) == (
        "Normal", "RolloutStarted", "it starts",
    )  # fmt: skip


async def test_the_first_failure_ends_the_round(desk: Desk) -> None:
    desk.kube.refuse["apply", "Deployment"] = BUSY
    plan = Plan(
        actions=(apply("ConfigMap", "c"), apply("Deployment", "d"), apply("Service", "s")),
        status={"a": 1},
        events=(Event("Normal", "X", "y"),),
    )
    with pytest.raises(Retryable):
        await desk.look(plan)
    writes = [kind for verb, kind, _ in desk.kube.calls if verb == "apply"]
    assert writes == ["ConfigMap", "Deployment"]
    await desk.look(Plan())
    assert set(desk.seen[0].children) == {ObjectKey("ConfigMap", "c")}


async def test_an_object_that_cannot_be_written_holds_up_nothing_else(desk: Desk) -> None:
    broken = Retryable("failed calling webhook: no endpoints", status=500)
    desk.kube.refuse["apply", "NetworkPolicy"] = broken
    actions = (apply("NetworkPolicy", "n"), apply("Deployment", "d", why="scaled"))
    first, second = Plan(actions=actions, status={"n": 0}), Plan(actions=actions, status={"n": 1})
    with pytest.raises(Retryable, match="webhook"):
        await desk.look(first, second)
    assert desk.kube.stored("Deployment", "d")
    assert desk.kube.stored("RedService", "demo")["status"] == {"n": 1}
    # It may have passed by the next look; only what lasts is told.
    assert not desk.seen[1].rejected
    with pytest.raises(Retryable, match="webhook"):
        await desk.look(first, second)
    key = ObjectKey("NetworkPolicy", "n")
    assert dict(desk.seen[1].rejected) == {key: "failed calling webhook: no endpoints"}
    desk.kube.refuse.clear()
    assert (await desk.look(first)).result == "acted"
    await desk.look(Plan())
    assert not desk.seen[0].rejected


async def test_what_needs_an_object_that_cannot_be_written_waits(desk: Desk) -> None:
    desk.kube.refuse["apply", "ConfigMap"] = Retryable("etcd: too large", status=500)
    needs = apply("Deployment", "d")
    volume = {"name": "v", "configMap": {"name": "c"}}
    needs.manifest["spec"] = {"containers": [{"name": "main"}], "volumes": [volume]}
    with pytest.raises(Retryable):
        await desk.look(Plan(actions=(apply("ConfigMap", "c"), needs)))
    assert ("Deployment", "ns", "d") not in desk.kube.objects


@pytest.mark.parametrize(
    ("error", "num_tried"),
    [
        (Retryable("etcd is away", status=503), 3),
        (Retryable("no connection"), 1),
        (BUSY, 1),
        (Unauthorized("who are you?", status=401), 1),
    ],
)
async def test_an_api_server_in_trouble_is_not_asked_for_every_object(
    desk: Desk, error: KubeError, num_tried: int
) -> None:
    kinds = ("ConfigMap", "Service", "Role", "Deployment", "Job")
    desk.kube.refuse = {("apply", kind): error for kind in kinds}
    plan = Plan(actions=tuple(apply(kind, "x", why="healed") for kind in kinds), status={"a": 1})
    with pytest.raises(type(error)):
        await desk.look(plan)
    assert [verb for verb, *_ in desk.kube.calls] == ["apply"] * num_tried


@pytest.mark.parametrize(
    "error",
    [
        Invalid("spec.x: not so", status=422),
        Forbidden('services is forbidden: User "op" cannot patch resource', status=403),
    ],
)
async def test_a_refused_object_is_told_and_tried_again_later(desk: Desk, error: KubeError) -> None:
    desk.kube.refuse["apply", "Service"] = error
    refused = Plan(actions=(apply("Service", "s"),), status={"n": 0})
    told = Plan(
        actions=refused.actions, status={"n": 1}, events=(Event("Warning", "Refused", "why"),)
    )
    outcome = await desk.look(refused, told)
    assert outcome.result == "refused"
    assert outcome.again_after_s == 2.0
    assert dict(desk.seen[1].rejected) == {ObjectKey("Service", "s"): error.message}
    assert desk.kube.stored("RedService", "demo")["status"] == {"n": 1}
    assert [event["reason"] for event in desk.events()] == ["Refused"]
    assert desk.count("applies", kind="Service", why="refused") == 1.0
    # It is known until a write of it succeeds, or it is not wanted any more.
    desk.kube.refuse.clear()
    await desk.look(Plan(actions=(apply("Service", "s"),)))
    assert desk.seen[0].rejected
    await desk.look(Plan())
    assert not desk.seen[0].rejected


async def test_a_refused_object_is_tried_soon_at_first_and_then_twice_a_minute(desk: Desk) -> None:
    desk.kube.refuse["apply", "Service"] = Forbidden("denied by policy", status=403)
    plan = Plan(actions=(apply("Service", "s"),))
    waits = [(await desk.look(plan, plan)).again_after_s for _ in range(6)]
    assert waits == [2.0, 4.0, 8.0, 16.0, 30.0, 30.0]
    desk.kube.refuse.clear()
    await desk.look(plan)
    desk.kube.refuse["apply", "Service"] = Forbidden("denied by policy", status=403)
    assert await desk.look(plan, plan) == Outcome("refused", 2.0)


async def test_a_refused_object_holds_up_only_what_needs_it(desk: Desk) -> None:
    desk.kube.refuse["apply", "ServiceAccount"] = Forbidden("denied by policy", status=403)
    desk.kube.refuse["delete", "Job"] = Forbidden("denied as well", status=403)
    new, waiting = apply("Deployment", "new"), apply("Deployment", "waiting")
    there = apply("Deployment", "there", why="scaled")
    for one, account in ((new, "other"), (waiting, "refused"), (there, "refused")):
        pod = {"serviceAccountName": account, "containers": [{"name": "main"}]}
        one.manifest["spec"] = {"template": {"spec": pod}}
    actions = (
        apply("ServiceAccount", "refused"), Delete(ObjectKey("Job", "j"), "u", "replaced"),
        new, waiting, there, Delete(ObjectKey("Service", "old"), "u", "not wanted"),
    )  # fmt: skip
    outcome = await desk.look(Plan(actions=actions), Plan(status={"n": 1}))
    # What was done may be all that a next step waits for.
    assert outcome == Outcome("refused", 0.3)
    assert dict(desk.seen[1].rejected) == {
        ObjectKey("ServiceAccount", "refused"): "denied by policy",
        ObjectKey("Job", "j"): "denied as well",
    }
    written = [name for verb, kind, name in desk.kube.calls if verb == "apply" and kind != "Event"]
    assert written == ["refused", "new", "there"]
    assert ("delete", "Service", "old") in desk.kube.calls
    assert desk.kube.stored("RedService", "demo")["status"] == {"n": 1}
    # Whatever is not refused in the next round is not told any more.
    desk.kube.refuse.clear()
    await desk.look(Plan(actions=(waiting,)))
    await desk.look(Plan())
    assert not desk.seen[0].rejected


@pytest.mark.parametrize("action", [Apply, Create])
@pytest.mark.parametrize(
    "owners",
    [
        (),
        ({"kind": "RedService", "name": "other", "controller": True},),
        ({"kind": "StatefulSet", "name": "demo", "controller": True},),
    ],
)
async def test_what_somebody_else_made_is_left_alone(
    desk: Desk, action: type[Apply | Create], owners: tuple[dict[str, Any], ...]
) -> None:
    theirs = child("RedPool", "p", spec={"replicas": 7})
    theirs["metadata"] |= {"labels": {}, "ownerReferences": list(owners)}
    before = desk.kube.put(theirs)
    manifest = child("RedPool", "p", spec={"replicas": 1})
    outcome = await desk.look(Plan(actions=(action(manifest, "redserve-operator", "created"),)))
    assert outcome == Outcome("refused", 2.0)
    (message,) = desk.seen[1].rejected.values()
    assert message.startswith("exists and was not made for this RedService")
    assert desk.kube.stored("RedPool", "p") == before


async def test_what_lost_label_and_owner_is_still_ours(desk: Desk) -> None:
    mine = child("Service", "s")
    mine["metadata"] |= {
        "labels": {},
        "ownerReferences": [],
        "managedFields": [{"manager": "redserve-operator"}],
    }
    desk.kube.put(mine)
    assert (await desk.look(Plan(actions=(apply("Service", "s"),)))).result == "acted"


async def test_seeds_leave_what_exists_alone_but_learn_it(desk: Desk) -> None:
    mine = child("RedPool", "p", spec={"replicas": 7})
    mine["metadata"]["ownerReferences"] = [{"kind": "RedService", "name": "demo"}]
    desk.kube.put(mine)
    seed = child("RedPool", "p", spec={"replicas": 1})
    await desk.look(Plan(actions=(Create(seed, "redserve-seed", "seeded"),)))
    assert desk.kube.stored("RedPool", "p")["spec"] == {"replicas": 7}
    await desk.look(Plan())
    assert desk.seen[0].children[ObjectKey("RedPool", "p")]["spec"] == {"replicas": 7}


async def test_the_status_of_a_child(desk: Desk) -> None:
    manifest = {"kind": "RedPool", "metadata": {"name": "p", "namespace": "ns"}, "status": {"r": 1}}
    action = ApplyStatus(manifest, "redserve-operator", "counted")
    # It vanished meanwhile: the next round makes it again.
    assert (await desk.look(Plan(actions=(action,)))).result == "acted"
    desk.kube.put(child("RedPool", "p", spec={}))
    await desk.look(Plan(actions=(action,)))
    assert desk.kube.stored("RedPool", "p")["status"] == {"r": 1}


async def test_deletes_name_the_uid_and_are_content_with_gone(desk: Desk) -> None:
    stored = desk.kube.put(child("Deployment", "d"))
    desk.store.put("Deployment", stored)
    key, uid = ObjectKey("Deployment", "d"), stored["metadata"]["uid"]
    await desk.look(Plan(actions=(Delete(key, "another", "unwanted"),)))
    assert ("Deployment", "ns", "d") in desk.kube.objects
    await desk.look(Plan(actions=(Delete(key, uid, "unwanted"),)))
    assert ("Deployment", "ns", "d") not in desk.kube.objects
    assert desk.count("deletes", kind="Deployment") == 1.0
    await desk.look(Plan(actions=(Delete(key, uid, "unwanted"),)))
    await desk.look(Plan())
    assert not desk.seen[0].children


async def test_what_a_finalizer_keeps_is_seen_going_until_it_is_gone(desk: Desk) -> None:
    mine = child("Service", "s")
    mine["metadata"]["finalizers"] = ["example.com/load-balancer"]
    stored = desk.kube.put(mine)
    desk.store.put("Service", stored)
    key = ObjectKey("Service", "s")
    await desk.look(Plan(actions=(Delete(key, stored["metadata"]["uid"], "rolled out"),)))
    await desk.look(Plan())
    assert desk.seen[0].children[key]["metadata"]["deletionTimestamp"]
    desk.store.remove("Service", desk.kube.stored("Service", "s"))
    await desk.look(Plan())
    assert key not in desk.seen[0].children


async def test_a_status_is_not_written_to_a_successor(desk: Desk) -> None:
    del desk.kube.objects["RedService", "ns", "demo"]
    desk.kube.put(service())
    await desk.look(Plan(status={"a": 1}))
    assert "status" not in desk.kube.stored("RedService", "demo")


def probe_plan() -> Plan:
    tried = {**pod("demo-llm"), "spec": {}}
    return Plan(probe=(tried,), probe_revision="aaaa1111")


async def test_pods_are_tried_first_and_the_result_is_remembered(desk: Desk) -> None:
    desk.kube.refuse["dry_run", "Pod"] = Invalid("spec.containers[0]: unknown field", status=422)
    outcome = await desk.look(probe_plan(), Plan(requeue_after_s=60.0))
    assert outcome.again_after_s == pytest.approx(2.0, abs=0.5)
    expected = Probed("aaaa1111", {"llm": "spec.containers[0]: unknown field"})
    assert [one.probed for one in desk.seen] == [None, expected]
    await desk.look(Plan())
    assert desk.seen[0].probed == expected


async def test_the_loaders_pod_is_of_no_pool(desk: Desk) -> None:
    desk.kube.refuse["dry_run", "Pod"] = Invalid("no", status=422)
    loader = {**pod("demo-model"), "spec": {}}
    loader["metadata"]["labels"] = {labels.SERVICE: "demo", labels.COMPONENT: "model"}
    await desk.look(Plan(probe=(loader,), probe_revision="aaaa1111"), Plan())
    assert desk.seen[1].probed == Probed("aaaa1111", {"model": "no"})


async def test_a_refused_trial_that_nobody_asks_about_any_more_is_forgotten(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(desk.worker, "_trials", Trials(lambda: now))
    desk.kube.refuse["dry_run", "Pod"] = Invalid("no such priority class", status=422)
    outcome = await desk.look(probe_plan(), Plan(requeue_after_s=60.0))
    assert outcome.again_after_s == 2.0
    # Paused, or refused by a check before any pod is tried, when the trial runs out.
    now += 2.0
    for _ in range(2):
        outcome = await desk.look(Plan())
        assert outcome.again_after_s is not None
        assert outcome.again_after_s > 500.0
    # Whoever asks again begins anew.
    outcome = await desk.look(probe_plan(), Plan(requeue_after_s=60.0))
    assert outcome.again_after_s == 2.0


@pytest.mark.parametrize(
    ("message", "refused"),
    [
        ('pods "x" is forbidden: violates PodSecurity "restricted"', True),
        ('pods "x" is forbidden: exceeded quota: gpus', False),
        ('pods is forbidden: User "op" cannot create resource "pods"', False),
    ],
)
async def test_which_refusals_are_about_the_pod(desk: Desk, message: str, refused: bool) -> None:
    desk.kube.refuse["dry_run", "Pod"] = Forbidden(message, status=403)
    await desk.look(probe_plan(), Plan())
    probed = desk.seen[1].probed
    assert probed is not None
    assert bool(probed.refused) is refused


async def test_a_namespace_without_its_default_account_is_too_young_to_try_pods(desk: Desk) -> None:
    message = 'pods "x" is forbidden: error looking up service account ns/default: not found'
    desk.kube.refuse["dry_run", "Pod"] = Forbidden(message, status=403)
    nameless, named = pod("demo-llm"), pod("demo-llm")
    nameless["spec"], named["spec"] = {}, {"serviceAccountName": "of-tomorrow"}
    with pytest.raises(Retryable):
        await desk.look(Plan(probe=(nameless,), probe_revision="aaaa1111"), Plan())
    await desk.look(Plan(probe=(named,), probe_revision="aaaa1111"), Plan())
    probed = desk.seen[1].probed
    assert probed is not None
    assert probed.refused == {"llm": message}


async def test_a_probe_without_an_answer_is_a_failure_of_the_round(desk: Desk) -> None:
    desk.kube.refuse["dry_run", "Pod"] = BUSY
    with pytest.raises(Retryable):
        await desk.look(probe_plan(), Plan())


async def test_a_namespace_that_ends_is_left_alone(desk: Desk) -> None:
    ends = NamespaceEnds("no new content because it is being terminated", status=403)
    desk.kube.refuse = {("apply", "Service"): ends, ("dry_run", "Pod"): ends}
    plan = Plan(actions=(apply("Service", "s"), apply("Deployment", "d")), status={"a": 1})
    assert await desk.look(plan) == Outcome("unchanged", 30.0)
    assert await desk.look(probe_plan(), plan) == Outcome("unchanged", 30.0)
    assert [verb for verb, *_ in desk.kube.calls] == ["get", "apply", "dry_run"]


async def test_nothing_is_written_without_the_lease(desk: Desk) -> None:
    desk.leads = False
    for plan in (Plan(actions=(apply(),)), Plan(status={"a": 1})):
        with pytest.raises(KubeError, match="Lease"):
            await desk.look(plan)
    assert not desk.kube.calls


async def test_a_service_that_goes_is_left_alone(desk: Desk) -> None:
    going = service(version=50)
    going["metadata"]["deletionTimestamp"] = "2026-11-28T03:00:00Z"
    desk.store.put("RedService", going)
    assert await desk.look(Plan(actions=(apply(),))) == Outcome("unchanged")
    desk.store.remove("RedService", service(version=51))
    assert await desk.look(Plan(actions=(apply(),))) == Outcome("gone")
    assert not desk.kube.calls


async def test_an_event_that_cannot_be_told_is_no_failure(desk: Desk) -> None:
    desk.kube.refuse["create", "Event"] = Forbidden("no", status=403)
    event = Event("Normal", "Ready", "x" * 5000)
    assert (await desk.look(Plan(status={"a": 1}, events=(event,)))).result == "acted"
    desk.kube.refuse.clear()
    await desk.look(Plan(status={"a": 2}, events=(event,)))
    assert len(desk.events()[0]["note"]) == 1024


async def test_the_plan_says_when_to_look_again(desk: Desk) -> None:
    assert await desk.look(Plan(requeue_after_s=5.0)) == Outcome("unchanged", 5.0)
    # Never at once: a look that asks for itself without end would starve everybody else.
    assert await desk.look(Plan(requeue_after_s=0.0, status={})) == Outcome("acted", 0.3)
    assert await desk.look(Plan(requeue_after_s=0.0)) == Outcome("unchanged", 0.3)
