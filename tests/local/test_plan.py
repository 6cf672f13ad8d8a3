from __future__ import annotations

import json
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from redserve.errors import ConfigError, ModelNotFound, UnsupportedModel
from redserve.local.machine import Machine
from redserve.local.model import resolve_model
from redserve.local.plan import Listen, plan
from tests.spec.manifests import service

if TYPE_CHECKING:
    from pathlib import Path

ANY_PORTS = {"http": {"port": 0}, "grpc": {"port": 0}}


def test_every_process_has_a_place_of_its_own() -> None:
    made = plan(
        service(encoder={"replicas": 2}, router=ANY_PORTS), Machine(4, 0), Listen(), "file:///m"
    )
    assert [workload.name for workload in made.workloads] == [
        "encoder-0",
        "encoder-1",
        "llm-0",
        "router",
    ]
    assert made.http_address is not None
    addresses = [workload.address for workload in made.workloads] + [made.http_address]
    addresses += [one.metrics_address or "" for one in made.workloads[:-1]]
    assert len(set(addresses)) == 8
    threads = [one.env["OMP_NUM_THREADS"] for one in made.workloads[:-1]]
    assert threads == ["1", "1", "2"]
    encoders = made.workloads[-1].env["REDSERVE_ROUTER_ENCODER_ADDRESSES"]
    assert encoders == f'["{made.workloads[0].address}", "{made.workloads[1].address}"]'
    assert made.grpc_address == made.workloads[-1].address


def test_the_command_line_has_the_last_word() -> None:
    listen = Listen(http_host="0.0.0.0", http_port=0, grpc_host="localhost", grpc_port=0)
    made = plan(service(), Machine(2, 0), listen, "file:///m")
    env = made.workloads[-1].env
    assert env["REDSERVE_ROUTER_HTTP_HOST"] == "0.0.0.0"
    assert made.http_address == f"127.0.0.1:{env['REDSERVE_ROUTER_HTTP_PORT']}"
    assert made.grpc_address == f"localhost:{env['REDSERVE_ROUTER_GRPC_PORT']}"


def test_tcp_stays_on_the_loopback_device() -> None:
    """UCX over TCP checks no key: whoever reaches its ports may read embeddings."""
    made = plan(
        service(router=ANY_PORTS, transport={"type": "TCP"}), Machine(2, 0), Listen(), "file:///m"
    )
    movers = [one for one in made.workloads if one.role != "router"]
    assert {one.env["UCX_NET_DEVICES"] for one in movers} == {"lo"}
    assert {one.env["UCX_TLS"] for one in movers} == {"tcp"}


def test_a_port_in_use_is_told_before_anything_starts() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        router = {"http": {"port": 0}, "grpc": {"port": port}}
        with pytest.raises(ConfigError, match="--grpc-port PORT") as caught:
            plan(service(router=router), Machine(2, 0), Listen(), "file:///m")
    assert caught.value.field == "spec.router.grpc.port"


def test_without_http_its_port_does_not_matter() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        router = {"openAI": "Disabled", "http": {"port": other.getsockname()[1]}}
        made = plan(
            service(router={**router, "grpc": {"port": 0}}), Machine(2, 0), Listen(), "file:///m"
        )
    assert made.http_address is None


def test_metrics_of_a_router_are_where_http_listens() -> None:
    listen = Listen(http_host="localhost", http_port=0, grpc_host="127.0.0.1", grpc_port=0)
    made = plan(service(), Machine(2, 0), listen, "file:///m")
    assert made.http_address is not None
    assert made.http_address.startswith("localhost:")
    assert made.workloads[-1].metrics_address == made.http_address


def test_without_http_a_router_has_a_port_for_its_metrics() -> None:
    router = {"openAI": "Disabled", "grpc": {"port": 0}}
    made = plan(service(router=router), Machine(2, 0), Listen(grpc_host="0.0.0.0"), "file:///m")
    shown = [one.metrics_address for one in made.workloads]
    assert None not in shown
    taken = {one.address for one in made.workloads}
    assert len({*shown, *taken}) == 2 * len(made.workloads)
    port = made.workloads[-1].env["REDSERVE_ROUTER_METRICS_PORT"]
    assert shown[-1] == f"127.0.0.1:{port}"


