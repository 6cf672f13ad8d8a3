"""Which way to a peer is taken, and when the other one."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace

import pytest
from prometheus_client import CollectorRegistry

from redserve.errors import DeadlineExceeded, PeerLost
from redserve.telemetry.metrics.transport import TransportMetrics
from redserve.transport import factory
from redserve.transport.base import Descriptor, PeerInDoubt, PeerInfo, PeerUnreachable
from redserve.transport.buffer import Buffer, Segment
from redserve.transport.either import FAIR_S, EitherTransport
from redserve.transport.nixl.library import version
from redserve.transport.nixl.transport import NixlTransport
from redserve.transport.pool import Pool
from tests.transport.links import linked, make_link, payload, until

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
        refuses: Whether there is no way to anybody.
        gate: What pulls wait for.
    """

    kind: str
    backend: str
    errors: list[Exception | None] = field(default_factory=list)
    num_pulls: int = 0
    peers: set[str] = field(default_factory=set)
    refuses: bool = False
    gate: asyncio.Event | None = None

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
        if self.gate is not None:
            await self.gate.wait()
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
    num_fallbacks: int = 0

    def __post_init__(self) -> None:
        self.both = EitherTransport(self.fast, self.plain, self.count)
        self.region = Pool(4096).alloc(10)

    def count(self) -> None:
        self.num_fallbacks += 1

    async def pull(self, deadline_s: float = 5) -> None:
        await self.both.pull(LEASE, self.region, deadline_s)


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
    assert world.num_fallbacks == other.num_fallbacks == 0


async def test_no_way_goes_the_other_way_at_once_because_nothing_will_land(
    capfd: pytest.CaptureFixture[str],
):
    world = World()
    world.fast.errors = [PeerUnreachable("another fabric")]
    world.both.add_peer(FAST)
    await world.pull()
    assert world.plain.num_pulls == 1
    await world.pull()
    assert (world.fast.num_pulls, world.plain.num_pulls) == (1, 2)
    assert world.both.kind_for("p-1") == "grpc"
    assert world.num_fallbacks == 2
    told = capfd.readouterr().err
    assert told.count("no RDMA to a peer that offers it, using gRPC") == 1
    assert "another fabric" in told


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
    assert (world.plain.num_pulls, world.num_fallbacks) == (0, 0)
    await world.pull()
    assert (world.plain.num_pulls, world.num_fallbacks) == (1, 1)


async def test_who_may_be_another_says_nothing_of_the_way():
    world = World()
    world.fast.errors = [PeerInDoubt("somebody else is read from"), None]
    world.both.add_peer(FAST)
    with pytest.raises(PeerLost):
        await world.pull()
    await world.pull()
    assert (world.fast.num_pulls, world.plain.num_pulls) == (2, 0)


async def test_a_request_without_time_says_nothing_of_the_way():
    world = World()
    late = DeadlineExceeded("20 ms were left")
    world.fast.errors = [late, late, None]
    world.both.add_peer(FAST)
    for _ in range(2):
        with pytest.raises(DeadlineExceeded):
            await world.pull(FAIR_S / 2)
    await world.pull(FAIR_S / 2)
    assert (world.fast.num_pulls, world.plain.num_pulls) == (3, 0)


async def test_a_peer_that_was_given_up_stays_so_when_it_is_connected_to_anew():
    """As whoever pulls does after a `PeerLost`."""
    world = World()
    world.fast.errors = [PeerLost("broke")]
    world.both.add_peer(FAST)
    with pytest.raises(PeerLost):
        await world.pull()
    world.both.remove_peer("p-1")
    world.both.add_peer(FAST)
    await world.pull()
    assert (world.fast.num_pulls, world.plain.num_pulls) == (1, 1)
    another = replace(FAST, incarnation="p-2")
    world.both.add_peer(another)
    await world.both.pull(replace(LEASE, incarnation="p-2"), world.region, 5)
    assert world.fast.num_pulls == 2


