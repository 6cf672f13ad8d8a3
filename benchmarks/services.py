"""Start `redserve up` for a benchmark and ask it things."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import grpc
import yaml
from grpc_health.v1 import health_pb2, health_pb2_grpc

from redserve.v1 import router_pb2, router_pb2_grpc, types_pb2

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

UNLIMITED = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]


def free_port() -> int:
    """A port nobody listens on right now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextlib.contextmanager
def running(manifest: dict[str, object], folder: Path, ready_s: float = 180.0) -> Iterator[str]:
    """Run `redserve up` with this manifest; yields the router's gRPC address.

    Raises:
        RuntimeError: It did not become ready; the message holds the end of its log.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "redservice.yaml"
    path.write_text(yaml.safe_dump(manifest))
    grpc_port, http_port = free_port(), free_port()
    log = (folder / "up.log").open("wb")
    command = [sys.executable, "-m", "redserve.cli.main", "up", "-f", str(path)]
    command += ["--grpc-port", str(grpc_port), "--http-port", str(http_port)]
    process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    address = f"127.0.0.1:{grpc_port}"
    try:
        _wait_ready(process, address, ready_s, folder / "up.log")
        yield address
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        finally:
            process.kill()
            log.close()


def _wait_ready(process: subprocess.Popen[bytes], address: str, limit_s: float, log: Path) -> None:
    end = time.monotonic() + limit_s
    with grpc.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        while time.monotonic() < end:
            if process.poll() is not None:
                break
            with contextlib.suppress(grpc.RpcError):
                request = health_pb2.HealthCheckRequest(service="readiness")
                answer = stub.Check(request, timeout=1)
                if answer.status == health_pb2.HealthCheckResponse.SERVING:
                    return
            time.sleep(0.2)
    raise RuntimeError(f"redserve up did not become ready:\n{log.read_text()[-3000:]}")


class Client:
    """One gRPC connection to a router."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.insecure_channel(address, options=UNLIMITED)
        self._stub = router_pb2_grpc.RouterServiceStub(self._channel)

    def ask(
        self,
        pictures: list[bytes],
        text: str,
        max_tokens: int,
        metadata: tuple[tuple[str, str], ...] = (),
    ) -> tuple[float, float, int, types_pb2.Timeline]:
        """Ask once, greedy, ignoring end tokens; `metadata` goes with the call.

        Returns:
            TTFT in seconds, TPOT in seconds, output tokens, the timeline.
        """
        parts = [router_pb2.Part(image_bytes=picture) for picture in pictures]
        parts.append(router_pb2.Part(text=text))
        sampling = types_pb2.SamplingParams(temperature=0, max_tokens=max_tokens, ignore_eos=True)
        request = router_pb2.GenerateRequest(
            messages=[router_pb2.Message(role="user", parts=parts)],
            sampling=sampling,
            include_timeline=True,
        )
        start = time.perf_counter()
        stamps: list[float] = []
        timeline = types_pb2.Timeline()
        for event in self._stub.Generate(request, timeout=600, metadata=metadata):
            if event.WhichOneof("event") == "tokens":
                stamps += [time.perf_counter()] * len(event.tokens.tokens)
            elif event.WhichOneof("event") == "finished":
                timeline = event.finished.timeline
        tpot = (stamps[-1] - stamps[0]) / max(1, len(stamps) - 1)
        return stamps[0] - start, tpot, len(stamps), timeline

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()
