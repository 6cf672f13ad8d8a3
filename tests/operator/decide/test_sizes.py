"""Who owns the size of a pool."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from redserve.spec.encoder import EncoderSpec
from redserve_operator.decide.objects import key_of, stamped
from redserve_operator.decide.plan import Action, Apply, Create
from redserve_operator.decide.sizes import (
    SEED_MANAGER,
    Size,
    keep_red_pool,
    red_pool_status,
    replica_owners,
    selector_of,
    size_of,
)

MANIFEST: dict[str, Any] = {
    "apiVersion": "redserve.dev/v1alpha1",
    "kind": "RedPool",
    "metadata": {"name": "demo-encoder", "namespace": "team"},
    "spec": {"role": "Encoder", "serviceName": "demo"},
}


def spec(**fields: Any) -> EncoderSpec:
    return EncoderSpec.model_validate(fields)


def scaled(least: int, most: int) -> EncoderSpec:
    return spec(scaling={"minReplicas": least, "maxReplicas": most})


def stored(
    replicas: int, *managers: str, manifest: Any = MANIFEST, **metadata: Any
) -> dict[str, Any]:
    made = stamped(manifest)
    fields = [{"manager": one, "fieldsV1": {"f:spec": {"f:replicas": {}}}} for one in managers]
    return {
        **made,
        "metadata": {**made["metadata"], "uid": "u", "managedFields": fields, **metadata},
        "spec": {**made["spec"], "replicas": replicas},
    }


def next_write(of: EncoderSpec, have: Any) -> Action | None:
    children = {} if have is None else {key_of(have): have}
    return keep_red_pool(MANIFEST, of, children, {})


def clamped(asked: int) -> str:
    return f"{asked} replicas are asked for, and scaling allows 2 to 4"


@pytest.mark.parametrize(
    ("of", "asked", "size"),
    [
        (spec(), None, Size(1, 1)),
        (spec(replicas=3), 9, Size(3, 3)),
        (spec(replicas=0), 1, Size(0, 0)),
        (scaled(2, 4), None, Size(2, 2, True)),
        (scaled(0, 4), None, Size(1, 1, True)),
        (scaled(0, 4), 0, Size(0, 0, True)),
        (scaled(2, 4), 9, Size(4, 2, True, note=clamped(9))),
        (scaled(2, 4), 1, Size(2, 2, True, note=clamped(1))),
        (scaled(1, 4), 3, Size(3, 1, True)),
    ],
)
def test_size(of, asked, size):
    red_pool = None if asked is None else stored(asked)
    assert replace(size_of(of, red_pool), seed=1) == size


@pytest.mark.parametrize(("standing", "size"), [(0, 2), (3, 3), (1, 2), (9, 4)])
def test_a_red_pool_that_was_deleted_comes_back_with_the_size_that_stands(standing, size):
    found = size_of(scaled(2, 4), None, standing)
    assert (found.wanted, found.seed) == (size, size)
    assert size_of(scaled(1, 4), stored(1), standing).wanted == 1


def test_a_fixed_size_is_made_and_healed():
    made = next_write(spec(replicas=2), None)
    assert isinstance(made, Apply)
    assert made.manifest["spec"]["replicas"] == 2
    wanted = {**MANIFEST, "spec": {**MANIFEST["spec"], "replicas": 2}}
    assert next_write(spec(replicas=2), stored(2, "redserve-operator", manifest=wanted)) is None
    healed = next_write(spec(replicas=2), stored(7, "kubectl", manifest=wanted))
    assert isinstance(healed, Apply)
    assert (healed.why, healed.manager) == ("healed", "redserve-operator")


def test_a_scaled_size_is_seeded_and_then_left_alone():
    seed = next_write(scaled(0, 4), None)
    assert isinstance(seed, Create)
    assert (seed.manager, seed.manifest["spec"]["replicas"]) == (SEED_MANAGER, 1)
    bare = {**stored(1, SEED_MANAGER), "metadata": {**MANIFEST["metadata"], "managedFields": []}}
    bare["metadata"]["managedFields"] = [
        {"manager": SEED_MANAGER, "fieldsV1": {"f:spec": {"f:replicas": {}}}}
    ]
    ours = next_write(scaled(0, 4), bare)
    assert isinstance(ours, Apply)
    assert "replicas" not in ours.manifest["spec"]
    assert next_write(scaled(0, 4), stored(3, "kube-controller-manager")) is None


def test_the_number_is_given_away_before_the_operator_lets_go():
    wanted = {**MANIFEST, "spec": {**MANIFEST["spec"], "replicas": 3}}
    first = next_write(scaled(1, 4), stored(3, "redserve-operator", manifest=wanted))
    assert isinstance(first, Apply)
    assert first.manager == SEED_MANAGER
    assert first.manifest["spec"] == {"replicas": 3}
    assert first.manifest["metadata"]["uid"] == "u"
    second = next_write(scaled(1, 4), stored(3, "redserve-operator", SEED_MANAGER, manifest=wanted))
    assert isinstance(second, Apply)
    assert second.manager == "redserve-operator"
    assert "replicas" not in second.manifest["spec"]


def test_a_number_that_nobody_owns_is_seeded():
    action = next_write(scaled(1, 4), stored(1))
    assert isinstance(action, Apply)
    assert action.manager == SEED_MANAGER


def test_going_back_to_a_fixed_size_takes_the_field():
    action = next_write(spec(replicas=2), stored(3, "hpa"))
    assert isinstance(action, Apply)
    assert action.manifest["spec"]["replicas"] == 2


def test_what_is_being_deleted_is_not_written():
    assert next_write(spec(), stored(5, deletionTimestamp="2026-01-01T00:00:00Z")) is None


def test_owners_of_other_fields_do_not_count():
    have = stored(1, "hpa")
    have["metadata"]["managedFields"] += [
        {"manager": "other", "fieldsV1": {"f:metadata": {"f:labels": {}}}},
        {"manager": "status", "subresource": "status", "fieldsV1": {"f:status": {}}},
    ]
    assert replica_owners(have) == {"hpa"}


def test_a_surge_is_not_told_to_autoscalers():
    have = stored(2, "hpa", generation=4)
    size = Size(2, 1, is_scaled=True)
    written = red_pool_status(have, selector_of("demo", "llm", one_pod_of_many=False), size, 3, 3)
    assert written is not None
    assert written.manifest["status"] == {
        "replicas": 2,
        "readyReplicas": 2,
        "selector": "redserve.dev/service=demo,redserve.dev/pool=llm",
        "observedGeneration": 4,
    }
    after = {**have, "status": written.manifest["status"]}
    selector = selector_of("demo", "llm", one_pod_of_many=False)
    assert red_pool_status(after, selector, size, 3, 3) is None


def test_autoscalers_count_one_pod_of_each_group():
    assert (
        selector_of("demo", "llm", one_pod_of_many=True)["leaderworkerset.sigs.k8s.io/worker-index"]
        == "0"
    )
