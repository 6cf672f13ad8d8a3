"""What the chart renders, by the real helm."""

from __future__ import annotations

from typing import Any

import kubernetes_validate
import pytest
import yaml

import redserve
from redserve.spec.settings import OperatorSettings
from tests.helm.chart import (
    CHART,
    NAMESPACE,
    RELEASE,
    Manifest,
    helm,
    kinds,
    one_of,
    template,
    try_template,
)
from tests.helm.golden_files import CASES, GOLDEN, golden_text

pytestmark = pytest.mark.cluster
MONITORING = "monitoring.coreos.com/v1/ServiceMonitor"
OPERATOR = f"{RELEASE}-operator"


@pytest.mark.parametrize("case", CASES)
def test_golden(case: str) -> None:
    assert golden_text(case) == (GOLDEN / f"{case}.yaml").read_text(encoding="utf-8"), (
        "if it is meant: python -m tests.helm.golden_files"
    )


def test_lint() -> None:
    done = helm("lint", "--strict", str(CHART))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("minor", range(32, 38))
@pytest.mark.parametrize("case", CASES)
def test_objects_are_valid_for_every_supported_kubernetes(case: str, minor: int) -> None:
    for one in template(CASES[case], kube_version=f"1.{minor}.0"):
        if one["apiVersion"].startswith("monitoring.coreos.com"):
            continue
        kubernetes_validate.validate(one, f"1.{minor}", strict=True)


def test_older_kubernetes_is_refused() -> None:
    done = try_template(kube_version="1.31.9")
    assert done.returncode != 0
    assert "1.32" in done.stderr


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"replicas": "two"}, "at '/replicas': got string, want integer"),
        ({"replica": 2}, "additional properties 'replica' not allowed"),
        ({"images": {"routers": {}}}, "additional properties 'routers' not allowed"),
        ({"images": {"pullPolicy": "Sometimes"}}, "'Always', 'IfNotPresent', 'Never'"),
        ({"images": {"llm": {"digest": "sha256:1"}}}, "at '/images/llm/digest'"),
        ({"images": {"registry": "https://registry.example.com/team"}}, "at '/images/registry'"),
        ({"images": {"registry": "registry.example.com//team"}}, "at '/images/registry'"),
        ({"watchNamespaces": ["A_B"]}, "at '/watchNamespaces/0'"),
        ({"monitoring": {"runbooksURL": "runbooks"}}, "at '/monitoring/runbooksURL'"),
        ({"monitoring": {"labels": {"release": 1}}}, "at '/monitoring/labels/release'"),
        ({"metrics": {"monitor": "Yes"}}, "'Auto', 'ServiceMonitor', 'PodMonitor', 'None'"),
        (
            {"operator": {"extraEnv": [{"name": "REDSERVE_OPERATOR_NAMESPACE"}]}},
            "at '/operator/extraEnv/0/name'",
        ),
        (
            {"replicas": 2, "leaderElection": {"enabled": False}},
            "more than one operator needs leaderElection.enabled: true",
        ),
        (
            {"leaderElection": {"renewSeconds": 20}},
            "renewSeconds must be less than 0.7 times leaderElection.leaseDurationSeconds",
        ),
        (
            {"leaderElection": {"renewSeconds": 7, "leaseDurationSeconds": 10}},
            "renewSeconds must be less than 0.7 times leaderElection.leaseDurationSeconds",
        ),
    ],
)
def test_bad_values_are_refused_by_name(values: dict[str, Any], complaint: str) -> None:
    done = try_template(values)
    assert done.returncode != 0
    assert complaint in done.stderr


@pytest.mark.parametrize(
    ("registry", "begins"),
    [
        ("", "redserve-operator:"),
        ("redserve", "redserve/redserve-operator:"),
        ("localhost:5000", "localhost:5000/redserve-operator:"),
        ("registry.example.com:443/a/b_c/", "registry.example.com:443/a/b_c/redserve-operator:"),
    ],
)
def test_registries(registry: str, begins: str) -> None:
    deployment = one_of(template({"images": {"registry": registry}}), "Deployment")
    image = deployment["spec"]["template"]["spec"]["containers"][0]["image"]
    assert image.startswith(begins)


