"""Where a pool lies, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from redserve.transport.factory import KINDS
from redserve.transport.nixl import rdma
from redserve.transport.placement import choose, make_pool, place
from redserve.transport.slab import HostSlab

if TYPE_CHECKING:
    from redserve.transport.slab import Slab


class Device:
    """Memory of a device that is on the host; counts what it is asked."""

    def __init__(self, unreachable: str | None = None) -> None:
        self.unreachable = unreachable
        self.num_asked = 0
        self.sizes: list[int] = []

    def why_unreachable(self) -> str | None:
        self.num_asked += 1
        return self.unreachable

    def make_slab(self, num_bytes: int) -> Slab:
        self.sizes.append(num_bytes)
        return HostSlab(num_bytes)


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_on_the_host_has_its_embeddings_there(kind: str) -> None:
    where = choose(kind, has_device=False, no_rdma=None, unreachable=None)
    assert where.memory == "dram"


@pytest.mark.parametrize("kind", KINDS)
def test_a_device_has_them_where_rdma_is_in_use(kind: str) -> None:
    where = choose(kind, has_device=True, no_rdma=None, unreachable=None)
    assert where.memory == ("vram" if kind in ("auto", "rdma") else "dram")


def test_what_is_missing_is_told() -> None:
    no_nic = choose("auto", has_device=True, no_rdma="no RDMA device", unreachable=None)
    assert (no_nic.memory, no_nic.why) == ("dram", "no RDMA: no RDMA device")
    no_way = choose("rdma", has_device=True, no_rdma=None, unreachable="no peermem")
    assert (no_way.memory, no_way.why) == ("dram", "no peermem")


def test_the_device_is_asked_only_where_rdma_is_possible(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device("no peermem")
    monkeypatch.setattr(rdma, "missing", lambda *_: "no RDMA device")
    assert place("auto", 4096, device).why == "no RDMA: no RDMA device"
    assert device.num_asked == 0
    monkeypatch.setattr(rdma, "missing", lambda *_: None)
    assert place("auto", 4096, device).why == "no peermem"
    assert device.num_asked == 1


def test_a_pool_is_made_where_it_shall_lie(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rdma, "missing", lambda *_: None)
    device = Device()
    make_pool("tcp", 4096, device)
    make_pool("auto", 4096, None)
    assert not device.sizes
    make_pool("auto", 5000, device)
    assert device.sizes == [8192]
