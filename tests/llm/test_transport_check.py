"""Measuring the way from an encoder: requests come first, labels stay few, failures are typed."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import grpc
import pytest
from prometheus_client import CollectorRegistry

from redserve.errors import (
    CorruptTransfer,
    DeadlineExceeded,
    InvalidArgument,
    Overloaded,
    PeerLost,
    RedServeError,
)
from redserve.telemetry.metrics.llm import LLMMetrics
from redserve.transport.pair_check import TransportCheck
from redserve.v1 import llm_pb2 as pb
from redserve.wire.errors import from_rpc_error
from redserve_llm import transport_check
from redserve_llm.transport_check import LONGEST_CHECK_S, TransportChecks
from tests.llm.service import TIMEOUT_S, question

if TYPE_CHECKING:
    from tests.llm.service import Service

ENCODER = "10.0.0.1:7010"


FOUND = TransportCheck(ENCODER, "tcp", num_bytes=32_000_000, seconds=0.01)


@dataclass
class FakeProber:
    """Reads no probe: `answers` has what comes of it, or it waits until it is cancelled."""

    answers: list[TransportCheck | Exception] = field(default_factory=list)
    asked: list[tuple[str, float]] = field(default_factory=list)
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    num_cancelled: int = 0

    async def check(self, address: str, deadline_s: float) -> TransportCheck:
        self.asked.append((address, deadline_s))
        self.begun.set()
        if not self.answers:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.num_cancelled += 1
                raise
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


class Bench:
    """Checks with a fake prober; `busy` says whether there is work."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.prober = FakeProber()
        self.busy = False
        self.checks = TransportChecks(
            self.prober, "tcp", lambda: self.busy, LLMMetrics(self.registry)
        )

    def speed(self, address: str) -> float | None:
        name = "redserve_transport_check_gigabytes_per_second"
        return self.registry.get_sample_value(name, {"peer": address})

    def failures(self, reason: str) -> float | None:
        name = "redserve_transport_check_failures_total"
        return self.registry.get_sample_value(name, {"reason": reason})

    async def in_the_middle(self) -> asyncio.Task[object]:
        """A check that goes on until it is cancelled."""
        task = asyncio.ensure_future(self.checks.check(ENCODER, None))
        await self.prober.begun.wait()
        return task


@pytest.fixture
def bench() -> Bench:
    return Bench()


async def test_what_is_measured_is_told_and_shown(bench: Bench) -> None:
    bench.prober.answers = [FOUND]
    measured = await bench.checks.check(ENCODER, None)
    assert measured.transport == "tcp"
    assert measured.gb_per_s == pytest.approx(3.2)
    assert bench.speed(ENCODER) == pytest.approx(3.2)


@pytest.mark.parametrize(
    ("time_left_s", "limit_s"),
    [(None, LONGEST_CHECK_S), (3600.0, LONGEST_CHECK_S), (5.0, 4.5), (-1.0, -0.9)],
)
async def test_the_probe_ends_before_the_caller_gives_up(
    bench: Bench, time_left_s: float | None, limit_s: float
) -> None:
    bench.prober.answers = [FOUND]
    await bench.checks.check(ENCODER, time_left_s)
    ((address, deadline_s),) = bench.prober.asked
    assert address == ENCODER
    assert deadline_s == pytest.approx(limit_s)


@pytest.mark.parametrize("error", [PeerLost("x"), DeadlineExceeded("x"), CorruptTransfer("x")])
async def test_a_failure_is_counted_and_takes_the_old_figure_away(
    bench: Bench, error: RedServeError
) -> None:
    bench.prober.answers = [FOUND, error]
    await bench.checks.check(ENCODER, None)
    with pytest.raises(type(error)):
        await bench.checks.check(ENCODER, None)
    assert bench.failures(error.reason) == 1
    assert bench.speed(ENCODER) is None


async def test_work_comes_first(bench: Bench) -> None:
    bench.busy = True
    with pytest.raises(Overloaded, match="there is work to do") as caught:
        await bench.checks.check(ENCODER, None)
    assert caught.value.retry_after_s
    assert bench.prober.asked == []
    assert bench.failures("OVERLOADED") == 0, "it says nothing of the encoder"


