"""Objects beside the workloads: each says one thing that would hurt if it were otherwise."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from redserve.cluster.facts import OPTIONAL_KINDS, POD_MONITOR, ClusterFacts
from redserve.cluster.model_source import ModelSource, model_source
from redserve.cluster.render import render
from tests.cluster.pods import CONTEXT, main_of, pod_of
from tests.spec.manifests import service

SERVED = replace(CONTEXT, facts=ClusterFacts(kinds=frozenset(OPTIONAL_KINDS)))
CLAIM = {"persistentVolumeClaim": {"claimName": "models"}}


def shared(kind: str, context: Any = CONTEXT, **spec: Any) -> list[Any]:
    return [one for one in render(service(**spec), context).shared if one["kind"] == kind]


def test_the_front_selects_routers_of_every_revision() -> None:
    made = shared(
        "Service", router={"service": {"type": "LoadBalancer", "annotations": {"a": "b"}}}
    )
    assert [one["metadata"]["name"] for one in made] == ["demo"]
    assert made[0]["metadata"]["annotations"] == {"a": "b"}
    spec = made[0]["spec"]
    assert spec["type"] == "LoadBalancer"
    assert spec["selector"] == {"redserve.dev/service": "demo", "redserve.dev/pool": "router"}
    assert [(port["name"], port["port"], port["appProtocol"]) for port in spec["ports"]] == [
        ("grpc", 50051, "kubernetes.io/h2c"),
        ("http", 8000, "http"),
    ]


def test_without_http_routers_have_their_metrics_elsewhere() -> None:
    off = {"openAI": "Disabled"}
    assert [port["name"] for port in shared("Service", router=off)[0]["spec"]["ports"]] == ["grpc"]
    ports = [port["name"] for port in main_of(service(router=off), "router")["ports"]]
    assert ports == ["grpc", "metrics"]
    endpoints = shared(POD_MONITOR, SERVED, router=off)[0]["spec"]["podMetricsEndpoints"]
    assert [one["port"] for one in endpoints] == ["metrics"]


def test_services_of_a_revision_are_headless_and_select_it_only() -> None:
    rendered = render(service(), CONTEXT)
    for pool in rendered.pools:
        assert pool.service["spec"]["clusterIP"] == "None"
        assert pool.service["spec"]["selector"] == {
            "redserve.dev/service": "demo",
            "redserve.dev/pool": pool.pool,
            "redserve.dev/revision": rendered.revision,
        }
        template = pool.workload["spec"]["template"]["metadata"]["labels"]
        assert pool.service["spec"]["selector"].items() <= template.items()


@pytest.mark.parametrize(
    ("switch", "context", "expected"),
    [
        ("Auto", CONTEXT, 0),
        ("Auto", SERVED, 1),
        ("Enabled", SERVED, 1),
        ("Disabled", SERVED, 0),
    ],
)
def test_pod_monitors_where_they_are_served(switch: str, context: Any, expected: int) -> None:
    assert len(shared(POD_MONITOR, context, monitoring={"podMonitor": switch})) == expected


def test_an_account_of_ones_own() -> None:
    assert [one["metadata"]["name"] for one in shared("ServiceAccount")] == [
        "demo-router",
        "demo-worker",
    ]
    made = service(serviceAccountName="mine")
    assert shared("ServiceAccount", serviceAccountName="mine") == []
    binding = shared("RoleBinding", serviceAccountName="mine")[0]
    assert binding["subjects"] == [
        {"kind": "ServiceAccount", "name": "mine", "namespace": "serving"}
    ]
    assert {pod_of(made, pool)["serviceAccountName"] for pool in ("encoder", "router")} == {"mine"}


def test_routers_may_read_endpoint_slices_and_nothing_else() -> None:
    assert shared("Role")[0]["rules"] == [
        {
            "apiGroups": ["discovery.k8s.io"],
            "resources": ["endpointslices"],
            "verbs": ["get", "list", "watch"],
        }
    ]


def test_budgets() -> None:
    made = shared("PodDisruptionBudget", llm={"disruption": {"maxUnavailable": "25%"}})
    assert [one["spec"]["maxUnavailable"] for one in made] == [1, "25%", 1]


def policies(context: Any = CONTEXT, **spec: Any) -> dict[str, Any]:
    made = shared("NetworkPolicy", context, **spec)
    return {one["metadata"]["name"].removeprefix("demo-"): one["spec"] for one in made}


def peers(rules: list[Any], side: str) -> set[str]:
    return {
        peer["podSelector"]["matchLabels"]["redserve.dev/pool"]
        for rule in rules
        for peer in rule.get(side, [])
        if "podSelector" in peer
    }


def test_who_may_talk_to_whom() -> None:
    made = policies()
    assert {pool: peers(one["ingress"], "from") for pool, one in made.items()} == {
        "encoder": {"router", "llm"}, "llm": {"router", "encoder"}, "router": set(),
    }  # fmt: skip
    assert {pool: peers(one["egress"], "to") for pool, one in made.items()} == {
        "encoder": {"llm"}, "llm": {"encoder"}, "router": {"encoder", "llm"},
    }  # fmt: skip
    assert [port["port"] for port in made["router"]["ingress"][0]["ports"]] == ["grpc", "http"]
    assert "from" not in made["router"]["ingress"][0]
    assert policies(networkPolicy="Disabled") == {}


def data_ports(rules: list[Any], side: str, pool: str) -> list[tuple[int, int]]:
    """First and last port between a pool and those of the rules."""
    return [
        (port["port"], port.get("endPort", port["port"]))
        for rule in rules
        if peers([rule], side) == {pool}
        for port in rule["ports"]
    ]


RANGE = {"name": "UCX_TCP_PORT_RANGE", "value": "7000-7003"}


@pytest.mark.parametrize(
    ("spec", "ports"),
    [
        ({"transport": {"type": "Auto"}}, [(50051, 50051)]),
        ({"transport": {"type": "GRPC"}}, [(50051, 50051)]),
        (
            {"transport": {"type": "RDMA", "rdma": {"resourceName": "rdma/ib"}}},
            [(50051, 50051)],
        ),
        ({"transport": {"type": "TCP"}}, [(50051, 50051), (29600, 29615)]),
        (
            {"transport": {"type": "TCP"}, "encoder": {"env": [RANGE]}},
            [(50051, 50051), (7000, 7003)],
        ),
        (
            {"transport": {"type": "TCP"}, "llm": {"env": [RANGE]}},
            [(50051, 50051), (29600, 29615)],
        ),
    ],
)
def test_only_engines_reach_the_memory_of_encoders(
    spec: dict[str, Any], ports: list[tuple[int, int]]
) -> None:
    made = policies(**spec)
    assert data_ports(made["encoder"]["ingress"], "from", "llm") == ports
    assert data_ports(made["llm"]["egress"], "to", "encoder") == ports
    # Nobody connects to an engine's NIXL, and a router to neither.
    assert data_ports(made["llm"]["ingress"], "from", "encoder") == [(50051, 50051)]
    assert data_ports(made["encoder"]["egress"], "to", "llm") == [(50051, 50051)]
    for pool in ("encoder", "llm"):
        assert data_ports(made[pool]["ingress"], "from", "router") == [(50051, 50051)]
        assert data_ports(made["router"]["egress"], "to", pool) == [(50051, 50051)]


def open_ports(rules: list[Any]) -> set[Any]:
    """Ports that are open to the whole world; None for all of them."""
    return {
        port["port"] if port else None
        for rule in rules
        if "to" not in rule or any("ipBlock" in peer for peer in rule["to"])
        for port in rule.get("ports", [None])
    }


DNS = {53, 5353}
API = {443, 6443, 8443, 16443}


@pytest.mark.parametrize(
    ("spec", "pool", "ports"),
    [
        ({}, "encoder", DNS),
        ({}, "llm", DNS),
        ({}, "router", DNS | API),
        ({"router": {"media": {"urlFetch": "Enabled"}}}, "router", DNS | API | {None}),
        ({"model": {"uri": "hf://a/b"}}, "llm", DNS | {80, 443}),
        ({"model": {"uri": "hf://a/b", "cache": CLAIM}}, "llm", DNS),
        ({"monitoring": {"tracing": {"otlpEndpoint": "http://a:5317"}}}, "llm", DNS | {5317}),
        ({"monitoring": {"tracing": {"otlpEndpoint": "https://a"}}}, "encoder", DNS | {4317}),
    ],
)
def test_where_pods_may_go(spec: dict[str, Any], pool: str, ports: set[Any]) -> None:
    assert open_ports(policies(**spec)[pool]["egress"]) == ports


def test_pictures_are_not_fetched_from_inside() -> None:
    media = {"urlFetch": "Enabled"}
    blocks = policies(router={"media": media})["router"]["egress"][-1]["to"]
    assert "10.0.0.0/8" in blocks[0]["ipBlock"]["except"]
    media["privateAddresses"] = "Enabled"
    blocks = policies(router={"media": media})["router"]["egress"][-1]["to"]
    assert all("except" not in block["ipBlock"] for block in blocks)


def test_no_other_namespace_reaches_encoders_and_engines() -> None:
    for pool in ("encoder", "llm"):
        for rule in policies()[pool]["ingress"]:
            if any("namespaceSelector" in peer for peer in rule["from"]):
                assert [port["port"] for port in rule["ports"]] == ["metrics"]


def test_an_api_server_of_another_port() -> None:
    made = policies(replace(CONTEXT, api_server_ports=(7443,)))
    assert open_ports(made["router"]["egress"]) == DNS | {443, 7443}


@pytest.mark.parametrize(
    ("name", "value", "port"),
    [
        ("HTTPS_PROXY", "http://proxy.example.com:3128", 3128),
        ("https_proxy", "proxy:8888/", 8888),
        ("HTTP_PROXY", "http://user:a@proxy:3129", 3129),
        ("ALL_PROXY", "socks5h://proxy", 1080),
        ("HF_ENDPOINT", "http://mirror:8081/hub", 8081),
        ("HF_ENDPOINT", "https://mirror", 443),
        ("HTTPS_PROXY", "http://proxy:port", 443),
        ("OTHER", "http://a:5", 443),
    ],
)
def test_proxies_and_mirrors_can_be_reached(name: str, value: str, port: int) -> None:
    spec = {"llm": {"env": [{"name": name, "value": value}]}}
    hub = {"model": {"uri": "hf://a/b"}}
    assert open_ports(policies(**hub, **spec)["llm"]["egress"]) == DNS | {80, 443, port}
    assert open_ports(policies(**hub, **spec)["encoder"]["egress"]) == DNS | {80, 443}
    assert open_ports(policies(**spec)["llm"]["egress"]) == DNS


def test_drains_are_waited_for() -> None:
    pod = pod_of(service(llm={"rollout": {"drainTimeoutSeconds": 300}}), "llm")
    assert pod["terminationGracePeriodSeconds"] == 5 + 300 + 10
    assert pod["containers"][0]["lifecycle"] == {"preStop": {"sleep": {"seconds": 5}}}


def test_probes() -> None:
    for pool in ("encoder", "llm", "router"):
        main = main_of(service(), pool)
        assert main["readinessProbe"]["grpc"] == {"port": 50051, "service": "readiness"}
        assert main["livenessProbe"]["grpc"] == {"port": 50051, "service": ""}
        start = main["startupProbe"]
        assert start["periodSeconds"] * start["failureThreshold"] >= 1800
        # A router that waits for encoders and engines has started.
        assert start["grpc"]["service"] == ("" if pool == "router" else "readiness")


def test_encoders_go_where_engines_are() -> None:
    placed = service(transport={"placement": {"topologyKey": "rack", "mode": "Required"}})
    terms = pod_of(placed, "encoder")["affinity"]["podAffinity"]
    term = terms["requiredDuringSchedulingIgnoredDuringExecution"][0]
    assert term["topologyKey"] == "rack"
    assert term["labelSelector"]["matchLabels"]["redserve.dev/pool"] == "llm"
    # If engines also waited for encoders, neither would ever be scheduled.
    assert "affinity" not in pod_of(placed, "llm")
    preferred = service(transport={"placement": {"topologyKey": "rack"}})
    terms = pod_of(preferred, "encoder")["affinity"]["podAffinity"]
    assert list(terms) == ["preferredDuringSchedulingIgnoredDuringExecution"]


@pytest.mark.parametrize(
    ("model", "source"),
    [
        ({"uri": "file://a/b"}, ModelSource("file:///models/a/b")),
        ({"uri": "file:///mnt/a"}, ModelSource("file:///mnt/a")),
        (
            {"uri": "pvc://claim/a b"},
            ModelSource("file:///models/a%20b", claim="claim", claim_is_read_only=True),
        ),
        (
            {"uri": "pvc://claim"},
            ModelSource("file:///models", claim="claim", claim_is_read_only=True),
        ),
        ({"uri": "hf://a/b"}, ModelSource("hf://a/b", "/models/hub", filled_by="init")),
        (
            {"uri": "hf://a/b", "cache": {"ephemeral": {"sizeLimit": "4Gi"}}},
            ModelSource("hf://a/b", "/models/hub", size_limit="4Gi", filled_by="init"),
        ),
        (
            {"uri": "hf://a/b", "cache": CLAIM},
            ModelSource("hf://a/b", "/models/hub", claim="models", filled_by="job"),
        ),
        (
            {
                "uri": "hf://a/b",
                "cache": {"persistentVolumeClaim": {"claimName": "models", "readOnly": True}},
            },
            ModelSource("hf://a/b", "/models/hub", claim="models", claim_is_read_only=True),
        ),
    ],
)
def test_model_sources(model: dict[str, Any], source: ModelSource) -> None:
    assert model_source(service(model=model).spec.model) == source


TOKEN = {"tokenSecretRef": {"name": "hub", "key": "token"}}


def secrets_of(value: Any) -> int:
    if isinstance(value, dict):
        return ("secretKeyRef" in value) + sum(secrets_of(inner) for inner in value.values())
    return sum(secrets_of(inner) for inner in value) if isinstance(value, list) else 0


def test_only_the_loader_sees_the_token() -> None:
    by_job = render(service(model={"uri": "hf://a/b", "cache": CLAIM, **TOKEN}), CONTEXT)
    assert by_job.loader is not None
    assert secrets_of(by_job.loader) == 1
    assert sum(secrets_of(pool.workload) for pool in by_job.pools) == 0
    by_init = render(service(model={"uri": "hf://a/b", **TOKEN}), CONTEXT)
    assert by_init.loader is None
    for pool in by_init.pools:
        pod = pool.workload["spec"]["template"]["spec"]
        assert (secrets_of(pod["initContainers"]), secrets_of(pod["containers"])) == (1, 0)
        assert pool.config["data"]["HF_HUB_OFFLINE"] == "1"


def test_servers_cannot_write_to_the_model() -> None:
    for model in ({"uri": "hf://a/b"}, {"uri": "hf://a/b", "cache": CLAIM}, {"uri": "pvc://c/a"}):
        for pool in ("encoder", "llm", "router"):
            mounts = main_of(service(model=model), pool)["volumeMounts"]
            assert {"name": "models", "mountPath": "/models", "readOnly": True} in mounts


def test_the_job_is_that_of_the_checkpoint() -> None:
    def job(context: Any = CONTEXT, claim: str = "models", **spec: Any) -> str:
        cache = {"persistentVolumeClaim": {"claimName": claim}}
        model = {"uri": "hf://a/b", "cache": cache, **spec.pop("model", {})}
        made = render(service(model=model, **spec), context).loader
        assert made is not None
        return str(made["metadata"]["name"])

    assert job() == job(llm={"replicas": 3}) == job(replace(CONTEXT, model_revision="abc"))
    assert job() == job(router={"image": "other"})
    names = {job(), job(claim="b"), job(model={"revision": "v1"}), job(model={"uri": "hf://a/c"})}
    assert len(names) == 4
    assert render(service(model={"uri": "hf://a/b"}), CONTEXT).loader is None


def test_pull_secrets_of_manifest_and_release() -> None:
    context = replace(CONTEXT, images=replace(CONTEXT.images, pull_secrets=("b", "c")))
    made = service(imagePullSecrets=[{"name": "a"}, {"name": "b"}])
    assert pod_of(made, "llm", context)["imagePullSecrets"] == [
        {"name": "a"},
        {"name": "b"},
        {"name": "c"},
    ]


@pytest.mark.parametrize(
    ("probe", "seconds"),
    [(None, 3600), ({"failureThreshold": 3600}, 9000), ({"initialDelaySeconds": 600}, 4200)],
)
def test_a_deployment_waits_as_long_as_its_probe_lets_a_pod_start(probe: Any, seconds: int) -> None:
    patch = {"spec": {"containers": [{"name": "main", "startupProbe": probe}]}}
    llm = render(service(llm={"podTemplate": patch}), CONTEXT).pools[1]
    assert llm.workload["spec"]["progressDeadlineSeconds"] == seconds


@pytest.mark.parametrize(("name", "subject"), [("mine", "mine"), (None, "default")])
def test_the_account_that_a_pod_template_names_gets_the_routers_rights(
    name: str | None, subject: str
) -> None:
    patch = {"spec": {"serviceAccountName": name}}
    (binding,) = shared("RoleBinding", router={"podTemplate": patch})
    assert [one["name"] for one in binding["subjects"]] == [subject]
    (binding,) = shared("RoleBinding", llm={"podTemplate": patch})
    assert [one["name"] for one in binding["subjects"]] == ["demo-router"]


def test_the_loader_is_placed_as_routers_are() -> None:
    node: dict[str, Any] = {
        "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}
    }
    patch = {
        "spec": {
            "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
            "nodeSelector": {"pool": "cpu"},
            "priorityClassName": "high",
            "schedulerName": "",
            "securityContext": {"runAsUser": 1000680000, "fsGroup": None},
            "imagePullSecrets": [{"name": "mirror"}],
            "affinity": {"nodeAffinity": node, "podAntiAffinity": {"a": 1}},
            "containers": [{"name": "sidecar", "image": "x"}],
            "hostNetwork": True,
        }
    }
    model = {"uri": "hf://a/b", "cache": CLAIM}
    made = service(model=model, router={"podTemplate": patch}, llm={"podTemplate": {"spec": {}}})
    job = render(made, CONTEXT).loader
    assert job is not None
    pod = job["spec"]["template"]["spec"]
    for field in ("tolerations", "nodeSelector", "priorityClassName"):
        assert pod[field] == patch["spec"][field]
    assert pod["securityContext"]["runAsUser"] == 1000680000
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert "fsGroup" not in pod["securityContext"]
    assert {"name": "mirror"} in pod["imagePullSecrets"]
    assert pod["affinity"] == {"nodeAffinity": node}
    assert [one["name"] for one in pod["containers"]] == ["fetch"]
    assert {"hostNetwork", "schedulerName"}.isdisjoint(pod)
