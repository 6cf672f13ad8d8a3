"""Which way to a peer is taken, and when the other one."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest

from redserve.errors import DeadlineExceeded, PeerLost
from redserve.transport.base import Descriptor, PeerInfo, PeerUnreachable
from redserve.transport.buffer import Buffer, Segment
from redserve.transport.either import EitherTransport
from redserve.transport.nixl.library import version
from redserve.transport.nixl.transport import NixlTransport
from redserve.transport.pool import Pool
from tests.transport.links import make_link

FAST = PeerInfo("p-1", "nixl", "there")
LEASE = Descriptor("p-1", (Segment(0, 10),), 1, 30.0, None)


@dataclass
class Way:
    """A transport that fails as it is told.

    Attributes:
        kind, backend: What it is.
        errors: Of the next pulls; None is a success, and so is everything after the last.
        num_pulls: How many were made.
        peers: Who is known.
    """

    kind: str
    backend: str
    errors: list[Exception | None] = field(default_factory=list)
    num_pulls: int = 0
    peers: set[str] = field(default_factory=set)
    refuses: bool = False

    def local_info(self) -> PeerInfo:
        return PeerInfo("c-1", self.backend, "")

    def add_peer(self, peer: PeerInfo) -> None:
        if self.refuses:
            raise PeerUnreachable("another release")
        self.peers.add(peer.incarnation)

    def remove_peer(self, incarnation: str) -> None:
        self.peers.discard(incarnation)

    async def pull(self, descriptor: Descriptor, destination: Buffer, deadline_s: float) -> None:
        assert descriptor.incarnation in self.peers
        self.num_pulls += 1
        error = self.errors.pop(0) if self.errors else None
        if error is not None:
            raise error

    def kind_for(self, incarnation: str) -> str:
        return self.kind

    async def close(self, timeout_s: float) -> bool:
        return True


@dataclass
class World:
    fast: Way = field(default_factory=lambda: Way("rdma", "nixl"))
    plain: Way = field(default_factory=lambda: Way("grpc", "grpc"))

    def __post_init__(self) -> None:
        self.both = EitherTransport(self.fast, self.plain)
        self.region = Pool(4096).alloc(10)

    async def pull(self) -> None:
        await self.both.pull(LEASE, self.region, 5)


async def test_rdma_to_who_has_it_and_grpc_to_others():
    world = World()
    world.both.add_peer(FAST)
    await world.pull()
    assert (world.fast.num_pulls, world.plain.num_pulls) == (1, 0)
    assert world.both.kind_for("p-1") == "rdma"
    other = World()
    other.both.add_peer(replace(FAST, backend="grpc"))
    await other.pull()
    assert (other.fast.num_pulls, other.plain.num_pulls) == (0, 1)
    assert other.both.kind_for("p-1") == "grpc"


async def test_no_way_goes_the_other_way_at_once_because_nothing_will_land():
    world = World()
    world.fast.errors = [PeerUnreachable("another fabric")]
    world.both.add_peer(FAST)
    await world.pull()
    assert world.plain.num_pulls == 1
    await world.pull()
    assert (world.fast.num_pulls, world.plain.num_pulls) == (1, 2)
    assert world.both.kind_for("p-1") == "grpc"


@pytest.mark.parametrize("error", [PeerLost("broke"), DeadlineExceeded("hangs")])
async def test_a_failure_before_the_first_success_is_told_and_the_next_pull_goes_the_other_way(
    error: Exception,
):
    """Not this pull: bytes of the first try may still land in its room."""
    world = World()
    world.fast.errors = [error]
    world.both.add_peer(FAST)
    with pytest.raises(type(error)):
        await world.pull()
    assert world.plain.num_pulls == 0
    await world.pull()
    assert world.plain.num_pulls == 1


async def test_what_worked_once_is_tried_again_after_a_failure():
    world = World()
    world.fast.errors = [None, PeerLost("broke"), PeerLost("broke a moment ago")]
    world.both.add_peer(FAST)
    await world.pull()
    for _ in range(2):
        with pytest.raises(PeerLost):
            await world.pull()
        world.both.remove_peer("p-1")
        world.both.add_peer(FAST)
    await world.pull()
    assert (world.fast.num_pulls, world.plain.num_pulls) == (4, 0)


async def test_a_peer_of_another_release_is_asked_by_grpc():
    world = World()
    world.fast.refuses = True
    world.both.add_peer(FAST)
    await world.pull()
    assert world.plain.num_pulls == 1


async def test_peers_that_would_harm_one_of_the_two_processes_are_refused():
    link = make_link("tcp")
    transport = link.puller._transport
    assert isinstance(transport, NixlTransport)
    good = link.side.peer_info
    transport.add_peer(good)
    assert good.library == version() != ""
    for change, words in (
        ({"library": "nixl_cu12 0.1"}, "same release"),
        ({"pool_address": 2**64 - 1}, "says that"),
        ({"pool_address": 0}, "says that"),
        ({"pool_bytes": 0}, "says that"),
        ({"pool_bytes": 2**63}, "says that"),
        ({"backend": "grpc"}, "same spec.transport.type"),
    ):
        with pytest.raises(PeerLost, match=words):
            transport.add_peer(replace(good, **change))
    await link.puller.close()
    link.side.close()
