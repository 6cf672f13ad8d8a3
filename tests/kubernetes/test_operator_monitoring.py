"""What the operator makes for Prometheus, under the schemas of the Prometheus operator itself."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from redserve.cluster.documents import documents
from redserve.cluster.facts import POD_MONITOR, PROMETHEUS_RULE, ClusterFacts
from redserve.observability import rule_file
from redserve.spec.service import RedService
from redserve_operator.kube.kinds import kind_of
from tests.cluster.golden import CASES, EVERYTHING, Case
from tests.kubernetes import definitions
from tests.kubernetes.operators import Cluster, OperatorProcess, fake_kubelets, service
from tests.kubernetes.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tools.kubernetes.control_plane import ControlPlane

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

CONFIG_MAP = "demo-rules"
SLOS = [
    {
        "name": "ttft",
        "indicator": "TimeToFirstToken",
        "thresholdMilliseconds": 800,
        "objectivePercent": "99",
    },
    {"name": "available", "indicator": "Availability", "objectivePercent": "99.9"},
]
RELEASE = {"release": "kube-prometheus-stack"}


@pytest.fixture(scope="module", autouse=True)
def _ready_cluster(control_plane: ControlPlane) -> Iterator[None]:
    definitions.install(control_plane)
    with fake_kubelets(control_plane, nodes=3):
        yield


@pytest.fixture
def cluster(control_plane: ControlPlane, namespace: str) -> Cluster:
    return Cluster(control_plane, namespace)


@pytest.fixture
def operator(cluster: Cluster, tmp_path: Path) -> OperatorProcess:
    """Not started. It looks at its services every second, needed or not."""
    return OperatorProcess(
        cluster.control_plane.kubeconfig,
        tmp_path / "log",
        watch_namespaces=(cluster.namespace,),
        resync_s=1.0,
        monitoring_labels={"team": "vision"},
        runbooks_url="https://runbooks.example.com",
    )


def watched(**monitoring: Any) -> dict[str, Any]:
    return service(slos=SLOS, monitoring=monitoring)


def told(cluster: Cluster) -> str:
    return str(cluster.condition("demo", "MonitoringReady").get("reason"))


def rules_of(cluster: Cluster) -> tuple[bool, bool]:
    """Whether there is a PrometheusRule, where that can be, and whether a ConfigMap."""
    served = definitions.is_served(cluster.control_plane, PROMETHEUS_RULE)
    rule = cluster.get(PROMETHEUS_RULE, "demo") if served else None
    return rule is not None, cluster.get("ConfigMap", CONFIG_MAP) is not None


def expected_groups(cluster: Cluster, manifest: dict[str, Any]) -> Any:
    made = rule_file(
        RedService.model_validate(manifest),
        namespace=cluster.namespace,
        runbooks="https://runbooks.example.com",
    )
    return made["groups"]


def test_their_schemas_take_all_that_is_rendered(control_plane: ControlPlane) -> None:
    kinds = (POD_MONITOR, PROMETHEUS_RULE)
    with definitions.served(control_plane, *kinds):
        taken = [one for case in CASES for one in _taken(control_plane, case, kinds)]
    assert set(taken) == set(kinds)


def _taken(control_plane: ControlPlane, case: Case, kinds: tuple[str, ...]) -> Iterator[str]:
    facts = ClusterFacts(EVERYTHING.facts.minor, frozenset({*case.context.facts.kinds, *kinds}))
    context = replace(case.context, namespace="default", owner=None, facts=facts)
    for manifest in documents(case.service(), context):
        if manifest["kind"] in kinds:
            path = kind_of(manifest["kind"]).path("default")
            query = "dryRun=All&fieldValidation=Strict"
            answer = control_plane.api.post(f"{path}?{query}", manifest)
            assert answer["spec"].keys() == manifest["spec"].keys()
            yield manifest["kind"]


def test_rules_and_monitor_live_with_the_service(
    cluster: Cluster, operator: OperatorProcess
) -> None:
    kinds = (POD_MONITOR, PROMETHEUS_RULE)
    with definitions.served(cluster.control_plane, *kinds), operator:
        operator.until_ready()
        cluster.apply(watched(labels=RELEASE))
        cluster.until_settled("demo")
        assert told(cluster) == "PrometheusRule"
        assert rules_of(cluster) == (True, False)
        for kind in kinds:
            made = cluster.get(kind, "demo")
            assert made is not None
            assert made["metadata"]["labels"].items() >= {**RELEASE, "team": "vision"}.items()
        rule = cluster.get(PROMETHEUS_RULE, "demo")
        assert rule is not None
        assert rule["spec"]["groups"] == expected_groups(cluster, watched())

        _nothing_is_written_anew(operator)

        cluster.patch(PROMETHEUS_RULE, "demo", {"spec": {"groups": []}})
        eventually(lambda: (cluster.get(PROMETHEUS_RULE, "demo") or {})["spec"]["groups"])

        fewer = {**watched(labels=RELEASE), "spec": {**watched(labels=RELEASE)["spec"], "slos": []}}
        cluster.apply(fewer)
        eventually(lambda: "BurnRate" not in str(cluster.get(PROMETHEUS_RULE, "demo")))

        cluster.apply(watched(rules="Disabled", podMonitor="Disabled"))
        cluster.until_settled("demo")
        eventually(lambda: not any(cluster.get(kind, "demo") for kind in kinds))
        assert told(cluster) == "NoRules"
        assert rules_of(cluster) == (False, False)


def _nothing_is_written_anew(operator: OperatorProcess) -> None:
    """Not in three more looks, whatever the API server has made of what was sent."""
    looks, writes = operator.figure("reconcile_total"), _writes(operator)
    eventually(lambda: operator.figure("reconcile_total") >= looks + 3)
    assert _writes(operator) == writes
    assert operator.figure("amended_total") == 0


def _writes(operator: OperatorProcess) -> dict[str, float]:
    kinds = (POD_MONITOR, PROMETHEUS_RULE, "ConfigMap")
    return {kind: operator.figure("applies_total", f'kind="{kind}"') for kind in kinds}


def test_rules_move_when_the_kind_comes_and_goes(
    cluster: Cluster, operator: OperatorProcess
) -> None:
    with operator:
        operator.until_ready()
        cluster.apply(watched())
        revision = cluster.until_settled("demo")["currentRevision"]
        assert told(cluster) == "ConfigMap"
        assert rules_of(cluster) == (False, True)
        config = cluster.get("ConfigMap", CONFIG_MAP)
        assert config is not None
        (text,) = config["data"].values()
        assert yaml.safe_load(text)["groups"] == expected_groups(cluster, watched())
        _nothing_is_written_anew(operator)
    with definitions.served(cluster.control_plane, PROMETHEUS_RULE):
        with operator:  # it would find the kind by itself, within three minutes
            operator.until_ready()
            eventually(lambda: rules_of(cluster) == (True, False))
            eventually(lambda: told(cluster) == "PrometheusRule")
            definitions.withdraw(cluster.control_plane, PROMETHEUS_RULE)
            # Its watch is over for good; a new process watches what is left.
            eventually(lambda: not operator.is_running)
        with operator:
            operator.until_ready()
            eventually(lambda: rules_of(cluster) == (False, True))
            eventually(lambda: told(cluster) == "ConfigMap")
            assert cluster.until_settled("demo")["currentRevision"] == revision


def test_the_rules_of_a_service_that_is_gone_are_gone(
    cluster: Cluster, operator: OperatorProcess
) -> None:
    with definitions.served(cluster.control_plane, PROMETHEUS_RULE), operator:
        operator.until_ready()
        cluster.apply(watched())
        eventually(lambda: rules_of(cluster) == (True, False))
        cluster.delete("RedService", "demo")
        eventually(lambda: cluster.get(PROMETHEUS_RULE, "demo") is None)
