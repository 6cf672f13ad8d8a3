"""Which connections are kept: peers come and go for as long as a process lives."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from itertools import pairwise
from typing import TYPE_CHECKING, cast

import pytest

from redserve.errors import DeadlineExceeded, PeerLost
from redserve.transport import connections
from redserve.transport.base import PeerInfo
from redserve.transport.connections import Connections
from tests.support.virtual_time import in_virtual_time, now_s

if TYPE_CHECKING:
    from redserve.transport.base import Producer, Transport


class Net:
    """Transport and producers that only count.

    Attributes:
        peers: Known to the transport, as they came.
        num_open: Control paths that are not closed.
    """

    def __init__(self) -> None:
        self.peers: list[str] = []
        self.num_open = 0
        self.connections = Connections(cast("Transport", self), self._connect)

    def use(self, incarnation: str, address: str = "") -> None:
        with self.connections.use(peer(incarnation, address)):
            pass

    def add_peer(self, peer: PeerInfo) -> None:
        self.peers.append(peer.incarnation)

    def remove_peer(self, incarnation: str) -> None:
        self.peers.remove(incarnation)

    def _connect(self, peer: PeerInfo) -> Producer:
        self.num_open += 1
        return cast("Producer", self)

    async def close(self) -> None:
        self.num_open -= 1


def peer(incarnation: str, address: str = "") -> PeerInfo:
    return PeerInfo(incarnation, "scripted", address or f"at-{incarnation}")


@pytest.fixture
def net() -> Net:
    return Net()


async def settled() -> None:
    """Connections are closed in tasks of their own."""
    while others := asyncio.all_tasks() - {asyncio.current_task()}:
        await asyncio.wait(others)


async def test_a_hundred_restarts_leave_one_connection(net: Net) -> None:
    for number in range(100):
        net.use(f"p-{number}", "here")
    net.use("q", "there")
    await settled()
    assert net.peers == ["p-99", "q"]
    assert net.num_open == 2


async def test_two_that_say_to_be_the_same_share_no_connection(net: Net) -> None:
    """What is read from one of them must never be taken for the other's."""
    for address in ("here", "there", "there", "here"):
        with net.connections.use(peer("p-1", address)) as connection:
            assert connection.peer.address == address
            assert net.peers == ["p-1"]
    await settled()
    assert net.num_open == 1


async def test_the_death_of_an_impostor_is_not_that_of_whom_he_named(net: Net) -> None:
    net.use("p-1", "here")
    with net.connections.use(peer("p-1", "there")) as impostor:
        net.connections.bury(impostor)
    with pytest.raises(PeerLost, match="dead"):
        net.use("p-1", "there")
    net.use("p-1", "here")
    assert net.peers == ["p-1"]


async def test_nobody_takes_the_place_of_an_incarnation_that_is_in_use(net: Net) -> None:
    with net.connections.use(peer("p-1", "here")) as connection:
        with pytest.raises(PeerLost, match="from here, not there"):
            net.use("p-1", "there")
        net.use("p-1", "here")
        assert not connection.broken
    assert net.peers == ["p-1"]


async def test_an_incarnation_that_is_in_use_stays_until_it_is_not(net: Net) -> None:
    with net.connections.use(peer("p-1", "here")) as old:
        net.use("p-2", "here")
        assert net.peers == ["p-1", "p-2"]
        assert not old.broken, "that is for the puller to find out"
    await settled()
    assert (net.peers, net.num_open) == (["p-2"], 1)


async def test_an_old_announcement_that_comes_late_costs_a_connection_only(net: Net) -> None:
    net.use("p-2", "here")
    net.use("p-1", "here")
    net.use("p-2", "here")
    await settled()
    assert (net.peers, net.num_open) == (["p-2"], 1)


async def test_two_in_use_at_one_address_end_as_one(net: Net) -> None:
    with net.connections.use(peer("p-1", "here")):
        with net.connections.use(peer("p-2", "here")):
            net.use("p-1", "here")
        net.use("p-2", "here")
    await settled()
    assert net.num_open == len(net.peers) == 1


async def test_a_lost_peer_is_closed_as_before(net: Net) -> None:
    with pytest.raises(PeerLost), net.connections.use(peer("p-1")):
        raise PeerLost("gone")
    await settled()
    assert (net.peers, net.num_open) == ([], 0)


async def test_those_used_last_are_kept(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MAX_OPEN", 3)
    for name in ("a", "b", "c", "a", "d"):
        net.use(name)
    await settled()
    assert sorted(net.peers) == ["a", "c", "d"]
    assert net.num_open == 3


async def test_none_in_use_is_closed(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MAX_OPEN", 3)
    with ExitStack() as pulls:
        for name in "abcde":
            pulls.enter_context(net.connections.use(peer(name)))
        net.use("f")
        assert net.peers == list("abcde")
    await settled()
    assert (net.num_open, len(net.peers)) == (3, 3)
    await net.connections.close()
    assert (net.num_open, net.peers) == (0, [])


class Deaf(Net):
    """A producer that hears no release.

    Attributes:
        told: When it was told, seconds.
        hangs: Whether a try ends by its timeout, and not at once.
    """

    def __init__(self, *, hangs: bool) -> None:
        super().__init__()
        self.told: list[float] = []
        self.hangs = hangs

    async def release(self, _lease_id: int, *, consumed: bool, timeout_s: float) -> bool:
        assert not consumed
        self.told.append(now_s())
        if not self.hangs:
            raise PeerLost("nobody listens")
        await asyncio.sleep(timeout_s)
        raise DeadlineExceeded("stopped")


@pytest.mark.parametrize("hangs", [False, True], ids=["out of reach", "stopped"])
@in_virtual_time
async def test_a_release_is_told_again_four_times_within_18_s(hangs: bool) -> None:
    """With the real pauses, as docs/transport.md says; the producer has to ask after that."""
    net = Deaf(hangs=hangs)
    with net.connections.use(peer("p-1")) as connection:
        connection.release_later(7)
    await settled()
    assert len(net.told) == 1 + 4
    assert now_s() <= 18
    try_s = connections.RELEASE_TIMEOUT_S if hangs else 0.0
    pauses = [later - earlier - try_s for earlier, later in pairwise(net.told)]
    assert pauses == [pauses[0] * 2**number for number in range(4)], "each twice the last one"
    assert sum(pauses) > 5, "a peer that is stopped or cut off for some seconds hears of it"
