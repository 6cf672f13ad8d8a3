from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redserve.spec.manifest import load_manifest
from redserve.spec.settings import EncoderSettings, LLMSettings, ProcessSettings, RouterSettings
from redserve.spec.ucx import PortRange, ucx_environment
from redserve.spec.workloads import (
    encoder_settings,
    llm_settings,
    router_settings,
    workloads_for,
)
from tests.spec.golden_files import MANIFESTS, golden_path, golden_text, placement
from tests.spec.manifests import EXAMPLES, service

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

SETTINGS: dict[str, type[ProcessSettings]] = {
    "encoder": EncoderSettings,
    "llm": LLMSettings,
    "router": RouterSettings,
}
SPECS = {"encoder": "spec.encoder", "llm": "spec.llm", "router": "spec.router"}


def read(kind: type[ProcessSettings], env: Mapping[str, str]) -> Any:
    """What a process with this environment reads."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in env.items():
            patch.setenv(name, value)
        return kind.from_env()


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_golden_environment(path: Path) -> None:
    assert golden_text(load_manifest(path)) == golden_path(path).read_text(), (
        "if it is meant: python -m tests.spec.golden_files"
    )


def test_every_setting_is_written() -> None:
    """A setting that is left out would be read from the environment of `redserve up`."""
    made, places = service(), placement()
    for settings in (
        encoder_settings(made, places, places.encoders[0]),
        llm_settings(made, places, places.llms[0]),
        router_settings(made, places),
    ):
        assert settings.model_fields_set == set(type(settings).model_fields)


def test_the_environment_of_the_command_does_not_leak(monkeypatch: pytest.MonkeyPatch) -> None:
    before = golden_text(service())
    for name, value in (
        encoder_settings(
            load_manifest(EXAMPLES / "tuned.yaml"), placement(), placement().encoders[1]
        )
        .to_env()
        .items()
    ):
        monkeypatch.setenv(name, value)
    assert golden_text(service()) == before


def test_every_knob_of_the_tuned_example_arrives() -> None:
    plain, tuned = service(), load_manifest(EXAMPLES / "tuned.yaml")
    places = placement()
    by_place = {
        "name", "grpc_host", "grpc_port", "advertise_address", "metrics_port", "num_threads",
        "http_host", "http_port", "encoder_addresses", "llm_addresses", "model_uri",
        "model_cache_dir", "device", "encoder_service", "llm_service", "service_namespace",
        "encoders_required", "service_account_dir", "max_connection_age_s", "playground",
    }  # fmt: skip
    # The other values of these say the same in another way.
    same = {"transport", "memory_percent", "quarantine_percent"}
    for settings in (
        lambda one: encoder_settings(one, places, places.encoders[0]),
        lambda one: llm_settings(one, places, places.llms[0]),
        lambda one: router_settings(one, places),
    ):
        left, right = settings(plain).model_dump(), settings(tuned).model_dump()
        untouched = {name for name in left if left[name] == right[name]}
        assert untouched <= by_place | same


@pytest.mark.parametrize("auto", [False, True])
@pytest.mark.parametrize("word", ["Auto", "Enabled", "Disabled"])
def test_the_manifest_decides_about_the_page_before_the_place_does(word: str, auto: bool) -> None:
    router = workloads_for(
        service(router={"playground": word}), replace(placement(), playground=auto)
    )[-1]
    expected = auto if word == "Auto" else word == "Enabled"
    assert read(RouterSettings, router.env).playground is expected


def test_addresses_of_the_pools_reach_the_router() -> None:
    workloads = workloads_for(service(), placement())
    assert [workload.name for workload in workloads] == [
        "encoder-0",
        "encoder-1",
        "llm-0",
        "router",
    ]
    router = read(RouterSettings, workloads[-1].env)
    assert router.encoder_addresses == ("127.0.0.1:7010", "127.0.0.1:7020")
    assert router.llm_addresses == ("127.0.0.1:7030",)
    assert workloads[-1].metrics_address == "127.0.0.1:7002"
    assert workloads[0].metrics_address == "127.0.0.1:7011"


def test_own_environment_wins_over_thread_limits_only() -> None:
    made = service(llm={"env": [{"name": "OMP_NUM_THREADS", "value": "3"}]})
    env = workloads_for(made, placement())[2].env
    assert env["OMP_NUM_THREADS"] == "3"
    assert env["OMP_WAIT_POLICY"] == "passive"
    assert env["REDSERVE_LLM_NUM_THREADS"] == "4"


@pytest.mark.parametrize(
    ("written", "kind"), [("Auto", "auto"), ("RDMA", "rdma"), ("TCP", "tcp"), ("GRPC", "grpc")]
)
def test_the_data_path_is_the_manifests(written: str, kind: str) -> None:
    transport = {"type": written, "rdma": {"resourceName": "rdma/ib"}}
    encoder, _, llm, router = workloads_for(service(transport=transport), placement())
    assert read(EncoderSettings, encoder.env).transport == kind
    assert read(LLMSettings, llm.env).transport == kind
    told = ucx_environment(kind)  # type: ignore[arg-type]
    for workload in (encoder, llm):
        assert {name: workload.env[name] for name in workload.env if "UCX" in name} == told
    assert not [name for name in router.env if "UCX" in name]


def test_ucx_is_told_where_it_may_listen_unless_the_manifest_says_so() -> None:
    places = replace(placement(), tcp_devices="lo", tcp_ports=PortRange(5000, 5009))
    own = [{"name": "UCX_NET_DEVICES", "value": "eth1"}, {"name": "UCX_TLS", "value": "all"}]
    made = service(transport={"type": "TCP"}, llm={"env": own})
    encoder, _, llm, _ = workloads_for(made, places)
    assert encoder.env["UCX_NET_DEVICES"] == "lo"
    assert encoder.env["UCX_TCP_PORT_RANGE"] == "5000-5009"
    assert (llm.env["UCX_NET_DEVICES"], llm.env["UCX_TLS"]) == ("eth1", "all")
    assert llm.env["REDSERVE_LLM_TRANSPORT"] == "tcp"


SIZES = st.sampled_from(["1Mi", "64Mi", "1Gi", "100M", 4_000_000, "2.5Gi"])
HOSTS = st.lists(st.from_regex(r"[a-z0-9.-]{1,20}", fullmatch=True), max_size=3)


@st.composite
def specs(draw: st.DrawFn) -> dict[str, Any]:
    def some(**fields: st.SearchStrategy[Any]) -> dict[str, Any]:
        return draw(st.fixed_dictionaries({}, optional=fields))

    hosts = draw(HOSTS)
    kv = some(kvCacheSize=SIZES) or some(memoryPercent=st.integers(1, 95))
    return {
        "model": {
            "uri": "file://model",
            **some(
                dtype=st.sampled_from(["Auto", "Float32", "BFloat16", "Float16"]),
                maxModelLength=st.integers(1, 10**6),
                revision=st.from_regex(r"[a-f0-9]{1,40}", fullmatch=True),
                name=st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1),
            ),
        },
        "encoder": some(
            batchRows=st.integers(1, 10**6),
            poolSize=SIZES,
            preprocessThreads=st.integers(1, 256),
            maxQueuedRows=st.integers(1, 10**9),
            device=st.sampled_from(["Auto", "CPU", "CUDA"]),
        ),
        "llm": {
            **kv,
            **some(
                tokenBudget=st.integers(16, 10**6),
                tpotTargetMilliseconds=st.integers(1, 60_000),
                blockSize=st.integers(1, 1024),
                minChunk=st.integers(1, 16),
                maxSequences=st.integers(1, 1000),
                prefixCache=st.sampled_from(["Enabled", "Disabled"]),
                overlap=st.sampled_from(["Enabled", "Disabled"]),
                arenaSize=SIZES,
                device=st.sampled_from(["Auto", "CPU", "CUDA"]),
            ),
        },
        "router": {
            "media": {
                "urlFetch": "Enabled" if hosts else draw(st.sampled_from(["Enabled", "Disabled"])),
                "allowedHosts": hosts,
                **some(maxImages=st.integers(0, 10_000), maxImagePixels=st.integers(1, 10**9)),
            },
            **some(
                requestTimeoutSeconds=st.integers(1, 86_400),
                openAI=st.sampled_from(["Enabled", "Disabled"]),
                playground=st.sampled_from(["Auto", "Disabled"]),
            ),
        },
        "transport": some(leaseSeconds=st.integers(1, 3600)),
    }


@given(specs())
def test_what_the_spec_says_is_what_the_service_reads(raw: dict[str, Any]) -> None:
    made, places = service(**raw), placement()
    workloads = workloads_for(made, places)
    spec = made.spec

    for workload, place in zip(workloads, (*places.encoders, *places.llms), strict=False):
        got = read(SETTINGS[workload.role], workload.env)
        pool = spec.encoder if workload.role == "encoder" else spec.llm
        assert (got.name, got.service) == (place.name, "demo")
        assert (got.grpc_port, got.num_threads) == (place.grpc_port, place.num_threads)
        assert got.device == (place.device or pool.device.lower())
        assert got.dtype == spec.model.dtype.lower()
        assert got.model_revision == (spec.model.revision or "")
        assert got.model_uri == places.model_uri

    encoder, llm = read(EncoderSettings, workloads[0].env), read(LLMSettings, workloads[2].env)
    router = read(RouterSettings, workloads[3].env)
    assert encoder.batch_rows == spec.encoder.batch_rows
    assert encoder.pool_bytes == spec.encoder.pool_size.num_bytes
    assert encoder.lease_ttl_s == spec.transport.lease_seconds
    assert encoder.max_image_pixels == router.max_image_pixels
    assert llm.token_budget == spec.llm.token_budget
    assert llm.tpot_target_ms == (spec.llm.tpot_target_milliseconds or 0)
    if spec.llm.kv_cache_size is None:
        assert (llm.kv_cache_bytes, llm.memory_percent) == (0, spec.llm.memory_percent or 50)
    else:
        assert llm.kv_cache_bytes == spec.llm.kv_cache_size.num_bytes > 0
    assert llm.max_model_length == (spec.model.max_model_length or 0)
    assert llm.prefix_cache is (spec.llm.prefix_cache == "Enabled")
    assert llm.overlap is (spec.llm.overlap == "Enabled")
    assert router.model_name == (spec.model.name or "demo")
    assert router.http_enabled is (spec.router.open_ai == "Enabled")
    assert router.playground is False
    assert router.url_allowed_hosts == spec.router.media.allowed_hosts
    assert router.request_timeout_s == spec.router.request_timeout_seconds
