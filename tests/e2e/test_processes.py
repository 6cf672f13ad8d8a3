"""`redserve up` with the real services as real processes, some of which are killed.

Every order that matters is forced: a stopped process (SIGSTOP) cannot have done its part when it
is killed, and the client's own events say how far a request has come.
"""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from redserve.telemetry.transport_times import transport_times
from redserve.wire.errors import from_rpc_error
from redserve.wire.types import timeline_from_proto
from tests.e2e.service import ANSWER_S, Service, rest_of
from tests.support.tiny_checkpoints import tiny_checkpoint

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.timeout(300)

FAMILY = "qwen2_5_vl"
BACK_S = 120.0


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, checkpoints: Path) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("service")
    running = Service(folder, tiny_checkpoint(FAMILY, checkpoints))
    yield running
    running.close()


def test_answers_equal_the_whole_model(service: Service) -> None:
    tokens, finished = rest_of(service.ask(1, 8))
    assert tokens == service.expected(1, 8)
    lanes = {bar.lane for bar in finished.timeline.bars if bar.name == "encode"}
    assert lanes == {"encoder-0", "encoder-1"}
    times = transport_times(timeline_from_proto(finished.timeline).bars)
    assert [item.item_index for item in times] == list(range(8))
    assert all(item.total_ns > 0 for item in times)


def test_every_pair_is_measured_and_shown(service: Service) -> None:
    end = time.monotonic() + BACK_S
    while len(pairs := measured_pairs(service)) < 2:
        assert time.monotonic() < end, service.log.read_text()
    assert {pair["transport"] for pair in pairs} == {"grpc"}
    rows = [line.split() for line in service.status().splitlines()]
    shown = {row[0]: float(row[3]) for row in rows if row[1:3] == ["llm-0", "grpc"]}
    assert shown.keys() == {"encoder-0", "encoder-1"}
    assert all(gb_per_s > 0 for gb_per_s in shown.values())
    assert sum(row[1:3] == ["serving", "grpc"] for row in rows) == 3


def measured_pairs(service: Service) -> list[dict[str, Any]]:
    pairs: list[dict[str, Any]] = service.report().get("pair_checks", [])
    assert not any(pair["error"] for pair in pairs), pairs
    return [pair for pair in pairs if pair["gb_per_s"] > 0]


@pytest.mark.parametrize("victim", ["encoder-0", "encoder-1"])
def test_an_encoder_killed_in_the_middle_costs_nothing_but_time(
    service: Service, victim: str
) -> None:
    rest_of(service.ask(20, 8))  # the router knows the sizes now, and need not ask the victim
    pid = service.pid(victim)
    os.kill(pid, signal.SIGSTOP)
    seed = 30 + int(victim[-1])
    try:
        call = service.ask(seed, 8)
        assert next(call).HasField("started")
    finally:
        os.kill(pid, signal.SIGKILL)
    tokens, _ = rest_of(call)
    assert tokens == service.expected(seed, 8)
    service.until(
        lambda state: state["phase"] == "ready" and service_pid(state, victim) != pid, BACK_S
    )
    assert rest_of(service.ask(40, 3))[0] == service.expected(40, 3)


def test_an_engine_killed_in_the_middle_is_a_typed_error_and_comes_back(service: Service) -> None:
    pid = service.pid("llm-0")
    call = service.ask(50, 2, num_tokens=3000)
    while not next(call).HasField("tokens"):
        pass
    os.kill(pid, signal.SIGKILL)
    start = time.monotonic()
    with pytest.raises(grpc.RpcError) as caught:
        rest_of(call)
    error: Any = caught.value  # a call and an error at once, which its type does not say
    assert time.monotonic() - start < ANSWER_S / 2
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert from_rpc_error(error).reason == "UNAVAILABLE"
    service.until(
        lambda state: state["phase"] == "ready" and service_pid(state, "llm-0") != pid, BACK_S
    )
    assert rest_of(service.ask(60, 4))[0] == service.expected(60, 4)


def service_pid(state: dict[str, Any], name: str) -> int | None:
    pids: list[int | None] = [p["pid"] for p in state["processes"] if p["name"] == name]
    return pids[0]
