from __future__ import annotations

import re
from typing import get_args

import pytest

from redserve.spec.settings import TransportKind
from redserve.spec.ucx import PORT_RANGE, PortRange, ucx_environment, ucx_variables

KINDS: tuple[TransportKind, ...] = get_args(TransportKind)


@pytest.mark.parametrize("kind", ["grpc", "inproc"])
def test_who_needs_no_ucx_is_told_nothing(kind: TransportKind) -> None:
    assert ucx_environment(kind, net_devices="lo", port_range=PortRange(1, 2)) == {}


@pytest.mark.parametrize("kind", ["rdma", "auto"])
def test_rdma_never_turns_into_tcp(kind: TransportKind) -> None:
    told = ucx_environment(kind, net_devices="eth0", port_range=PortRange(5000, 5001))
    transports = told["UCX_TLS"].split(",")
    assert {"rc", "cuda_copy"} <= set(transports)
    assert not set(transports) & {"tcp", "all", "sm", "shm", "cma", "posix", "sysv"}
    # The interface and the ports are TCP's; RDMA has devices of its own.
    assert not [name for name in told if "TCP" in name or name == "UCX_NET_DEVICES"]


def test_tcp_is_nothing_but_tcp() -> None:
    told = ucx_environment("tcp")
    assert told["UCX_TLS"] == "tcp"
    assert "UCX_NET_DEVICES" not in told
    assert PORT_RANGE not in told


def test_where_tcp_listens() -> None:
    told = ucx_environment("tcp", net_devices="eth0", port_range=PortRange(29600, 29615))
    assert told["UCX_NET_DEVICES"] == "eth0"
    assert told[PORT_RANGE] == "29600-29615"


def test_ucx_receives_segments_as_long_as_it_sends() -> None:
    told = ucx_environment("tcp")
    assert told["UCX_TCP_TX_SEG_SIZE"] == told["UCX_TCP_RX_SEG_SIZE"]


def test_every_variable_has_a_reason() -> None:
    for kind in KINDS:
        made = ucx_variables(kind, net_devices="lo", port_range=PortRange(1, 2))
        assert len({variable.name for variable in made}) == len(made)
        for variable in made:
            assert re.fullmatch(r"UCX_[A-Z_]+", variable.name)
            assert variable.reason.endswith(".")


@pytest.mark.parametrize(
    ("text", "ports"),
    [
        ("29600-29615", PortRange(29600, 29615)),
        (" 5000 ", PortRange(5000, 5000)),
        ("0", None),
        ("9-8", None),
        ("1-65536", None),
        ("123456", None),
        ("a-b", None),
        ("", None),
    ],
)
def test_ranges_as_ucx_writes_them(text: str, ports: PortRange | None) -> None:
    assert PortRange.parse(text) == ports
    if ports is not None:
        assert PortRange.parse(str(ports)) == ports


@pytest.mark.parametrize(("first", "last"), [(0, 1), (2, 1), (1, 65_536)])
def test_no_range_of_ports(first: int, last: int) -> None:
    with pytest.raises(ValueError, match=f"{first}-{last} is no range"):
        PortRange(first, last)
