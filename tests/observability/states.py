"""A service that `redserve up` runs."""

from __future__ import annotations

from typing import Final

from redserve.local.state import ProcessState, ServiceState


def process(name: str, port: int) -> ProcessState:
    own, metrics = f"127.0.0.1:{port}", f"127.0.0.1:{port + 1}"
    role = name.partition("-")[0]
    return ProcessState(name, role, "ready", 5, own, metrics, 0, f"/l/{name}.log")


STATE: Final = ServiceState(
    service="demo",
    pid=4242,
    manifest="/a/redservice.yaml",
    started_unix_s=1.0,
    phase="ready",
    grpc_address="127.0.0.1:50051",
    http_address="127.0.0.1:8000",
    processes=(process("encoder-0", 7010), process("llm-0", 7030), process("router", 7050)),
)