async def test_an_encoder_without_room_is_no_failure(bench: Bench) -> None:
    bench.prober.answers = [FOUND, Overloaded("no room for a probe")]
    await bench.checks.check(ENCODER, None)
    with pytest.raises(Overloaded):
        await bench.checks.check(ENCODER, None)
    assert bench.failures("OVERLOADED") == 0
    assert bench.speed(ENCODER) is not None


async def test_one_at_a_time(bench: Bench) -> None:
    running = await bench.in_the_middle()
    with pytest.raises(Overloaded, match="another check runs"):
        await bench.checks.check("10.0.0.2:7010", None)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert bench.prober.num_cancelled == 1, "whoever stops waiting ends the probe"
    bench.prober.answers = [FOUND]
    await bench.checks.check("10.0.0.2:7010", None)


async def test_it_gives_way_to_a_request(bench: Bench) -> None:
    bench.checks.give_way()
    running = await bench.in_the_middle()
    bench.checks.give_way()
    with pytest.raises(Overloaded, match="a request came"):
        await running
    assert bench.prober.num_cancelled == 1
    assert bench.failures("OVERLOADED") == 0


async def test_a_prober_that_forgets_its_limit_is_ended(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport_check, "GRACE_S", 0.01)
    with pytest.raises(DeadlineExceeded):
        await bench.checks.check(ENCODER, 0.01)
    assert bench.prober.num_cancelled == 1
    assert bench.failures("DEADLINE_EXCEEDED") == 1


@pytest.mark.parametrize("address", ["", "nowhere", ":7010", "host:", "host:grpc"])
async def test_an_address_that_is_none_is_refused(bench: Bench, address: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        await bench.checks.check(address, None)
    assert caught.value.field == "encoder_address"
    assert bench.prober.asked == []


async def test_labels_are_bounded(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport_check, "MAX_PEERS", 3)
    addresses = [f"10.0.0.{n}:7010" for n in range(5)]
    for address in [*addresses[:3], addresses[0], *addresses[3:]]:
        bench.prober.answers = [FOUND]
        await bench.checks.check(address, None)
    shown = {address for address in addresses if bench.speed(address) is not None}
    assert shown == {addresses[0], addresses[3], addresses[4]}, "those measured last"


async def test_a_real_probe_over_the_service(service: Service) -> None:
    """The fake encoder's producer serves it; the arena of 1 MiB has room for a small one only."""
    ask = pb.CheckTransportRequest(encoder_address=service.encoder.server.address)
    found = await service.stub.CheckTransport(ask, timeout=TIMEOUT_S)
    assert found.transport == "grpc"
    assert 0 < found.num_bytes <= service.replica.pool.num_bytes
    assert found.seconds > 0
    value = service.replica.registry.get_sample_value
    labels = {"peer": service.encoder.server.address}
    shown = value("redserve_transport_check_gigabytes_per_second", labels)
    assert shown == pytest.approx(found.num_bytes / found.seconds / 1e9)
    assert service.replica.pool.used_bytes == 0


async def test_while_a_request_runs_nothing_is_measured(service: Service) -> None:
    call = service.call(question("r", 1))
    await call.until("admitted")
    ask = pb.CheckTransportRequest(encoder_address=service.encoder.server.address)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await service.stub.CheckTransport(ask, timeout=TIMEOUT_S)
    assert isinstance(from_rpc_error(caught.value), Overloaded)
    await call.cancel()


async def test_nobody_at_the_address(service: Service) -> None:
    ask = pb.CheckTransportRequest(encoder_address="127.0.0.1:1")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await service.stub.CheckTransport(ask, timeout=TIMEOUT_S)
    assert isinstance(from_rpc_error(caught.value), PeerLost)
    value = service.replica.registry.get_sample_value
    assert value("redserve_transport_check_failures_total", {"reason": "PEER_LOST"}) == 1
