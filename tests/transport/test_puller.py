"""The order of calls, against a scripted producer and data path."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, cast

import pytest

from redserve.errors import (
    CorruptTransfer,
    DeadlineExceeded,
    InternalError,
    PeerLost,
    RedServeError,
    TensorGone,
)
from redserve.transport import connections
from redserve.transport.base import Descriptor, PeerInfo
from redserve.transport.buffer import Segment, write
from redserve.transport.buffer import checksum as checksum_of
from redserve.transport.pool import Pool
from redserve.transport.puller import Puller
from tests.transport.links import payload, until

if TYPE_CHECKING:
    from redserve.transport.base import Producer
    from redserve.transport.buffer import Buffer

PEER = PeerInfo("p-1", "scripted", "somewhere", pool_bytes=1 << 20)
DATA = payload(1000)


def checksum() -> int:
    region = Pool(1000).alloc(1000)
    region.view[:] = DATA
    return checksum_of(region)


@dataclass
class Script:
    """A peer that does as it is told and remembers what it was asked."""

    lease: Descriptor
    now_there: str = "p-1"
    prepare_error: RedServeError | None = None
    release_error: RedServeError | None = None
    held: bool = True
    calls: list[str] = field(default_factory=list)
    gate: asyncio.Event | None = None
    pull_takes_s: float = 0.0
    keeps_deadlines: bool = True
    peers: list[str] = field(default_factory=list)

    # Producer
    async def hello(self, timeout_s: float) -> PeerInfo:
        self.calls.append("hello")
        return replace(PEER, incarnation=self.now_there)

    async def prepare(self, tensor_key: str, consumer: str, timeout_s: float) -> Descriptor:
        self.calls.append(f"prepare {tensor_key} {consumer}")
        if self.gate is not None:
            await self.gate.wait()
        if self.prepare_error is not None:
            raise self.prepare_error
        return self.lease

    async def release(self, lease_id: int, *, consumed: bool, timeout_s: float) -> bool:
        self.calls.append(f"release {lease_id} {consumed}")
        if self.release_error is not None:
            raise self.release_error
        return self.held

    # Transport; `close` is both's
    kind: str = field(default="scripted", init=False)

    def local_info(self) -> PeerInfo:
        return PeerInfo("c-1", "scripted", "")

    def add_peer(self, peer: PeerInfo) -> None:
        self.peers.append(peer.incarnation)

    def remove_peer(self, incarnation: str) -> None:
        self.peers.remove(incarnation)

    async def pull(self, descriptor: Descriptor, destination: Buffer, deadline_s: float) -> None:
        self.calls.append("pull")
        if self.keeps_deadlines and self.pull_takes_s > deadline_s:
            await asyncio.sleep(deadline_s)
            raise DeadlineExceeded("too slow")
        await asyncio.sleep(self.pull_takes_s)
        write(destination, 0, DATA.tobytes())

    def kind_for(self, incarnation: str) -> str:
        return "scripted"

    async def close(self, timeout_s: float = 0.0) -> bool:
        self.calls.append("close")
        return True


class World:
    def __init__(self, **changes: object) -> None:
        lease = Descriptor("p-1", (Segment(0, 1000),), 7, 30.0, checksum())
        self.script = Script(**{"lease": lease, **changes})  # type: ignore[arg-type]
        self.region = Pool(4096).alloc(1000)
        self.puller = Puller(
            self.script, lambda _: cast("Producer", self.script), "c-1", self.region.pool
        )

    async def pull(self, deadline_s: float = 10.0) -> None:
        await self.puller.pull(PEER, "k", self.region, deadline_s)

    @property
    def calls(self) -> list[str]:
        return self.script.calls


async def test_a_good_transfer_prepares_pulls_and_releases_once():
    world = World()
    await world.pull()
    assert world.calls == ["prepare k c-1", "pull", "release 7 True"]
    assert (world.region.view == DATA).all()
    await world.puller.close()
    assert world.calls[3:] == ["close", "close"]
    assert world.script.peers == []


@pytest.mark.parametrize("error", [PeerLost("gone"), DeadlineExceeded("slow")])
async def test_checked_bytes_are_good_although_their_producer_dies(error: RedServeError):
    world = World(release_error=error)
    await world.pull()
    assert (world.region.view == DATA).all()


@pytest.mark.parametrize("error", [PeerLost("gone"), DeadlineExceeded("slow")])
async def test_unchecked_bytes_need_the_release(error: RedServeError):
    world = World(release_error=error)
    world.script.lease = replace(world.script.lease, checksum=None)
    with pytest.raises(type(error)):
        await world.pull()


async def test_a_lease_that_no_longer_held_is_corrupt_twice_and_then_an_error():
    world = World(held=False)
    with pytest.raises(CorruptTransfer, match="had ended"):
        await world.pull()
    assert [call for call in world.calls if call.startswith("prepare")] == ["prepare k c-1"] * 2


async def test_a_read_that_outlives_its_lease_is_not_tried_again_in_the_same_room():
    """Its last bytes may still land there."""
    world = World(pull_takes_s=0.05)
    world.script.lease = replace(world.script.lease, ttl_s=0.02)
    with pytest.raises(CorruptTransfer, match="lease ended while"):
        await world.pull()
    assert world.calls.count("pull") == 1


async def test_a_data_path_that_overruns_the_lease_is_not_trusted():
    world = World(pull_takes_s=0.05, keeps_deadlines=False)
    world.script.lease = replace(world.script.lease, ttl_s=0.02)
    with pytest.raises(CorruptTransfer, match="lease ended before"):
        await world.pull()


async def test_the_own_deadline_is_no_corruption():
    world = World(pull_takes_s=5.0)
    with pytest.raises(DeadlineExceeded):
        await world.pull(deadline_s=0.2)
    assert world.calls.count("pull") == 1
    await until(lambda: world.calls[-1] == "release 7 False")


@pytest.mark.parametrize(
    "pieces",
    [
        [Segment(0, 999)],
        [Segment(0, 1001)],
        [Segment((1 << 20) - 999, 1000)],
        [Segment((1 << 20) - 10, 20), Segment(0, 980)],
    ],
)
async def test_a_lease_that_does_not_fit_never_reaches_the_data_path(pieces: list[Segment]):
    world = World()
    world.script.lease = replace(world.script.lease, segments=tuple(pieces))
    with pytest.raises(InternalError):
        await world.pull()
    await until(lambda: world.calls[-1] == "release 7 False")
    assert "pull" not in world.calls


async def test_a_lease_of_another_incarnation_is_given_back_and_the_peer_is_dead():
    world = World()
    world.script.lease = replace(world.script.lease, incarnation="p-2")
    with pytest.raises(PeerLost, match="p-2 is there now"):
        await world.pull()
    with pytest.raises(PeerLost, match="dead"):
        await world.pull()
    await world.puller.close()
    assert world.calls == ["prepare k c-1", "release 7 False", "close", "close"]


@pytest.mark.parametrize(("now_there", "kind"), [("p-1", TensorGone), ("p-2", PeerLost)])
async def test_a_tensor_that_is_gone_asks_who_is_there(now_there: str, kind: type[RedServeError]):
    world = World(prepare_error=TensorGone("no"), now_there=now_there)
    with pytest.raises(kind):
        await world.pull()
    assert world.calls[:2] == ["prepare k c-1", "hello"]


@pytest.mark.parametrize("how", ["cancel", "deadline"])
async def test_a_lease_that_comes_too_late_is_given_back(how: str):
    world = World(gate=asyncio.Event())
    running = asyncio.create_task(world.pull(deadline_s=10.0 if how == "cancel" else 0.02))
    await until(lambda: bool(world.calls))
    if how == "cancel":
        running.cancel()
    with pytest.raises((asyncio.CancelledError, DeadlineExceeded)):
        await running
    assert world.calls == ["prepare k c-1"]
    assert world.script.gate is not None
    world.script.gate.set()
    await until(lambda: world.calls == ["prepare k c-1", "release 7 False"])


async def test_a_broken_connection_closes_after_its_last_pull():
    world = World(gate=asyncio.Event(), prepare_error=PeerLost("reset"))
    both = [asyncio.create_task(world.pull()) for _ in range(2)]
    await until(lambda: len(world.calls) == 2)
    both[0].cancel()
    await asyncio.gather(both[0], return_exceptions=True)
    assert "close" not in world.calls
    assert world.script.gate is not None
    world.script.gate.set()
    with pytest.raises(PeerLost):
        await both[1]
    await until(lambda: world.calls.count("close") == 1)
    world.script.prepare_error = None  # the peer is back: a new connection finds it
    await world.pull()
    assert world.script.peers == ["p-1"]


def releases(world: World) -> list[str]:
    return [call for call in world.calls if call.startswith("release")]


@pytest.mark.parametrize("error", [PeerLost("gone"), DeadlineExceeded("stopped")])
async def test_a_release_that_was_not_heard_is_told_again_until_it_is(
    error: RedServeError, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(connections, "RELEASE_PAUSES_S", (0.001,) * 1000)
    world = World(release_error=error)
    await world.pull()
    await until(lambda: len(releases(world)) > 3)
    world.script.release_error = None
    await settled()
    told = len(releases(world))
    await world.puller.close()
    assert releases(world) == ["release 7 True"] * told, "and nothing after it was heard"


async def test_what_is_not_proven_is_told_again_as_failed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(connections, "RELEASE_PAUSES_S", (0.001,))
    world = World(release_error=DeadlineExceeded("stopped"))
    world.script.lease = replace(world.script.lease, checksum=None)
    with pytest.raises(DeadlineExceeded):
        await world.pull()
    await settled()
    assert releases(world) == ["release 7 True", "release 7 False"]


async def test_a_failed_pull_is_told_again(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(connections, "RELEASE_PAUSES_S", (0.001, 0.001))
    world = World(pull_takes_s=5.0, release_error=DeadlineExceeded("stopped"))
    with pytest.raises(DeadlineExceeded):
        await world.pull(deadline_s=0.2)
    await settled()
    assert releases(world) == ["release 7 False"] * 3


async def test_a_producer_that_is_gone_for_good_is_told_so_many_times(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(connections, "RELEASE_PAUSES_S", (0.001,) * 3)
    world = World(release_error=PeerLost("gone"))
    for _ in range(5):
        await world.pull()
    world.script.prepare_error = PeerLost("gone")
    with pytest.raises(PeerLost):
        await world.pull()
    await settled()
    assert len(releases(world)) == 5 * 4
    assert world.calls[-1] == "close", "the connection goes when nothing is told any more"
    assert world.script.peers == []


async def test_closing_waits_for_no_pause(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(connections, "RELEASE_PAUSES_S", (3600.0,))
    world = World(release_error=DeadlineExceeded("stopped"))
    await world.pull()
    async with asyncio.timeout(10):
        await world.puller.close()
    assert releases(world) == ["release 7 True"]


async def settled() -> None:
    """Nothing is told any more."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    if others:
        async with asyncio.timeout(10):
            await asyncio.gather(*others, return_exceptions=True)
    if asyncio.all_tasks() - {asyncio.current_task()}:
        await settled()


async def test_memory_of_the_dead_is_bounded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(connections, "MAX_DEAD", 3)
    world = World(prepare_error=TensorGone("no"), now_there="successor")
    for number in range(10):
        peer = replace(PEER, incarnation=f"p-{number}")
        with pytest.raises(PeerLost):
            await world.puller.pull(peer, "k", world.region, 5)
    dead = [peer.incarnation for peer in world.puller._connections._dead]
    assert dead == ["p-7", "p-8", "p-9"]
