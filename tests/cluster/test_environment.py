"""What the spec says is what the service in the pod reads."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings

from redserve.cluster.facts import Context, Images
from redserve.cluster.render import render
from redserve.spec.placement import Place, Placement, RouterPlace
from redserve.spec.workloads import (
    SETTINGS,
    encoder_settings,
    llm_settings,
    router_settings,
)
from tests.cluster.pods import environment_of, main_of
from tests.spec.manifests import service
from tests.spec.test_workloads import read, specs

BY_PLACE = {
    "name", "grpc_host", "grpc_port", "advertise_address", "metrics_port", "num_threads",
    "http_host", "http_port", "model_uri", "model_cache_dir", "log_format", "encoder_addresses",
    "llm_addresses", "encoder_service", "llm_service", "service_namespace", "encoders_required",
    "max_connection_age_s",
}  # fmt: skip
"""What a cluster decides; everything else is as under `redserve up`."""


def under_up(raw: dict[str, Any]) -> dict[str, Any]:
    made = service(**raw)
    place = Place("", "127.0.0.1:1", "127.0.0.1", 1)
    places = Placement(RouterPlace(place, "127.0.0.1", 2), (place,), (place,))
    return {
        "encoder": encoder_settings(made, places, place),
        "llm": llm_settings(made, places, place),
        "router": router_settings(made, places),
    }


@given(specs())
@settings(max_examples=40)
def test_a_pod_reads_what_a_process_of_up_reads(raw: dict[str, Any]) -> None:
    made, local = service(**raw), under_up(raw)
    for pool, kind in SETTINGS.items():
        got = read(kind, environment_of(made, pool)).model_dump(exclude=BY_PLACE)
        assert got == local[pool].model_dump(exclude=BY_PLACE)


def test_what_ucx_is_told_in_a_pod() -> None:
    own = [{"name": "UCX_NET_DEVICES", "value": "net1"}]
    made = service(transport={"type": "TCP"}, llm={"env": own})
    encoder, llm = environment_of(made, "encoder"), environment_of(made, "llm")
    assert (encoder["UCX_NET_DEVICES"], encoder["UCX_TCP_PORT_RANGE"]) == ("eth0", "29600-29615")
    assert (llm["UCX_NET_DEVICES"], llm["REDSERVE_LLM_TRANSPORT"]) == ("net1", "tcp")
    assert not [name for name in environment_of(made, "router") if name.startswith("UCX")]


def test_what_a_cluster_decides() -> None:
    made = service(router={"grpc": {"port": 6000}, "http": {"port": 6001}})
    revision = render(made, Context("serving", Images("router:1", "encoder:1", "llm:1"))).revision
    llm = read(SETTINGS["llm"], environment_of(made, "llm"))
    assert (llm.name, llm.advertise_address) == ("llm-pod", "10.0.0.7:50051")
    assert (llm.grpc_host, llm.grpc_port, llm.metrics_port) == ("0.0.0.0", 50051, 9090)
    assert (llm.model_uri, llm.log_format) == ("file:///models/model", "json")
    router = read(SETTINGS["router"], environment_of(made, "router"))
    assert (router.advertise_address, router.grpc_port) == ("10.0.0.7:6000", 6000)
    assert (router.http_host, router.http_port) == ("0.0.0.0", 6001)
    assert router.encoder_service == f"demo-encoder-{revision}"
    assert router.llm_service == f"demo-llm-{revision}"
    assert (router.service_namespace, router.encoders_required) == ("serving", True)
    assert router.encoder_addresses == router.llm_addresses == ()


@pytest.mark.parametrize(
    ("encoder", "required"),
    [
        ({}, True),
        ({"replicas": 2}, True),
        ({"replicas": 0}, False),
        ({"scaling": {"minReplicas": 0, "maxReplicas": 1}}, False),
        ({"scaling": {"maxReplicas": 1}}, True),
    ],
)
def test_encoders_are_required_unless_there_may_be_none(
    encoder: dict[str, Any], required: bool
) -> None:
    router = read(SETTINGS["router"], environment_of(service(encoder=encoder), "router"))
    assert router.encoders_required is required


@pytest.mark.parametrize(
    ("resources", "threads"),
    [
        ({}, 4),
        ({"limits": {"cpu": "3500m"}}, 3),
        ({"limits": {"cpu": "500m"}}, 1),
        ({"requests": {"cpu": "1500m"}}, 2),
        ({"limits": {"cpu": 8}, "requests": {"cpu": 1}}, 8),
    ],
)
def test_threads_follow_the_cores(resources: dict[str, Any], threads: int) -> None:
    for pool, kind in SETTINGS.items():
        env = environment_of(service(**{pool: {"resources": resources}}), pool)
        assert read(kind, env).num_threads == threads
        assert env["OMP_NUM_THREADS"] == str(threads)


def test_threads_follow_a_pod_template_too() -> None:
    template = {"spec": {"containers": [{"name": "main", "resources": {"limits": {"cpu": 6}}}]}}
    made = service(llm={"podTemplate": template, "resources": {"limits": {"cpu": 2}}})
    assert read(SETTINGS["llm"], environment_of(made, "llm")).num_threads == 6


def test_the_manifests_own_environment() -> None:
    key = {"secretKeyRef": {"name": "a", "key": "b"}}
    threads = {"name": "OMP_NUM_THREADS", "value": "3"}
    env = [
        threads,
        {"name": "B", "valueFrom": key},
        {"name": "C"},
    ]
    container = main_of(service(llm={"env": env}), "llm")
    assert container["env"][-3:] == [
        threads,
        {"name": "B", "valueFrom": key},
        {"name": "C", "value": ""},
    ]


def test_the_settings_are_immutable() -> None:
    for pool in render(service(), Context("a", Images("r", "e", "l"))).pools:
        assert pool.config["immutable"] is True
        names = [variable["name"] for variable in main_of(service(), pool.pool)["env"]]
        assert not set(names) & set(pool.config["data"])


def test_services_do_not_put_variables_into_pods() -> None:
    """A Service called redserve-router-grpc would otherwise set REDSERVE_ROUTER_GRPC_PORT."""
    for pool in render(service(), Context("a", Images("r", "e", "l"))).pools:
        assert pool.workload["spec"]["template"]["spec"]["enableServiceLinks"] is False
