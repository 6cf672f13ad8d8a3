"""`redserve up` with the real services as real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import yaml
from prometheus_client.parser import text_string_to_metric_families

from redserve.v1 import router_pb2 as pb
from redserve.v1.router_pb2_grpc import RouterServiceStub
from redserve.v1.types_pb2 import SamplingParams
from tests.e2e.line import to_proto
from tests.llm.prompts import conversation, picture
from tests.support.tiny_checkpoints import reference_generate

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parents[2]
NUM_TOKENS = 8
START_S = 120.0
ANSWER_S = 30.0
NAME = "killed"
_POLL_S = 0.05


def manifest_text(
    checkpoint: Path,
    transport: dict[str, Any] | None = None,
    slos: tuple[dict[str, Any], ...] = (),
    router: dict[str, Any] | None = None,
    pools: dict[str, dict[str, Any]] | None = None,
    monitoring: dict[str, Any] | None = None,
    namespace: str | None = None,
) -> str:
    """Two encoders and an engine on any free ports; `pools` has more of their fields."""
    spec: dict[str, Any] = {
        "model": {"uri": f"file://{checkpoint}", "dtype": "Float32"},
        "encoder": {"replicas": 2, "poolSize": "16Mi", "device": "CPU"},
        "llm": {"replicas": 1, "kvCacheSize": "16Mi", "device": "CPU"},
        # An engine that starts quickly enough would go on with the answer.
        "router": {"http": {"port": 0}, "grpc": {"port": 0}, "llmGraceSeconds": 0} | (router or {}),
        "transport": transport or {},
        "slos": list(slos),
        "monitoring": monitoring or {},
    }
    for pool, fields in (pools or {}).items():
        spec[pool] |= fields
    return yaml.safe_dump(
        {
            "apiVersion": "redserve.dev/v1alpha1",
            "kind": "RedService",
            "metadata": {"name": NAME} | ({"namespace": namespace} if namespace else {}),
            "spec": spec,
        }
    )


class Service:
    """A running `redserve up`.

    Args:
        folder: For its files.
        checkpoint: What it serves.
        transport: `spec.transport` of its manifest.
        slos: `spec.slos`.
        router: More of `spec.router`.
        pools: More of `spec.encoder` and `spec.llm`.
        module: What is run instead of the `redserve` command.
        monitoring: `spec.monitoring`.
        namespace: `metadata.namespace`.
    """

    def __init__(
        self,
        folder: Path,
        checkpoint: Path,
        transport: dict[str, Any] | None = None,
        *,
        slos: tuple[dict[str, Any], ...] = (),
        router: dict[str, Any] | None = None,
        pools: dict[str, dict[str, Any]] | None = None,
        module: str = "redserve.cli.main",
        monitoring: dict[str, Any] | None = None,
        namespace: str | None = None,
    ) -> None:
        self.checkpoint = checkpoint
        self._state_file = folder / f"run/redserve/{NAME}/state.json"
        self.env = {**os.environ, "XDG_RUNTIME_DIR": str(folder / "run"), "PYTHONPATH": str(ROOT)}
        self.manifest = folder / "redservice.yaml"
        self.manifest.write_text(
            manifest_text(checkpoint, transport, slos, router, pools, monitoring, namespace)
        )
        command = [sys.executable, "-m", module, "up", "-f", str(self.manifest)]
        self.log = folder / "up.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, env=self.env, stdout=log, stderr=log)
        try:
            self.until(lambda state: state["phase"] == "ready", START_S)
        except BaseException:
            self.process.kill()  # its children die with it
            self.process.wait()
            raise
        self.channel = grpc.insecure_channel(self.state()["grpc_address"])
        self.stub = RouterServiceStub(self.channel)

    def status(self, *flags: str) -> str:
        """What `redserve status` prints; empty while there is no service."""
        return self.command("status", *flags)

    def command(self, *words: str) -> str:
        """What a command prints; empty when it fails."""
        command = [sys.executable, "-m", "redserve.cli.main", *words]
        done = subprocess.run(
            command, env=self.env, capture_output=True, text=True, check=False, timeout=60
        )
        return done.stdout if done.returncode == 0 else ""

    def report(self) -> dict[str, Any]:
        """The service as `redserve status --json` has it."""
        printed = self.status("--json")
        return json.loads(printed)[0] if printed else {}

    def state(self) -> dict[str, Any]:
        """What its supervisor says, without a command that takes a second to start."""
        try:
            return json.loads(self._state_file.read_text())  # type: ignore[no-any-return]
        except FileNotFoundError:
            return {"phase": "absent", "processes": []}

    def until(self, condition: Callable[[dict[str, Any]], bool], limit_s: float) -> None:
        end = time.monotonic() + limit_s
        while not condition(self.state()):
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < end, self.log.read_text()
            time.sleep(_POLL_S)

    def pid(self, name: str) -> int:
        pids = [p["pid"] for p in self.state()["processes"] if p["name"] == name]
        assert pids[0] is not None, f"{name} does not run"
        return int(pids[0])

    def metric(self, name: str, process: str, **labels: str) -> float:
        """The sum of the samples that one process has under a name and these labels."""
        found = [p for p in self.state()["processes"] if p["name"] == process]
        with urllib.request.urlopen(f"http://{found[0]['metrics_address']}/metrics") as page:
            families = text_string_to_metric_families(page.read().decode())
        return sum(
            sample.value
            for family in families
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def close(self) -> None:
        """Let it drain and end."""
        self.channel.close()
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(60) == 0, self.log.read_text()

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
