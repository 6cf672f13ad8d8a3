"""The revision changes with what pods are made from, and with nothing else."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from redserve.cluster.facts import OPTIONAL_KINDS, ClusterFacts, Owner
from redserve.cluster.render import render
from redserve.spec.manifest import load_manifest
from tests.cluster.pods import CONTEXT
from tests.spec.manifests import EXAMPLES, service

BASE: dict[str, Any] = {
    "model": {"uri": "file://model"},
    "encoder": {"replicas": 2},
    "llm": {},
    "router": {},
}


def revision(changes: dict[str, Any] | None = None, context: Any = CONTEXT) -> str:
    merged = {**BASE, **{k: _over(BASE.get(k, {}), v) for k, v in (changes or {}).items()}}
    return render(service(**merged), context).revision


def _over(base: Any, value: Any) -> Any:
    return {**base, **value} if isinstance(value, dict) and isinstance(base, dict) else value


SAME: list[dict[str, Any]] = [
    {"encoder": {"replicas": 7}},
    {"llm": {"replicas": 0}},
    {"llm": {"scaling": {"minReplicas": 0, "maxReplicas": 9}}},
    {"router": {"replicas": 3}},
    {"encoder": {"disruption": {"maxUnavailable": "50%"}}},
    {"llm": {"rollout": {"maxSurge": 3, "maxUnavailable": 1}}},
    {"monitoring": {"podMonitor": "Disabled"}},
    {"networkPolicy": "Disabled"},
    {"router": {"service": {"type": "NodePort"}}},
    {"reconcile": "Paused"},
]
OTHER: list[dict[str, Any]] = [
    {"model": {"uri": "file://other"}},
    {"model": {"revision": "v2"}},
    {"model": {"name": "served"}},
    {"model": {"maxModelLength": 100}},
    {"model": {"dtype": "BFloat16"}},
    {"encoder": {"image": "other"}},
    {"encoder": {"env": [{"name": "A", "value": "b"}]}},
    {"encoder": {"replicas": 0}},  # routers then serve without any encoder
    {"llm": {"extraArgs": ["--block-size=32"]}},
    {"llm": {"rollout": {"drainTimeoutSeconds": 7}}},
    {"llm": {"resources": {"limits": {"memory": "1Gi"}}}},
    {"llm": {"podTemplate": {"metadata": {"annotations": {"a": "b"}}}}},
    {"llm": {"sharedMemorySize": "1Gi"}},
    {"router": {"media": {"maxImages": 1}}},
    {"router": {"grpc": {"port": 7000}}},
    {"router": {"openAI": "Disabled"}},
    {"transport": {"leaseSeconds": 7}},
    {"transport": {"placement": {"topologyKey": "rack"}}},
    {"monitoring": {"logLevel": "Debug"}},
    {"slos": [{"name": "up", "indicator": "Availability"}]},
    {"imagePullSecrets": [{"name": "a"}]},
    {"serviceAccountName": "a"},
]


@pytest.mark.parametrize("changes", SAME, ids=str)
def test_what_does_not_replace_pods(changes: dict[str, Any]) -> None:
    assert revision(changes) == revision()


@pytest.mark.parametrize("changes", OTHER, ids=str)
def test_what_does(changes: dict[str, Any]) -> None:
    assert revision(changes) != revision()


def test_every_engine_field_is_in_it() -> None:
    plain, tuned = service(), load_manifest(EXAMPLES / "tuned.yaml")
    for pool in ("encoder", "llm", "router"):
        before, after = getattr(plain.spec, pool), getattr(tuned.spec, pool)
        for name in type(after).model_fields:
            if name in ("replicas", "scaling", "rollout") or before == after:
                continue
            value = getattr(after, name)
            if value == getattr(before, name):
                continue
            changed = plain.model_copy(
                update={
                    "spec": plain.spec.model_copy(
                        update={pool: before.model_copy(update={name: value})}
                    )
                }
            )
            assert render(changed, CONTEXT).revision != render(plain, CONTEXT).revision, name


def test_owners_and_clusters_are_not_in_it() -> None:
    other = replace(
        CONTEXT,
        owner=Owner("demo", "1"),
        facts=ClusterFacts(37, frozenset(OPTIONAL_KINDS)),
        api_server_ports=(7443,),
    )
    assert revision(context=other) == revision()


def test_images_and_resolved_commits_are() -> None:
    images = replace(CONTEXT, images=replace(CONTEXT.images, llm="llm:2"))
    commit = replace(CONTEXT, model_revision="abc")
    assert len({revision(), revision(context=images), revision(context=commit)}) == 3


def test_it_names_everything_of_the_revision() -> None:
    rendered = render(service(), CONTEXT)
    assert re.fullmatch(r"[0-9a-f]{8}", rendered.revision)
    for pool in rendered.pools:
        for manifest in (pool.config, pool.service, pool.workload):
            assert manifest["metadata"]["name"] == f"demo-{pool.pool}-{rendered.revision}"
            assert manifest["metadata"]["labels"]["redserve.dev/revision"] == rendered.revision


def test_rendering_is_deterministic() -> None:
    made = load_manifest(EXAMPLES / "complete.yaml")
    assert render(made, CONTEXT) == render(made, CONTEXT)


def test_sizes_are_left_to_the_rollout() -> None:
    made = service(encoder={"replicas": 3}, llm={"scaling": {"minReplicas": 0, "maxReplicas": 4}})
    rendered = render(made, CONTEXT)
    assert [pool.replicas for pool in rendered.pools] == [3, 1, 1]
    for pool in rendered.pools:
        assert "replicas" not in pool.workload["spec"]
        assert pool.workload_with(5)["spec"]["replicas"] == 5
    pools = [one for one in rendered.shared if one["kind"] == "RedPool"]
    assert all("replicas" not in one["spec"] for one in pools)
