"""The ways between the pools are measured in the background, and nothing waits for that."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from redserve.errors import Overloaded, PeerLost
from redserve.v1 import llm_pb2
from redserve.v1 import router_pb2 as pb
from redserve_router import pair_book, pair_checks
from redserve_router.clients.llm import TransportSpeed
from redserve_router.pair_checks import PairChecks
from tests.router.cluster import Cluster, cluster, picture, question
from tests.router.fake_llm import WORDS, fast_check

if TYPE_CHECKING:
    from collections.abc import Callable

TEXT = "".join(WORDS)
LIMIT_S = 15.0


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pair_checks, "SETTLE_S", 0.0)
    monkeypatch.setattr(pair_checks, "MIN_INTERVAL_S", 0.001)
    monkeypatch.setattr(pair_book, "FIRST_BACKOFF_S", 0.01)
    monkeypatch.setattr(pair_book, "BUSY_BACKOFF_S", 0.01)


async def pairs_of(c: Cluster) -> list[pb.PairCheck]:
    response = await c.stub.ListReplicas(pb.ListReplicasRequest())
    return list(response.pair_checks)


async def until(c: Cluster, holds: Callable[[list[pb.PairCheck]], bool]) -> list[pb.PairCheck]:
    async with asyncio.timeout(LIMIT_S):
        while not holds(pairs := await pairs_of(c)):  # noqa: ASYNC110  # nobody tells
            await asyncio.sleep(0.005)
    return pairs


def all_measured(pairs: list[pb.PairCheck]) -> bool:
    return bool(pairs) and all(pair.gb_per_s > 0 for pair in pairs)


async def test_every_pair_is_measured_once() -> None:
    async with cluster(num_encoders=2, num_llms=2) as c:
        pairs = await until(c, lambda pairs: len(pairs) == 4 and all_measured(pairs))
        encoders = sorted(encoder.address for encoder in c.encoders)
        llms = sorted(llm.address for llm in c.llms)
        assert [(p.llm, p.encoder) for p in pairs] == [(r, e) for r in llms for e in encoders]
        assert {p.transport for p in pairs} == {"grpc"}
        assert [p.gb_per_s for p in pairs] == [pytest.approx(2.0)] * 4
        assert not any(p.error for p in pairs)
        assert (await c.ask(question(picture()))).text == TEXT
        for llm in c.llms:
            assert sorted(llm.journal.all("check")) == encoders
        replicas = (await c.stub.ListReplicas(pb.ListReplicasRequest())).replicas
        assert {replica.transport for replica in replicas} == {"grpc"}


async def test_a_failure_is_told_and_tried_again() -> None:
    async with cluster() as c:
        llm, answers = c.llms[0], asyncio.Semaphore(0)
        await until(c, all_measured)
        num_before = len(llm.journal.all("check"))

        async def check(address: str) -> llm_pb2.CheckTransportResponse:
            await answers.acquire()
            if len(llm.journal.all("check")) < num_before + 3:
                raise PeerLost("the encoder does not answer")
            return await fast_check(address)

        llm.check = check
        await restart_encoder(c)
        (pair,) = await until(c, bool)
        assert (pair.gb_per_s, pair.error) == (0.0, ""), "not measured yet"
        answers.release()
        (pair,) = await until(c, lambda pairs: bool(pairs and pairs[0].error))
        assert (pair.error, pair.transport, pair.gb_per_s) == ("PEER_LOST", "", 0.0)
        answers.release()
        answers.release()
        (pair,) = await until(c, all_measured)
        assert pair.error == ""


async def restart_encoder(c: Cluster) -> None:
    """Another process at the address of the first one."""
    replica = c.router.pools.encoders[0]
    old = replica.connection
    assert replica.address == c.encoders[0].address
    await c.encoders[0].kill()
    await c.encoders[0].start()
    found = await c.router.pools.find(
        lambda: True if replica.serving and replica.connection != old else None, LIMIT_S
    )
    assert found


async def test_an_encoder_that_returns_is_measured_again() -> None:
    async with cluster() as c:
        await until(c, all_measured)
        await restart_encoder(c)
        await c.llms[0].journal.wait_count("checked", 2)
        await until(c, all_measured)


async def test_a_busy_replica_is_asked_later_and_that_is_no_failure() -> None:
    async with cluster(num_encoders=2) as c:
        llm, busy = c.llms[0], True

        async def check(address: str) -> llm_pb2.CheckTransportResponse:
            if busy:
                raise Overloaded("there is work to do")
            return await fast_check(address)

        await until(c, all_measured)
        llm.check = check
        for encoder in c.encoders:
            await encoder.kill()
            await encoder.start()
        before = len(llm.journal.all("check"))
        await llm.journal.wait_count("checked", before + 3)
        pairs = await until(c, lambda pairs: len(pairs) == 2)
        assert [(p.gb_per_s, p.error) for p in pairs] == [(0.0, "")] * 2
        busy = False
        await until(c, all_measured)


async def test_nothing_waits_for_a_check_that_hangs() -> None:
    async def hang(_address: str) -> llm_pb2.CheckTransportResponse:
        await asyncio.Event().wait()
        raise AssertionError

    async with cluster(num_encoders=2) as c:
        llm = c.llms[0]
        await until(c, all_measured)
        llm.check = hang
        for encoder in c.encoders:
            await encoder.kill()
            await encoder.start()
        await llm.journal.wait_count("check", 3)
        await c.until_all_serve()
        assert c.router.why_not_ready() is None
        assert (await c.ask(question(picture()))).text == TEXT
        assert len(llm.journal.all("check")) == 3, "one at a time"
        (replica,) = c.router.pools.llms
        c.router.pools.set_llms([])
        async with asyncio.timeout(LIMIT_S):
            while not replica.closed:  # noqa: ASYNC110  # nobody tells
                await asyncio.sleep(0.005)
        assert await pairs_of(c) == []


async def test_other_checkpoints_are_no_partners() -> None:
    async with cluster(num_encoders=2) as c:
        await until(c, lambda pairs: len(pairs) == 2 and all_measured(pairs))
        c.encoders[0].fingerprint = "another"
        await restart_encoder(c)
        (pair,) = await pairs_of(c)
        assert pair.encoder == c.encoders[1].address


# -- many of them -------------------------------------------------------------------------


@dataclass
class Load:
    """What runs now, and the most that ever did."""

    running: set[str] = field(default_factory=set)
    most: int = 0
    num_checks: int = 0


@dataclass(eq=False)
class StubReplica:
    """As much of a replica as is looked at."""

    address: str
    load: Load
    serving: bool = True
    takes_work: bool = True
    closed: bool = False
    fingerprint: str = "same"
    connection: int = 1

    @property
    def client(self) -> StubReplica:
        return self

    async def check_transport(self, encoder: str, _timeout_s: float) -> TransportSpeed:
        load = self.load
        assert self.address not in load.running, "one at a time per LLM replica"
        assert encoder not in load.running, "one at a time per encoder"
        load.running |= {self.address, encoder}
        load.most = max(load.most, len(load.running) // 2)
        load.num_checks += 1
        await asyncio.sleep(0)
        load.running -= {self.address, encoder}
        return TransportSpeed("rdma", 32_000_000, 0.01)


class StubPools:
    """Pools of any size that change when told to."""

    def __init__(self, num_encoders: int, num_llms: int) -> None:
        self.load = Load()
        self.num_looks = 0
        self._encoders = tuple(StubReplica(f"e{n}:1", self.load) for n in range(num_encoders))
        self.llms = tuple(StubReplica(f"r{n}:1", self.load) for n in range(num_llms))
        self._listeners: list[Callable[[], None]] = []

    @property
    def encoders(self) -> tuple[StubReplica, ...]:
        self.num_looks += 1
        return self._encoders

    def on_change(self, listener: Callable[[], None]) -> None:
        self._listeners.append(listener)

    def change(self) -> None:
        for listener in self._listeners:
            listener()


async def most_looks(pools: StubPools, until: Callable[[], bool]) -> int:
    """How often the encoders were gone through within one turn of the event loop, at most."""
    most = 0
    async with asyncio.timeout(LIMIT_S * 3):
        while not until():
            before = pools.num_looks
            await asyncio.sleep(0)
            most = max(most, pools.num_looks - before)
    return most


async def test_a_hundred_by_a_hundred_hold_nothing_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look takes 0.1 ms: the work of one turn is bounded, and so is all of it."""
    monkeypatch.setattr(pair_checks, "MIN_INTERVAL_S", 0.0)
    pools: Any = StubPools(100, 100)
    checks = PairChecks(pools)
    checks.start()
    most = await most_looks(pools, lambda: pools.load.num_checks == 10_000)
    for encoder in pools.encoders:
        encoder.connection += 1
        pools.change()
    most = max(most, await most_looks(pools, lambda: pools.load.num_checks >= 20_000))
    assert pools.load.num_checks == 20_000
    assert pools.load.most <= pair_checks.MAX_RUNNING
    assert most <= 2 * len(pools.llms)
    assert pools.num_looks <= 5 * pools.load.num_checks
    reports = list(checks.reports())
    assert sum(map(len, reports)) == 10_000
    await checks.stop()