async def test_a_read_from_a_peer_that_was_removed_says_nothing_of_the_way():
    """It fails because the peer was removed."""
    world = World()
    world.fast.gate = asyncio.Event()
    world.fast.errors = [PeerLost("was given up")]
    world.both.add_peer(FAST)
    pulling = asyncio.create_task(world.pull())
    await until(lambda: world.fast.num_pulls == 1)
    world.both.remove_peer("p-1")
    world.fast.gate.set()
    with pytest.raises(PeerLost):
        await pulling
    world.both.add_peer(FAST)
    await world.pull()
    assert (world.fast.num_pulls, world.plain.num_pulls) == (2, 0)


async def test_reads_that_fail_together_give_a_peer_up_once(capfd: pytest.CaptureFixture[str]):
    world = World()
    world.fast.gate = asyncio.Event()
    world.fast.errors = [PeerLost("broke"), PeerLost("broke")]
    world.both.add_peer(FAST)
    pulling = [asyncio.create_task(world.pull()) for _ in range(2)]
    await until(lambda: world.fast.num_pulls == 2)
    world.fast.gate.set()
    for one in pulling:
        with pytest.raises(PeerLost):
            await one
    assert capfd.readouterr().err.count("no RDMA to a peer that offers it") == 1


@pytest.mark.parametrize("error", [PeerUnreachable("not his metadata"), PeerLost("broke")])
async def test_an_impostor_that_cannot_be_reached_says_nothing_of_whom_he_names(error: Exception):
    world = World()
    world.fast.errors = [error]
    world.both.add_peer(replace(FAST, address="elsewhere"))
    try:
        await world.pull()
    except PeerLost:
        assert not isinstance(error, PeerUnreachable)
    world.both.remove_peer("p-1")
    world.both.add_peer(FAST)
    await world.pull()
    assert world.both.kind_for("p-1") == "rdma"


async def test_what_fails_by_grpc_too_is_no_fallback():
    world = World()
    world.fast.errors = [PeerUnreachable("another fabric")]
    world.plain.errors = [PeerLost("is dead")]
    world.both.add_peer(FAST)
    with pytest.raises(PeerLost, match="dead"):
        await world.pull()
    assert world.num_fallbacks == 0


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
    assert world.num_fallbacks == 0


async def test_a_peer_of_another_release_is_asked_by_grpc():
    world = World()
    world.fast.refuses = True
    world.both.add_peer(FAST)
    await world.pull()
    assert (world.plain.num_pulls, world.num_fallbacks) == (1, 1)


@pytest.mark.parametrize("error", [PeerUnreachable("another fabric"), PeerLost("broke")])
async def test_metrics_of_a_process_tell_that_it_fell_back_although_it_has_rdma(
    error: Exception, monkeypatch: pytest.MonkeyPatch
):
    way = Way("rdma", "nixl", [error])
    monkeypatch.setattr(factory, "_endpoint", lambda kind, *_, **__: kind == "auto" or None)
    monkeypatch.setattr(factory, "peer_info", lambda *_: PeerInfo("c-1", "nixl", ""))
    monkeypatch.setattr(factory, "NixlTransport", lambda *_: way)
    async with linked(make_link("grpc")) as link:
        pool = link.consumer_pool
        metrics = TransportMetrics(registry := CollectorRegistry())
        puller = factory.make_consumer("auto", pool, "consumer", "", metrics)
        peer = replace(link.side.peer_info, backend="nixl")
        data = payload(1000)
        link.offer("k", data)
        destination = pool.alloc(1000)

        def metric(name: str, **labels: str) -> float | None:
            return registry.get_sample_value(name, labels)

        assert metric("redserve_transport_fallbacks_total") == 0
        if not isinstance(error, PeerUnreachable):
            with pytest.raises(PeerLost):
                await puller.pull(peer, "k", destination, 5)
            assert metric("redserve_transport_fallbacks_total") == 0
            for kind, num_failed in (("rdma", 1), ("grpc", 0)):
                errors = {"transport": kind, "reason": "PEER_LOST"}
                assert metric("redserve_transport_errors_total", **errors) == num_failed
        await puller.pull(peer, "k", destination, 5)
        assert bytes(destination.view) == bytes(data)
        assert metric("redserve_transport_fallbacks_total") == 1
        assert metric("redserve_transport_info", transport="rdma") == 1
        assert metric("redserve_transport_info", transport="grpc") is None
        by_grpc = {"transport": "grpc", "direction": "in"}
        assert metric("redserve_transport_bytes_total", **by_grpc) == 1000
        destination.free()
        await puller.close()


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
