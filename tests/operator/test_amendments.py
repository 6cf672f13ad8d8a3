"""Objects that an admission changes on their way: written, told, and left alone."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import CollectorRegistry

from redserve.cluster.facts import ClusterFacts, Context
from redserve.telemetry.metrics.operator import OperatorMetrics
from redserve_operator.acting import Hands
from redserve_operator.decide.amended import amendment
from redserve_operator.decide.objects import key_of
from redserve_operator.decide.reconcile import reconcile
from redserve_operator.keys import ServiceKey
from redserve_operator.store.amendments import LASTS_S, Amendments
from redserve_operator.store.cache import Store
from redserve_operator.worker import Worker
from tests.operator.decide.world import IMAGES, World
from tests.operator.fake_kube import FakeKube

if TYPE_CHECKING:
    from collections.abc import Callable

    Manifest = dict[str, Any]

DEMO = ServiceKey("team", "demo")
SPEC: Manifest = {
    "model": {"name": "demo", "uri": "file:///demo"},
    "encoder": {"replicas": 1},
    "llm": {"replicas": 1},
    "router": {"replicas": 1},
}


class MutatingKube(FakeKube):
    """An API server with a mutating admission."""

    def __init__(self, mutate: Callable[[Manifest], None]) -> None:
        super().__init__()
        self.mutate = mutate

    async def apply(self, manifest: Manifest, manager: str) -> Manifest:
        return await super().apply(self.changed(manifest), manager)

    def changed(self, manifest: Manifest) -> Manifest:
        made = copy.deepcopy(manifest)
        self.mutate(made)
        return made


class Bench:
    """A worker that decides in earnest."""

    def __init__(self, mutate: Callable[[Manifest], None]) -> None:
        self.now = 0.0
        self.kube = MutatingKube(mutate)
        self.store = Store()
        self.store.amendments = Amendments(lambda: self.now)
        self.registry = CollectorRegistry()
        metrics = OperatorMetrics(self.registry)
        hands = Hands(self.kube, self.store, metrics, "op-1", lambda: True)
        context = Context("elsewhere", IMAGES, ClusterFacts(minor=33))
        self.worker = Worker(
            self.store,
            hands,
            lambda _key, observed, now: reconcile(context, observed, now),
            debounce_s=0.3,
            resync_s=600.0,
        )
        self.store.put("RedService", self.kube.put(World(SPEC).resource))

    async def settle(self, most_looks: int = 8) -> int:
        """Look until nothing is to be done; returns the number of applies."""
        before = len(self.applies())
        for _ in range(most_looks):
            if (await self.worker.look(DEMO)).result == "unchanged":
                return len(self.applies()) - before
        raise AssertionError(f"no end: {self.applies()[before:]}")

    def applies(self) -> list[tuple[str, str, str]]:
        return [call for call in self.kube.calls if call[0] == "apply"]

    def accepted(self) -> Manifest:
        status = self.kube.stored("RedService", "demo", "team")["status"]
        return next(one for one in status["conditions"] if one["type"] == "Accepted")


def mirror(manifest: Manifest) -> None:
    if manifest["kind"] == "Deployment":
        main = manifest["spec"]["template"]["spec"]["containers"][0]
        main["image"] = f"mirror.local/{main['image']}"


def no_hash(manifest: Manifest) -> None:
    if manifest["kind"] == "Service":
        manifest["metadata"].pop("annotations")


def other_data(manifest: Manifest) -> None:
    if manifest["kind"] == "ConfigMap" and manifest.get("immutable"):
        manifest["data"] = dict.fromkeys(manifest["data"], "other")


@pytest.mark.parametrize("mutate", [mirror, no_hash, other_data])
async def test_what_an_admission_changes_is_not_written_for_ever(
    mutate: Callable[[Manifest], None],
) -> None:
    bench = Bench(mutate)
    await bench.settle()
    assert await bench.settle() == 0
    accepted = bench.accepted()
    assert (accepted["status"], accepted["reason"]) == ("True", "Amended")


async def test_it_is_told_with_object_and_field_and_counted() -> None:
    bench = Bench(mirror)
    await bench.settle()
    message = bench.accepted()["message"]
    assert message.startswith("an admission changes what is written: Deployment demo-encoder-")
    assert "spec.template.spec.containers[main].image is 'mirror.local/" in message
    assert message.endswith("(and 2 more)")
    count = bench.registry.get_sample_value(
        "redserve_operator_amended_total", {"kind": "Deployment"}
    )
    assert count == 3
    told = [one["reason"] for place, one in bench.kube.objects.items() if place[0] == "Event"]
    assert told.count("Amended") == 1


async def test_what_somebody_else_changes_is_healed_all_the_same() -> None:
    bench = Bench(mirror)
    await bench.settle()
    name = next(name for verb, kind, name in bench.applies() if kind == "Deployment")
    have = bench.kube.stored("Deployment", name, "team")
    have["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] = 1
    bench.store.put("Deployment", bench.kube.put(have))
    assert await bench.settle() == 1
    healed = bench.kube.stored("Deployment", name, "team")["spec"]["template"]["spec"]
    assert healed["terminationGracePeriodSeconds"] > 1


async def test_it_is_tried_again_and_told_no_more_when_nothing_changes_it() -> None:
    bench = Bench(mirror)
    await bench.settle()
    bench.now += LASTS_S
    assert await bench.settle() == 3
    assert bench.accepted()["reason"] == "Amended"
    bench.kube.mutate = lambda _manifest: None
    bench.now += LASTS_S
    assert await bench.settle() == 3
    assert bench.accepted()["reason"] == "Valid"
    assert not bench.store.amendments.of(DEMO)


async def test_what_can_only_be_made_anew_is_left_as_it_is() -> None:
    bench = Bench(other_data)
    await bench.settle()
    bench.now += LASTS_S
    assert await bench.settle() == 0


async def test_a_word_that_says_nothing_and_is_dropped_is_not_told() -> None:
    def drop(manifest: Manifest) -> None:
        if manifest["kind"] == "ServiceAccount":
            manifest.pop("automountServiceAccountToken")

    bench = Bench(drop)
    await bench.settle()
    assert await bench.settle() == 0
    assert bench.accepted()["reason"] == "Valid"


def test_objects_that_go_are_forgotten() -> None:
    bench = Bench(mirror)
    child = {
        "kind": "Service",
        "metadata": {
            "name": "x",
            "namespace": "team",
            "labels": {"redserve.dev/service": "demo"},
        },
    }
    have = bench.kube.put(child)
    bench.store.put("Service", have)
    bench.store.amendments.note(DEMO, key_of(child), amendment({**child, "spec": {"a": 1}}, have))
    assert bench.store.amendments.of(DEMO)
    bench.store.remove("Service", have)
    assert not bench.store.amendments.of(DEMO)
