"""The address that peers are told."""

from __future__ import annotations

import pytest

from redserve.errors import ConfigError
from redserve.wire.own_address import own_address


def test_the_address_that_peers_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert own_address("127.0.0.1", 7) == "127.0.0.1:7"
    monkeypatch.setattr("socket.gethostname", lambda: "pod")
    monkeypatch.setattr("socket.gethostbyname", {"pod": "10.1.2.3"}.__getitem__)
    assert own_address("0.0.0.0", 7) == "10.1.2.3:7"

    def unknown(_name: str) -> str:
        raise OSError("no such host")

    monkeypatch.setattr("socket.gethostbyname", unknown)
    with pytest.raises(ConfigError, match="advertise_address"):
        own_address("::", 7)
