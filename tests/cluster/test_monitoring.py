"""PodMonitor and rules: what Prometheus reads of a cluster."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry

from redserve.cluster.facts import (
    OPTIONAL_KINDS,
    POD_MONITOR,
    PROMETHEUS_RULE,
    ClusterFacts,
    Watching,
)
from redserve.cluster.render import render
from redserve.cluster.scrape import SERIES_LABELS
from redserve.local.scrape import scrape_config
from redserve.observability import rule_file
from tests.cluster.pods import CONTEXT
from tests.metric_kinds import EVERY
from tests.observability.states import STATE
from tests.spec.manifests import service

SERVED = replace(CONTEXT, facts=ClusterFacts(kinds=frozenset(OPTIONAL_KINDS)))
SLOS = [{"name": "available", "indicator": "Availability", "objectivePercent": "99.9"}]
RULES_LABEL = "redserve.dev/prometheus-rules"


def made(kind: str, context: Any = SERVED, **spec: Any) -> list[dict[str, Any]]:
    return [one for one in render(service(**spec), context).shared if one["kind"] == kind]


@pytest.mark.parametrize("switch", ["Auto", "Enabled"])
def test_rules_are_a_prometheus_rule_where_that_is_served(switch: str) -> None:
    spec: dict[str, Any] = {"slos": SLOS, "monitoring": {"rules": switch}}
    (rule,) = made(PROMETHEUS_RULE, **spec)
    assert rule["spec"] == rule_file(service(**spec), namespace="serving")
    assert not made("ConfigMap", **spec)


def test_rules_are_a_file_in_a_config_map_elsewhere() -> None:
    (config,) = made("ConfigMap", CONTEXT, slos=SLOS)
    assert config["metadata"]["name"] == "demo-rules"
    assert config["metadata"]["labels"][RULES_LABEL] == "true"
    assert "immutable" not in config
    ((name, text),) = config["data"].items()
    assert name == "serving.demo.rules.yaml"
    assert yaml.safe_load(text) == rule_file(service(slos=SLOS), namespace="serving")


@pytest.mark.parametrize("context", [CONTEXT, SERVED])
def test_no_rules_when_they_are_disabled(context: Any) -> None:
    disabled = {"rules": "Disabled"}
    assert not made(PROMETHEUS_RULE, context, monitoring=disabled)
    assert not made("ConfigMap", context, monitoring=disabled)


@pytest.mark.parametrize("kind", [POD_MONITOR, PROMETHEUS_RULE])
def test_labels_by_which_a_prometheus_chooses(kind: str) -> None:
    watching = Watching(labels=(("release", "of the chart"), ("team", "vision")))
    context = replace(SERVED, watching=watching)
    (plain,) = made(kind)
    asked = {"release": "main", "redserve.dev/service": "mine"}
    (one,) = made(kind, context, monitoring={"labels": asked})
    ours = plain["metadata"]["labels"]
    assert one["metadata"]["labels"] == {"release": "main", "team": "vision", **ours}
    assert one["spec"] == plain["spec"]


def test_labels_of_the_config_map() -> None:
    labels = {"release": "main", RULES_LABEL: "no"}
    (config,) = made("ConfigMap", CONTEXT, monitoring={"labels": labels})
    assert config["metadata"]["labels"].items() >= {"release": "main", RULES_LABEL: "true"}.items()


def test_runbooks_may_be_elsewhere() -> None:
    context = replace(SERVED, watching=Watching(runbooks="https://example.com/books/"))
    (rule,) = made(PROMETHEUS_RULE, context, slos=SLOS)
    urls = {
        one["annotations"]["runbook_url"]
        for group in rule["spec"]["groups"]
        for one in group["rules"]
        if "alert" in one
    }
    assert urls
    assert all(url.startswith("https://example.com/books/RedServe") for url in urls)


def test_neither_rules_nor_labels_are_in_the_revision() -> None:
    watching = Watching(labels=(("a", "b"),), runbooks="https://example.com")
    others = (
        (service(monitoring={"rules": "Disabled"}), CONTEXT),
        (service(monitoring={"labels": {"a": "b"}}), CONTEXT),
        (service(), replace(CONTEXT, watching=watching)),
    )
    revision = render(service(), CONTEXT).revision
    assert {render(one, context).revision for one, context in others} == {revision}


def test_series_have_the_labels_of_one_machine() -> None:
    """So that the same expressions hold in both places."""
    (monitor,) = made(POD_MONITOR)
    (job,) = scrape_config(STATE)["scrape_configs"]
    for endpoint in monitor["spec"]["podMetricsEndpoints"]:
        targets = {one["targetLabel"] for one in endpoint["relabelings"] if one.get("targetLabel")}
        for process in job["static_configs"]:
            # The Prometheus operator adds the name of the pod by itself.
            assert process["labels"].keys() - {"pod"} == targets


def test_only_our_own_ports_are_scraped() -> None:
    (monitor,) = made(POD_MONITOR)
    seen = {
        endpoint["port"]: endpoint["relabelings"][0]
        for endpoint in monitor["spec"]["podMetricsEndpoints"]
    }
    source = ["__meta_kubernetes_pod_label_redserve_dev_pool"]
    assert seen == {
        "metrics": {"action": "keep", "sourceLabels": source, "regex": "encoder|llm"},
        "http": {"action": "keep", "sourceLabels": source, "regex": "router"},
    }


@pytest.mark.parametrize("name", sorted(EVERY))
def test_no_process_has_a_label_that_is_put_on_its_series(name: str) -> None:
    """It would become `exported_...` in one place and stay what it is in the other."""
    put_on = {*SERIES_LABELS, "container", "endpoint", "instance", "job", "pod"}
    made = vars(EVERY[name](CollectorRegistry()))
    clashes = {field: put_on & set(metric._labelnames) for field, metric in made.items()}
    assert not [field for field, labels in clashes.items() if labels]
