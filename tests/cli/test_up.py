"""`redserve up` with real processes that need no model."""

from __future__ import annotations

import json
import os
import pty
import signal
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.local.fakes import ROOT, alive
from tests.spec.manifests import MINIMAL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

LIMIT_S = 40.0


class Machine:
    """A folder with a manifest, a runtime directory and a checkpoint that nobody loads."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest = folder / "redservice.yaml"
        self.env = {
            **os.environ,
            "XDG_RUNTIME_DIR": str(folder / "run"),
            "PYTHONPATH": str(ROOT),
            "CUDA_VISIBLE_DEVICES": "",
        }
        model = folder / "model"
        model.mkdir()
        (model / "config.json").write_text("{}")
        (model / "model.safetensors").write_bytes(b"")
        self.write()

    def write(self, **spec: Any) -> None:
        router = {"http": {"port": 0}, "grpc": {"port": 0}}
        made = {**MINIMAL, "spec": {**MINIMAL["spec"], "router": router, **spec}}
        self.manifest.write_text(yaml.safe_dump(made))

    def start(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(*words),
            cwd=self.folder,
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*words),
            cwd=self.folder,
            env=self.env,
            capture_output=True,
            text=True,
            check=False,
            timeout=LIMIT_S,
        )

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "tests.cli.redserve_with_fakes", *words]

    @property
    def state(self) -> dict[str, Any]:
        loaded: dict[str, Any] = json.loads(
            (self.folder / "run/redserve/demo/state.json").read_text()
        )
        return loaded

    def pids(self) -> list[int]:
        return [one["pid"] for one in self.state["processes"] if one["pid"] is not None]


def read_until(process: subprocess.Popen[str], begins: str) -> list[str]:
    """Lines of its output up to one that begins like this."""
    assert process.stdout is not None
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line.rstrip("\n"))
        if line.startswith(begins):
            return lines
    raise AssertionError(f"no line begins with {begins!r}: {lines} {process.communicate()}")


def wait_until(holds: Callable[[], bool]) -> None:
    """For what other processes do: nothing tells us."""
    end_s = time.monotonic() + LIMIT_S
    while not holds():
        assert time.monotonic() < end_s
        time.sleep(0.02)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.fixture
def up(machine: Machine) -> Iterator[subprocess.Popen[str]]:
    process = machine.start("up", "-f", str(machine.manifest))
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_up_serves_until_it_is_asked_to_stop(machine: Machine, up: subprocess.Popen[str]) -> None:
    lines = read_until(up, "  curl ")
    state = machine.state
    assert lines[0] == "demo is ready"
    assert lines[1] == f"  gRPC    {state['grpc_address']}"
    assert lines[2] == f"  OpenAI  http://{state['http_address']}/v1"
    assert state["phase"] == "ready"
    assert [one["name"] for one in state["processes"]] == ["encoder-0", "llm-0", "router"]

    chat = machine.run("chat", "hello")
    assert (chat.returncode, chat.stdout) == (0, "0 pictures, 1 messages: hello \n")
    status = json.loads(machine.run("status", "--json").stdout)
    assert {one["pool"] for one in status[0]["replicas"]} == {"encoder", "llm"}

    pids = machine.pids()
    up.send_signal(signal.SIGINT)
    _, err = up.communicate(timeout=LIMIT_S)
    assert up.returncode == 0
    assert not any(alive(pid) for pid in pids)
    model = (machine.folder / "model").as_uri()
    assert f"encoder-0 | encoder-0 on cpu with {model}" in err
    assert "stopping: router, LLM engines, encoders" in err
    stops = [line for line in err.splitlines() if "| stopped" in line]
    assert [line.split()[0] for line in stops] == ["router", "llm-0", "encoder-0"]
    assert machine.run("status").returncode == 2


def test_a_second_interrupt_does_not_wait(machine: Machine, up: subprocess.Popen[str]) -> None:
    read_until(up, "demo is ready")
    pids = machine.pids()
    chat = machine.start("chat", "for ever")
    assert chat.stdout is not None
    assert chat.stdout.read(1) == "0"  # the answer has begun and will not end
    up.send_signal(signal.SIGINT)
    wait_until(lambda: machine.state["phase"] == "draining")
    assert chat.poll() is None
    up.send_signal(signal.SIGINT)
    _, err = up.communicate(timeout=LIMIT_S)
    assert up.returncode == 0
    assert "killing every process" in err
    assert not any(alive(pid) for pid in pids)
    _, words = chat.communicate(timeout=LIMIT_S)
    assert chat.returncode == 1
    assert words.startswith("redserve: ")


def test_a_terminal_sees_progress_and_then_the_addresses(machine: Machine) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        machine.command("up", "-f", str(machine.manifest)),
        cwd=machine.folder,
        env={**machine.env, "TERM": "xterm", "COLUMNS": "120"},
        stdout=subprocess.PIPE,
        stderr=theirs,
        text=True,
    )
    os.close(theirs)
    try:
        read_until(process, "demo is ready")
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=LIMIT_S)
        shown = drain(ours)
    finally:
        process.kill()
        process.communicate()
        os.close(ours)
    assert process.returncode == 0
    for words in ("starting (", "encoder-0", "llm-0", "router", "stopping"):
        assert words in shown
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h"), "the cursor is back"


def drain(terminal: int) -> str:
    """Everything that was written to a terminal whose other side is closed."""
    parts = []
    try:
        while part := os.read(terminal, 65536):
            parts.append(part)
    except OSError:  # how Linux says that the other side is closed
        pass
    return b"".join(parts).decode()


def test_a_second_service_of_the_same_name_is_refused(
    machine: Machine, up: subprocess.Popen[str]
) -> None:
    read_until(up, "demo is ready")
    again = machine.run("up", "-f", str(machine.manifest))
    assert again.returncode == 2
    assert f"'demo' runs already (process {up.pid})" in again.stderr


def test_children_die_with_a_killed_up(machine: Machine, up: subprocess.Popen[str]) -> None:
    read_until(up, "demo is ready")
    pids = machine.pids()
    assert len(pids) == 3
    up.kill()
    up.wait()
    wait_until(lambda: not any(alive(pid) for pid in pids))
    assert machine.run("status").returncode == 2


def test_wrong_settings_fail_as_a_whole(machine: Machine) -> None:
    machine.write(llm={"tokenBudget": 13, "minChunk": 1})
    done = machine.run("up", "--quiet", "-f", str(machine.manifest))
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    assert last == (
        "redserve: llm-0 refused to start: cannot start: token_budget: 13 tokens bring no luck"
    )
    assert machine.run("status").returncode == 2


@pytest.mark.parametrize("door", ["http", "grpc"])
def test_a_port_in_use_starts_nothing(machine: Machine, door: str) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        done = machine.run("up", "-f", str(machine.manifest), f"--{door}-port", str(port))
    assert done.returncode == 2
    assert done.stderr == (
        f"redserve: spec.router.{door}.port: port {port} on 127.0.0.1 is in use; stop the process "
        f"that has it, or choose another with --{door}-port PORT (0 takes a free one)\n"
    )
    assert not (machine.folder / "run").exists()


def test_a_model_that_is_not_there(machine: Machine) -> None:
    machine.write(model={"uri": "file://nothing"})
    done = machine.run("up", "-f", str(machine.manifest))
    assert done.returncode == 2
    assert done.stderr.startswith("redserve: spec.model.uri: file://nothing: there is no folder")


def test_what_only_a_cluster_can_do(machine: Machine) -> None:
    machine.write(transport={"type": "TCP"})
    done = machine.run("up", "-f", str(machine.manifest))
    assert done.returncode == 2
    assert done.stderr.startswith("redserve: spec.transport.type: TCP needs a data path")


def test_detached_and_down(machine: Machine) -> None:
    started = machine.run("up", "--detach", "-f", str(machine.manifest))
    try:
        assert started.returncode == 0, started.stderr
        assert started.stdout.startswith("demo is ready\n")
        pids = [*machine.pids(), machine.state["pid"]]
        assert all(alive(pid) for pid in pids)
    finally:
        stopped = machine.run("down")
    assert (stopped.returncode, stopped.stdout) == (0, "demo stopped\n")
    wait_until(lambda: not any(alive(pid) for pid in pids))


def test_detached_tells_why_it_failed(machine: Machine) -> None:
    machine.write(llm={"tokenBudget": 13, "minChunk": 1})
    done = machine.run("up", "--detach", "-f", str(machine.manifest))
    assert done.returncode == 2
    assert "13 tokens bring no luck" in done.stderr.splitlines()[-1]


def test_not_ready_in_time(machine: Machine) -> None:
    done = machine.run("up", "-f", str(machine.manifest), "--start-timeout", "0.01")
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last == "redserve: not ready within 0.01 s: encoder-0, llm-0, router"
