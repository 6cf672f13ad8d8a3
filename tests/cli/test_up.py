"""`redserve up` with real processes that need no model."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.cli.machine import LIMIT_S, Machine, read_until, wait_until
from tests.local.fakes import alive

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


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
    assert lines[3] == f"  page    http://{state['http_address']}/"
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
    lines = done.stderr.splitlines()
    at = lines.index("redserve: not ready within 0.01 s:")
    accounts = [line.split(": ")[0] for line in lines[at + 1 :]]
    assert accounts == ["  encoder-0, starting", "  llm-0, starting", "  router, starting"]
    assert lines[-1].endswith("/logs/router.log")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_while_it_starts_in_the_background_leaves_nothing_behind(
    machine: Machine, number: signal.Signals, status: int
) -> None:
    machine.write(transport={"leaseSeconds": 13})  # the encoder never becomes ready
    process = machine.start("up", "--detach", "-f", str(machine.manifest))
    try:
        wait_until(lambda: machine.phases() == {"starting", "ready"})
        pids = [*machine.pids(), machine.state["pid"]]
        assert len(pids) == 4
        process.send_signal(number)
        out, err = process.communicate(timeout=LIMIT_S)
    finally:
        process.kill()
        process.communicate()
        machine.run("down")
    assert (process.returncode, out) == (status, "")
    assert err == "redserve: demo was stopped before it was ready\n"
    assert not any(alive(pid) for pid in pids)
