"""The figure of a pair: how fast it is once it is connected, and not how long it takes to."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from redserve.errors import Overloaded, PeerLost
from redserve.transport import pair_check
from redserve.transport.base import PeerInfo
from redserve.transport.pair_check import measure
from redserve.transport.pool import Pool
from tests.transport.links import MIB

if TYPE_CHECKING:
    from redserve.transport.buffer import Buffer
    from redserve.transport.puller import Puller

PEER = PeerInfo("p-1", "tcp", "there:1")


class SlowStarter:
    """A puller that takes a second to connect, and a quarter of one for each read after that.

    Attributes:
        now_s: Seconds that have passed.
        room: Bytes that the producer has room for.
        read: Sizes of the probes that were read, in order.
        dies: Whether the second read fails.
    """

    def __init__(self) -> None:
        self.now_s = 100.0
        self.room = 1 << 30
        self.read: list[int] = []
        self.dies = False

    async def pull(self, peer: PeerInfo, key: str, region: Buffer, deadline_s: float) -> None:
        if region.num_bytes > self.room:
            raise Overloaded("no room")
        if self.dies and self.read:
            raise PeerLost("gone")
        self.now_s += 0.25 if self.read else 1.25
        self.read.append(region.num_bytes)

    def transport_to(self, peer: PeerInfo) -> str:
        return "tcp"


@pytest.fixture
def puller(monkeypatch: pytest.MonkeyPatch) -> SlowStarter:
    made = SlowStarter()
    monkeypatch.setattr(pair_check, "time", SimpleNamespace(perf_counter=lambda: made.now_s))
    return made


async def test_the_read_that_connects_is_not_the_one_that_is_measured(puller: SlowStarter) -> None:
    pool = Pool(32 * MIB)
    check = await measure(cast("Puller", puller), pool, PEER, "there:1", 60)
    assert puller.read == [32 * MIB, 32 * MIB]
    assert check.seconds == 0.25
    assert (check.transport, check.num_bytes) == ("tcp", 32 * MIB)
    assert check.gb_per_s == pytest.approx(32 * MIB / 0.25 / 1e9)
    assert pool.used_bytes == 0


async def test_a_smaller_probe_is_read_twice_too(puller: SlowStarter) -> None:
    puller.room = 8 * MIB
    check = await measure(cast("Puller", puller), Pool(32 * MIB), PEER, "there:1", 60)
    assert puller.read == [8 * MIB, 8 * MIB]
    assert (check.seconds, check.num_bytes) == (0.25, 8 * MIB)


async def test_a_pair_that_reads_once_only_has_no_figure(puller: SlowStarter) -> None:
    puller.dies = True
    pool = Pool(32 * MIB)
    with pytest.raises(PeerLost):
        await measure(cast("Puller", puller), pool, PEER, "there:1", 60)
    assert pool.used_bytes == 0