@pytest.mark.parametrize(("num_encoders", "num_llms"), [(1, 30), (30, 1), (3, 17)])
async def test_pools_of_unequal_size_are_measured_wholly(num_encoders: int, num_llms: int) -> None:
    pools: Any = StubPools(num_encoders, num_llms)
    checks = PairChecks(pools)
    checks.start()
    await most_looks(pools, lambda: pools.load.num_checks == num_encoders * num_llms)
    pairs = [pair for report in checks.reports() for pair in report]
    assert len({(pair.encoder, pair.llm) for pair in pairs}) == num_encoders * num_llms
    await checks.stop()


async def test_of_pools_that_are_too_large_a_part_is_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pair_checks, "MAX_PAIRS", 20)
    pools: Any = StubPools(num_encoders=9, num_llms=4)
    checks = PairChecks(pools)
    checks.start()
    await most_looks(pools, lambda: pools.load.num_checks == 20)
    assert [len(report) for report in checks.reports()] == [5, 5, 5, 5]
    pools.change()
    for _ in range(10):
        await asyncio.sleep(0)
    assert pools.load.num_checks == 20
    await checks.stop()


async def test_checks_begin_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pair_checks, "MIN_INTERVAL_S", 0.02)
    pools: Any = StubPools(num_encoders=4, num_llms=4)
    checks = PairChecks(pools)
    began = time.monotonic()
    checks.start()
    await most_looks(pools, lambda: pools.load.num_checks == 16)
    assert time.monotonic() - began >= 15 * 0.02
    await checks.stop()
