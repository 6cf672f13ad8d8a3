from __future__ import annotations

from typing import Any

import pytest

from redserve.errors import ConfigError
from redserve.local.checks import check_runnable_here, refusals
from redserve.spec.manifest import load_manifest
from tests.spec.manifests import EXAMPLES, ROOT, service

REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"model": {"uri": "s3://a/b"}}, "spec.model.uri", "download the model and write file:///"),
    ({"model": {"uri": "pvc://a/b"}}, "spec.model.uri", "in a cluster only"),
    ({"engine": {"name": "VLLM"}}, "spec.engine.name", "write Builtin"),
    ({"encoder": {"replicas": 0}}, "spec.encoder.replicas", "write at least 1"),
    ({"llm": {"scaling": {"minReplicas": 0, "maxReplicas": 1}}}, "spec.llm.replicas", "at least 1"),
    ({"llm": {"extraArgs": ["--x"]}}, "spec.llm.extraArgs", "in a cluster only"),
    (
        {"llm": {"env": [{"name": "A"}, {"name": "B", "valueFrom": {"fieldRef": {}}}]}},
        "spec.llm.env[1].valueFrom",
        "to take B from",
    ),
    ({"llm": {"parallelism": {"tensor": 2}}}, "spec.llm.parallelism", "more replicas"),
    ({"encoder": {"parallelism": {"pipeline": 2}}}, "spec.encoder.parallelism", "more replicas"),
    ({"encoder": {"modalities": ["Image", "Video"]}}, "spec.encoder.modalities", "only Image"),
    ({"router": {"tls": {"secretName": "a"}}}, "spec.router.tls", "remove it"),
    ({"router": {"replicas": 2}}, "spec.router.replicas", "write 1"),
    ({"transport": {"type": "InProcess"}}, "spec.transport.type", "processes of their own"),
    ({"transport": {"chunkTokens": 8}}, "spec.transport.chunkTokens", "remove it"),
    ({"reconcile": "Stopped"}, "spec.reconcile", "write Active"),
]


@pytest.mark.parametrize(("spec", "field", "mend"), REFUSED, ids=[case[1] for case in REFUSED])
def test_what_would_mean_something_else_is_refused(
    spec: dict[str, Any], field: str, mend: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        check_runnable_here(service(**spec))
    assert caught.value.field == field
    assert mend in caught.value.message


def test_the_example_runs_without_a_word() -> None:
    assert check_runnable_here(load_manifest(ROOT / "examples/redservice.yaml")) == ()


def test_the_minimal_example_runs_and_says_what_is_left_out() -> None:
    warnings = check_runnable_here(load_manifest(EXAMPLES / "minimal.yaml"))
    assert warnings == (
        "only a cluster has a use for spec.encoder.resources[nvidia.com/gpu], "
        "spec.llm.resources[nvidia.com/gpu]: left out here",
    )


def test_scaling_is_told() -> None:
    warnings = check_runnable_here(service(llm={"scaling": {"minReplicas": 2, "maxReplicas": 3}}))
    assert warnings == ("spec.llm.scaling: nothing scales here; 2 replica(s) run",)


@pytest.mark.parametrize("kind", ["Auto", "RDMA", "TCP", "GRPC"])
def test_data_paths_between_processes_are_for_them_to_make(kind: str) -> None:
    transport: dict[str, Any] = {"type": kind}
    if kind == "RDMA":
        transport["rdma"] = {"resourceName": "rdma/ib"}
    assert list(refusals(service(transport=transport).spec)) == []


def test_the_complete_example_needs_a_cluster() -> None:
    fields = [one.field for one in refusals(load_manifest(EXAMPLES / "complete.yaml").spec)]
    assert fields == [
        "spec.llm.parallelism",
        "spec.encoder.modalities",
        "spec.llm.extraArgs",
        "spec.router.tls",
        "spec.router.replicas",
    ]


CLUSTER_ONLY: list[tuple[dict[str, Any], str]] = [
    ({"monitoring": {"podMonitor": "Enabled"}}, "spec.monitoring.podMonitor"),
    ({"monitoring": {"rules": "Auto"}}, "spec.monitoring.rules"),
    ({"monitoring": {"labels": {"release": "a"}}}, "spec.monitoring.labels"),
    ({"networkPolicy": "Enabled"}, "spec.networkPolicy"),
    ({"reconcile": "Paused"}, "spec.reconcile"),
    ({"transport": {"rdma": {"resourceName": "rdma/ib"}}}, "spec.transport.rdma"),
    ({"router": {"service": {"type": "NodePort"}}}, "spec.router.service"),
    ({"llm": {"disruption": {"maxUnavailable": 2}}}, "spec.llm.disruption"),
    ({"llm": {"rollout": {"maxSurge": 2}}}, "spec.llm.rollout.maxSurge"),
    ({"llm": {"rollout": {"maxUnavailable": 2}}}, "spec.llm.rollout.maxUnavailable"),
    ({"llm": {"resources": {"claims": [{"name": "a"}]}}}, "spec.llm.resources.claims"),
]


@pytest.mark.parametrize(("spec", "field"), CLUSTER_ONLY, ids=[case[1] for case in CLUSTER_ONLY])
def test_what_has_no_effect_here_is_told(spec: dict[str, Any], field: str) -> None:
    assert check_runnable_here(service(**spec)) == (
        f"only a cluster has a use for {field}: left out here",
    )


def test_what_has_an_effect_here_is_not() -> None:
    spec: dict[str, Any] = {
        "llm": {"rollout": {"drainTimeoutSeconds": 3}},
        "monitoring": {"logLevel": "Debug"},
        "slos": [{"name": "up", "indicator": "Availability"}],
    }
    assert check_runnable_here(service(**spec)) == ()
