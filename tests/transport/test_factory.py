"""Starts that are refused, and what they say."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from prometheus_client import CollectorRegistry

from redserve.errors import ConfigError
from redserve.telemetry.metrics.transport import TransportMetrics
from redserve.transport import factory
from redserve.transport.factory import make_consumer, make_producer
from redserve.transport.nixl import rdma, tcp
from redserve.transport.nixl.library import AgentError
from redserve.transport.placement import make_pool
from redserve.transport.pool import Pool
from redserve.transport.producer_side import ProducerSide

if TYPE_CHECKING:
    from collections.abc import Callable


def no_agent(*_: object, **__: object) -> None:
    raise AgentError("UCX cannot start: NIXL_ERR_BACKEND")


def unexpected(*_: object, **__: object) -> None:
    raise AssertionError("an agent was made")


def consumer(kind: str) -> object:
    return make_consumer(kind, Pool(4096), "c", "", None)


def producer(kind: str) -> object:
    return make_producer(
        kind, make_pool(kind, 4096, None, is_source=True), "p", "127.0.0.1:1", 1.0, None
    )


@pytest.mark.parametrize(
    "transports", ["tcp", "\\tcp", "tcp,self", "cuda_copy, cuda_ipc,tcp", "self,tcp"]
)
def test_tcp_alone(transports: str) -> None:
    assert tcp.wrong({"UCX_TLS": transports}) is None


@pytest.mark.parametrize(
    "transports", ["", "all", "rc", "self", "tcp,", "cma,tcp", "tcp,sm", "rc,tcp", "^sm", "t*"]
)
@pytest.mark.parametrize("make", [consumer, producer])
def test_what_is_not_tcp_is_not_called_so(
    make: Callable[[str], object], transports: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(factory, "Endpoint", unexpected)
    monkeypatch.setattr(factory, "ReadServer", unexpected)
    monkeypatch.setenv("UCX_TLS", transports)
    with pytest.raises(ConfigError) as caught:
        make("tcp")
    assert caught.value.field == "spec.transport.type"
    assert f"UCX_TLS={transports or '(not set)'} is not TCP alone" in caught.value.message
    assert "write type RDMA or Auto" in caught.value.message


@pytest.mark.parametrize("ports", ["", "abc", "9-8", "1-65536", "0", "29600:29615"])
def test_a_range_of_ports_that_is_none(ports: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(factory, "Endpoint", unexpected)
    monkeypatch.setattr(factory, "ReadServer", unexpected)
    monkeypatch.setenv("UCX_TLS", "tcp")
    monkeypatch.setenv("UCX_TCP_PORT_RANGE", ports)
    with pytest.raises(ConfigError, match=f"UCX_TCP_PORT_RANGE={ports} is no range of ports"):
        producer("tcp")


@pytest.mark.parametrize("kind", ["tcp", "rdma"])
def test_what_the_library_was_told_is_said(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(factory, "Endpoint", no_agent)
    monkeypatch.setattr(rdma, "missing", lambda *_: None)
    monkeypatch.setenv("UCX_TLS", "tcp")
    monkeypatch.setenv("UCX_NET_DEVICES", "eth7")
    monkeypatch.setenv("UCX_TCP_PORT_RANGE", "29600-29615")
    monkeypatch.setenv("UCX_TCP_TX_SEG_SIZE", "banana")
    with pytest.raises(ConfigError) as caught:
        consumer(kind)
    said = caught.value.message
    assert said.startswith(f"{kind.upper()} is not to be had: UCX cannot start: NIXL_ERR_BACKEND (")
    for told in ("UCX_NET_DEVICES=eth7", "UCX_TCP_PORT_RANGE=29600-29615", "UCX_TLS=tcp"):
        assert told in said
    assert "UCX_TCP_TX_SEG_SIZE=banana" in said, "whatever it was told may be the reason"
    assert said.endswith("; UCX's own lines in the log say why)")


def test_auto_goes_on_by_grpc(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(factory, "Endpoint", no_agent)
    monkeypatch.setattr(rdma, "missing", lambda *_: None)
    monkeypatch.delenv("UCX_TLS")
    made = producer("auto")
    assert isinstance(made, ProducerSide)
    assert made.transport == "grpc"
    made.close()
    told = capfd.readouterr().err
    assert "embeddings move by gRPC" in told
    assert "UCX cannot start" in told


def test_the_state_of_a_pool_is_shown() -> None:
    registry = CollectorRegistry()
    pool = Pool(4 * 4096)
    made = make_consumer("grpc", pool, "c", "", TransportMetrics(registry))

    def shown() -> tuple[float | None, ...]:
        return tuple(
            registry.get_sample_value("redserve_transport_pool_bytes", {"state": state})
            for state in ("used", "free", "quarantined")
        )

    assert shown() == (0, 4 * 4096, 0)
    region = pool.alloc(5000)
    assert shown() == (2 * 4096, 2 * 4096, 0)
    region.hold()
    region.free()
    assert shown() == (2 * 4096, 2 * 4096, 2 * 4096)
    region.unhold()
    assert shown() == (0, 4 * 4096, 0)
    asyncio.run(made.close())
