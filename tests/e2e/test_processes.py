"""`redserve up` with the real services as real processes, some of which are killed.

Every order that matters is forced: a stopped process (SIGSTOP) cannot have done its part when it
is killed, and the client's own events say how far a request has come.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
import yaml

from redserve.telemetry.transport_times import transport_times
from redserve.v1 import router_pb2 as pb
from redserve.v1.router_pb2_grpc import RouterServiceStub
from redserve.v1.types_pb2 import SamplingParams
from redserve.wire.errors import from_rpc_error
from redserve.wire.types import timeline_from_proto
from tests.e2e.line import to_proto
from tests.llm.prompts import conversation, picture
from tests.support.tiny_checkpoints import reference_generate, tiny_checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.timeout(150)

ROOT = Path(__file__).resolve().parents[2]
FAMILY = "qwen2_5_vl"
NUM_TOKENS = 8
START_S = 90.0
BACK_S = 60.0
ANSWER_S = 30.0


class Service:
    """A running `redserve up`."""

    def __init__(self, folder: Path, checkpoint: Path) -> None:
        self.checkpoint = checkpoint
        self.env = {**os.environ, "XDG_RUNTIME_DIR": str(folder / "run"), "PYTHONPATH": str(ROOT)}
        manifest = folder / "redservice.yaml"
        manifest.write_text(
            yaml.safe_dump(
                {
                    "apiVersion": "redserve.dev/v1alpha1",
                    "kind": "RedService",
                    "metadata": {"name": "killed"},
                    "spec": {
                        "model": {"uri": f"file://{checkpoint}", "dtype": "Float32"},
                        "encoder": {"replicas": 2, "poolSize": "16Mi", "device": "CPU"},
                        "llm": {"replicas": 1, "kvCacheSize": "16Mi", "device": "CPU"},
                        # An engine that starts quickly enough would go on with the answer.
                        "router": {
                            "http": {"port": 0},
                            "grpc": {"port": 0},
                            "llmGraceSeconds": 0,
                        },
                    },
                }
            )
        )
        command = [sys.executable, "-m", "redserve.cli.main", "up", "-f", str(manifest)]
        self.log = folder / "up.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, env=self.env, stdout=log, stderr=log)
        self.until(lambda state: state["phase"] == "ready", START_S)
        self.channel = grpc.insecure_channel(self.state()["grpc_address"])
        self.stub = RouterServiceStub(self.channel)

    def status(self, *flags: str) -> str:
        """What `redserve status` prints; empty while there is no service."""
        command = [sys.executable, "-m", "redserve.cli.main", "status", *flags]
        done = subprocess.run(
            command, env=self.env, capture_output=True, text=True, check=False, timeout=30
        )
        return done.stdout if done.returncode == 0 else ""

    def report(self) -> dict[str, Any]:
        """The service as `redserve status --json` has it."""
        printed = self.status("--json")
        absent: dict[str, Any] = {"service": {"phase": "absent", "processes": []}}
        return json.loads(printed)[0] if printed else absent  # type: ignore[no-any-return]

    def state(self) -> dict[str, Any]:
        """What its supervisor says."""
        state: dict[str, Any] = self.report()["service"]
        return state

    def until(self, condition: Callable[[dict[str, Any]], bool], limit_s: float) -> None:
        end = time.monotonic() + limit_s
        while not condition(self.state()):
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < end, self.log.read_text()

    def pid(self, name: str) -> int:
        pids = [p["pid"] for p in self.state()["processes"] if p["name"] == name]
        assert pids[0] is not None, f"{name} does not run"
        return int(pids[0])

    def ask(self, seed: int, num_images: int, num_tokens: int = NUM_TOKENS) -> Any:
        images = [picture(seed * 10 + index) for index in range(num_images)]
        return self.stub.Generate(
            pb.GenerateRequest(
                messages=to_proto(conversation(seed, num_images), images),
                sampling=SamplingParams(temperature=0, max_tokens=num_tokens, ignore_eos=True),
                include_timeline=True,
            ),
            timeout=ANSWER_S,
        )

    def expected(self, seed: int, num_images: int) -> list[int]:
        images = [picture(seed * 10 + index) for index in range(num_images)]
        return reference_generate(
            self.checkpoint, conversation(seed, num_images), images, NUM_TOKENS
        )


def rest_of(call: Any) -> tuple[list[int], pb.Finished]:
    tokens: list[int] = []
    finished = pb.Finished()
    for event in call:
        if event.HasField("tokens"):
            tokens += [token.token_id for token in event.tokens.tokens]
        elif event.HasField("finished"):
            finished = event.finished
    return tokens, finished


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, checkpoints: Path) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("service")
    running = Service(folder, tiny_checkpoint(FAMILY, checkpoints))
    yield running
    running.channel.close()
    running.process.send_signal(signal.SIGTERM)
    assert running.process.wait(60) == 0, running.log.read_text()


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
