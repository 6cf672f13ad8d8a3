"""`redserve up` whose embeddings travel by NIXL over TCP: answers, metrics, a killed encoder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from tests.e2e.service import ROOT, START_S, Service, manifest_text, rest_of
from tests.support.tiny_checkpoints import tiny_checkpoint

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.timeout(240)

FAMILY = "qwen2_5_vl"
ENCODERS = ("encoder-0", "encoder-1")
DEMO_S = 200.0
BYTES = "redserve_transport_bytes_total"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, checkpoints: Path) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("service")
    running = Service(folder, tiny_checkpoint(FAMILY, checkpoints), {"type": "TCP"})
    yield running
    running.close()


def test_every_byte_of_an_embedding_travels_by_nixl(service: Service) -> None:
    before = service.metric(BYTES, "llm-0", transport="tcp", direction="in")
    tokens, _ = rest_of(service.ask(1, 8))
    assert tokens == service.expected(1, 8)
    assert service.metric(BYTES, "llm-0", transport="tcp", direction="in") > before
    assert service.metric(BYTES, "llm-0", transport="grpc") == 0
    for encoder in ENCODERS:
        assert service.metric(BYTES, encoder, transport="tcp", direction="out") > 0
        assert service.metric(BYTES, encoder, transport="grpc") == 0


def test_what_is_in_use_is_told(service: Service) -> None:
    for encoder in ENCODERS:
        assert service.metric("redserve_transport_info", encoder, transport="tcp") == 1
    rows = [line.split() for line in service.status().splitlines()]
    assert sum("tcp" in row for row in rows) >= 3
    assert not any("grpc" in row for row in rows)


def test_an_encoder_killed_while_it_is_read_from(service: Service) -> None:
    rest_of(service.ask(20, 8))  # the router knows the sizes now, and need not ask the victim
    pid = service.pid("encoder-1")
    os.kill(pid, signal.SIGSTOP)
    try:
        call = service.ask(30, 8)
        assert next(call).HasField("started")
    finally:
        os.kill(pid, signal.SIGKILL)
    assert rest_of(call)[0] == service.expected(30, 8)
    service.until(
        lambda state: (
            state["phase"] == "ready"
            and any(p["name"] == "encoder-1" and p["pid"] != pid for p in state["processes"])
        ),
        START_S,
    )
    assert rest_of(service.ask(40, 3))[0] == service.expected(40, 3)


def test_the_end_of_a_process_that_is_read_from(service: Service) -> None:
    """One for each encoder: what UCX can end is that process, and no encoder."""
    readers = []
    for encoder in ENCODERS:
        pid = service.pid(encoder)
        children = Path(f"/proc/{pid}/task").glob("*/children")
        readers += [int(child) for file in children for child in file.read_text().split()]
    assert len(readers) == len(ENCODERS)
    pids = [service.pid(encoder) for encoder in ENCODERS]
    call = service.ask(50, 8)
    assert next(call).HasField("started")
    for reader in readers:
        os.kill(reader, signal.SIGKILL)
    assert rest_of(call)[0] == service.expected(50, 8)
    assert [service.pid(encoder) for encoder in ENCODERS] == pids
    assert rest_of(service.ask(60, 4))[0] == service.expected(60, 4)


def test_the_demo_answers_right(tmp_path: Path) -> None:
    manifest = yaml.safe_load((ROOT / "examples/redservice.yaml").read_text())
    manifest["spec"]["model"]["uri"] = f"file://{ROOT / 'examples/demo-model'}"
    manifest["spec"]["transport"] = {"type": "TCP"}
    path = tmp_path / "redservice.yaml"
    path.write_text(yaml.safe_dump(manifest))
    done = subprocess.run(
        [
            *(sys.executable, str(ROOT / "examples/demo.py"), "--file", str(path)),
            *("--http-port", "0", "--grpc-port", "0"),
        ],
        env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path / "run"), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=DEMO_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(Path("/sys/class/infiniband").exists(), reason="this machine has RDMA")
def test_rdma_that_is_not_there_is_no_silent_tcp(tmp_path: Path, checkpoints: Path) -> None:
    manifest = tmp_path / "redservice.yaml"
    rdma = {"type": "RDMA", "rdma": {"resourceName": "rdma/ib"}}
    manifest.write_text(manifest_text(tiny_checkpoint(FAMILY, checkpoints), rdma))
    done = subprocess.run(
        [sys.executable, "-m", "redserve.cli.main", "up", "-f", str(manifest)],
        env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path / "run"), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=START_S,
    )
    assert done.returncode == 2, done.stderr
    last = done.stderr.splitlines()[-1]
    assert "spec.transport.type: " in last
    assert "refused to start: RDMA is not to be had: no RDMA device" in last