@pytest.mark.parametrize(
    ("router", "served"),
    [({}, True), ({"playground": "Disabled"}, False), ({"openAI": "Disabled"}, False)],
)
def test_the_page_is_on_unless_told_otherwise(router: dict[str, Any], served: bool) -> None:
    made = plan(service(router=ANY_PORTS | router), Machine(2, 0), Listen(), "file:///m")
    assert made.playground is served
    env = made.workloads[-1].env
    assert env["REDSERVE_ROUTER_PLAYGROUND"] == ("true" if served else "false")


def test_cpu_limits_become_threads() -> None:
    made = plan(
        service(
            encoder={"resources": {"limits": {"cpu": "1500m"}}},
            llm={"resources": {"limits": {"cpu": 3}}},
            router=ANY_PORTS,
        ),
        Machine(8, 0),
        Listen(),
        "file:///m",
    )
    assert [one.env["OMP_NUM_THREADS"] for one in made.workloads[:-1]] == ["1", "3"]


def checkpoint(folder: Path, **config: Any) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "qwen3_vl", **config}))
    (folder / "model.safetensors").write_bytes(b"")
    return folder


def test_relative_models_lie_beside_the_manifest(tmp_path: Path) -> None:
    made = checkpoint(tmp_path / "some model")
    uri = resolve_model(service(model={"uri": "file://some model"}), tmp_path)
    assert uri == made.as_uri()
    assert uri.endswith("some%20model")


def test_a_model_that_is_not_there_names_the_field(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound) as caught:
        resolve_model(service(model={"uri": "file://nothing"}), tmp_path)
    assert caught.value.field == "spec.model.uri"


def test_a_port_of_the_command_line_is_not_blamed_on_the_manifest() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        listen = Listen(http_port=other.getsockname()[1], grpc_host="192.0.2.1")
        with pytest.raises(ConfigError, match="is in use") as caught:
            plan(service(router=ANY_PORTS), Machine(2, 0), listen, "file:///m")
        assert caught.value.field == "--http-port"
    with pytest.raises(ConfigError, match="no address of this machine") as caught:
        plan(service(router=ANY_PORTS), Machine(2, 0), Listen(grpc_host="192.0.2.1"), "file:///m")
    assert caught.value.field == "--grpc-host"


@pytest.mark.parametrize(
    ("model_type", "why"), [("mllama", "cross-attention"), ("llama", "text-only model")]
)
def test_a_family_that_cannot_be_served_names_the_field(
    tmp_path: Path, model_type: str, why: str
) -> None:
    checkpoint(tmp_path / "m", model_type=model_type)
    with pytest.raises(UnsupportedModel, match=why) as caught:
        resolve_model(service(model={"uri": "file://m"}), tmp_path)
    assert caught.value.field == "spec.model.uri"


@pytest.mark.parametrize(
    "config",
    [{"max_position_embeddings": 64}, {"text_config": {"max_position_embeddings": 64}}],
    ids=["flat", "nested"],
)
def test_more_tokens_than_the_checkpoint_was_made_for(
    tmp_path: Path, config: dict[str, Any]
) -> None:
    checkpoint(tmp_path / "m", **config)
    assert resolve_model(service(model={"uri": "file://m", "maxModelLength": 64}), tmp_path)
    with pytest.raises(ConfigError, match="for 64 tokens at most, not 65") as caught:
        resolve_model(service(model={"uri": "file://m", "maxModelLength": 65}), tmp_path)
    assert caught.value.field == "spec.model.maxModelLength"


def test_the_supervisor_needs_no_torch() -> None:
    code = "import sys, redserve.cli.main; from redserve.local.model import check_config; "
    code += "from redserve.spec.model import ModelSpec; "
    code += "check_config(ModelSpec(uri='file://m'), {'model_type': 'llava'}); "
    code += "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
