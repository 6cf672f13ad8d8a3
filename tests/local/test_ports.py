from __future__ import annotations

import itertools
import socket

import pytest

from redserve.errors import ConfigError
from redserve.local.ports import Wish, free_ports, reachable, take


def wish(port: int, host: str = "127.0.0.1") -> Wish:
    field = "spec.router.http"
    return Wish(host, port, f"{field}.host", f"{field}.port", "--http-port")


def test_a_free_port_is_taken_as_it_is() -> None:
    port = next(free_ports())
    assert take(wish(port)) == port


def test_zero_takes_a_free_one_that_nobody_was_promised() -> None:
    port = take(wish(0))
    assert port > 1023
    assert take(wish(0), taken=frozenset({port})) != port


def test_a_port_in_use_names_field_and_mend() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(ConfigError, match=f"port {port} on 127.0.0.1 is in use") as caught:
            take(wish(port))
    assert caught.value.field == "spec.router.http.port"
    assert "--http-port PORT" in caught.value.message


def test_a_port_asked_for_twice() -> None:
    with pytest.raises(ConfigError, match="asked for twice"):
        take(wish(5000), taken=frozenset({5000}))


@pytest.mark.parametrize("port", [0, 5000])
def test_a_foreign_address_names_the_host(port: int) -> None:
    with pytest.raises(ConfigError, match="is no address of this machine") as caught:
        take(wish(port, "192.0.2.1"))
    assert caught.value.field == "spec.router.http.host"


def test_free_ports_differ_and_are_free() -> None:
    ports = list(itertools.islice(free_ports(), 20))
    assert len(set(ports)) == 20
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", ports[0]))


def test_a_port_of_a_finished_connection_counts_as_free() -> None:
    port = next(free_ports())
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", port))
        server.listen()
        client = socket.create_connection(("127.0.0.1", port))
        accepted, _ = server.accept()
        accepted.close()  # the server closes first: its port is in TIME_WAIT now
        assert client.recv(1) == b""
        client.close()
    assert take(wish(port)) == port


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", "127.0.0.1:80"),
        ("0.0.0.0", "127.0.0.1:80"),
        ("::", "[::1]:80"),
        ("::1", "[::1]:80"),
        ("box", "box:80"),
    ],
)
def test_reachable(host: str, address: str) -> None:
    assert reachable(host, 80) == address