def environment(objects: list[Manifest]) -> dict[str, str]:
    container = one_of(objects, "Deployment")["spec"]["template"]["spec"]["containers"][0]
    return {
        one["name"]: one.get("value", one.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath"))
        for one in container["env"]
    }


def settings(values: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the operator reads when the chart was installed with these values."""
    for name, value in environment(template(values)).items():
        monkeypatch.setenv(name, value)
    return OperatorSettings.from_env().model_dump()


def defaults() -> dict[str, Any]:
    return {name: field.default for name, field in OperatorSettings.model_fields.items()}


def test_values_reach_the_operators_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings(CASES["full"], monkeypatch) == defaults() | {
        "identity": "metadata.name",
        "namespace": "metadata.namespace",
        "router_image": "registry.example.com/serving/redserve-router:1.2.3",
        "encoder_image": "registry.example.com/serving/redserve-encoder:1.2.3",
        "llm_image": f"registry.example.com/serving/redserve-llm@sha256:{'0' * 64}",
        "image_pull_policy": "IfNotPresent",
        "image_pull_secrets": ("registry",),
        "monitoring_labels": {"release": "main"},
        "runbooks_url": "https://runbooks.example.com/redserve",
        "lease_duration_s": 30,
        "lease_renew_s": 10,
        "debounce_s": 0.05,
        "http_port": 9000,
        "log_level": "debug",
    }


def test_the_charts_defaults_are_the_operators(monkeypatch: pytest.MonkeyPatch) -> None:
    read = settings({}, monkeypatch)
    released = ("router_image", "encoder_image", "llm_image")
    assert {name: read.pop(name) for name in released} == {
        f"{name}_image": f"redserve/redserve-{name}:{redserve.__version__}"
        for name in ("router", "encoder", "llm")
    }
    for name in ("identity", "namespace"):
        assert read.pop(name) == environment(template())[f"REDSERVE_OPERATOR_{name}".upper()]
    assert read == {name: value for name, value in defaults().items() if name in read}


def test_every_setting_of_the_operator_is_a_value_of_the_chart() -> None:
    given = environment(template())
    unsaid = {name for name in defaults() if f"REDSERVE_OPERATOR_{name}".upper() not in given}
    assert unsaid == {"kubeconfig", "service_account_dir", "http_host"}


def test_the_operator_holds_what_it_grants_and_no_more() -> None:
    objects = template(CASES["default"])
    rules = one_of(objects, "ClusterRole", OPERATOR)["rules"]
    rights = {
        (resource, verb)
        for rule in rules
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert {("endpointslices", verb) for verb in ("get", "list", "watch")} <= rights
    resources = {resource for resource, _ in rights}
    assert not resources & {"secrets", "pods/exec", "nodes", "namespaces", "*"}
    assert not {verb for _, verb in rights} & {"*", "escalate", "bind", "impersonate"}
    assert ("pods", "delete") not in rights
    assert ("redservices", "patch") not in rights


@pytest.mark.parametrize("release", [RELEASE, "other"])
def test_the_lease_that_may_be_taken_is_the_one_that_is_asked_for(release: str) -> None:
    objects = template(CASES["default"], release=release)
    lease = environment(objects)["REDSERVE_OPERATOR_LEASE_NAME"]
    assert release in lease
    rules = one_of(objects, "Role", f"{lease}-leases")["rules"]
    assert [rule.get("resourceNames") for rule in rules] == [None, [lease]]


def test_a_second_operator_makes_nothing_in_the_cluster() -> None:
    # So that it can bear the name of the first, in another namespace.
    for one in template(CASES["namespaced"]):
        assert one["metadata"].get("namespace"), one["kind"]


def test_namespaced_releases_have_no_rights_in_the_cluster() -> None:
    objects = template(CASES["namespaced"])
    assert not kinds(objects) & {"ClusterRole", "ClusterRoleBinding"}
    for kind in ("Role", "RoleBinding"):
        places = {
            one["metadata"]["namespace"]
            for one in objects
            if one["kind"] == kind and one["metadata"]["name"] == OPERATOR
        }
        assert places == {"team-a", "team-b"}
    everywhere = one_of(template(CASES["default"]), "ClusterRole", OPERATOR)["rules"]
    roles = [
        one for one in objects if one["kind"] == "Role" and one["metadata"]["name"] == OPERATOR
    ]
    assert all(one["rules"] == everywhere for one in roles)


@pytest.mark.parametrize(
    ("monitor", "apis", "made"),
    [
        ("Auto", (), set()),
        ("Auto", (MONITORING,), {"ServiceMonitor"}),
        ("PodMonitor", (), {"PodMonitor"}),
        ("ServiceMonitor", (), {"ServiceMonitor"}),
        ("None", (MONITORING,), set()),
    ],
)
def test_monitors(monitor: str, apis: tuple[str, ...], made: set[str]) -> None:
    objects = template({"metrics": {"monitor": monitor}}, apis=apis)
    assert kinds(objects) & {"ServiceMonitor", "PodMonitor"} == made


def test_dashboards_are_the_files_and_fit_into_a_config_map() -> None:
    boards = {
        name: (one, text)
        for one in template(CASES["full"])
        for name, text in one.get("data", {}).items()
        if name.endswith(".json")
    }
    files = {path.name: path for path in (CHART / "files/dashboards").glob("*.json")}
    assert set(boards) == set(files)
    for name, (one, text) in boards.items():
        assert text == files[name].read_text(encoding="utf-8")
        # What `kubectl apply` notes of an object has this limit too, and it is the lower one.
        assert len(text.encode()) < 200_000
        metadata = one["metadata"]
        assert metadata["namespace"] == "monitoring"
        assert metadata["labels"]["example.com/dashboard"] == "yes"
        assert metadata["annotations"] == {"grafana_folder": "REDServe"}
    off = template({"dashboards": {"enabled": False}})
    assert not any(one["metadata"]["name"].endswith("-dashboard") for one in off)


@pytest.mark.parametrize("keep", [True, False])
def test_definitions_are_the_files_with_the_release_written_on_them(keep: bool) -> None:
    rendered = {
        one["metadata"]["name"]: one
        for one in template({"crds": {"keep": keep}})
        if one["kind"] == "CustomResourceDefinition"
    }
    files = [
        yaml.safe_load(path.read_text(encoding="utf-8"))
        for path in sorted((CHART / "files/crds").glob("*.yaml"))
    ]
    assert set(rendered) == {"redservices.redserve.dev", "redpools.redserve.dev"}
    for file in files:
        one = rendered[file["metadata"]["name"]]
        assert one["spec"] == file["spec"]
        annotations = one["metadata"].get("annotations", {})
        assert annotations.get("helm.sh/resource-policy") == ("keep" if keep else None)
        assert one["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "Helm"


def test_names_fit_and_differ_by_release() -> None:
    objects = template(CASES["full"], release="a" * 53)
    for one in objects:
        assert len(one["metadata"]["name"]) <= 63, one["metadata"]["name"]
    plain, other = template(CASES["default"]), template(CASES["default"], release="other")
    names = [
        {one["metadata"]["name"] for one in release if one["kind"].startswith("ClusterRole")}
        for release in (plain, other)
    ]
    assert not names[0] & names[1]


def test_only_the_operators_pods_are_behind_its_service() -> None:
    objects = template(CASES["default"])
    selector = one_of(objects, "Service")["spec"]["selector"]
    deployment = one_of(objects, "Deployment")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert selector.items() <= labels.items()
    assert deployment["spec"]["selector"]["matchLabels"] == selector
    test_pod = one_of(objects, "Pod")
    assert not selector.items() <= test_pod["metadata"]["labels"].items()


def test_notes_say_what_to_do_next() -> None:
    done = helm(
        "install", RELEASE, str(CHART), "--namespace", NAMESPACE, "--dry-run=client",
        "--set", "watchNamespaces={team-a}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    notes = done.stdout.partition("NOTES:")[2]
    assert f"helm test {RELEASE} --namespace {NAMESPACE}" in notes
    assert "kubectl --namespace team-a apply -f examples/redservice.yaml" in notes
    assert "kubectl --namespace team-a get redservices --watch" in notes
