from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from redserve.errors import ConfigError, Unavailable
from redserve.local.restarts import RestartPolicy
from tests.local.fakes import LIMIT_S, ROOT, Stage, alive

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


def starts(stage: Stage, name: str) -> list[int]:
    prefix = f"{name} started "
    return [int(line.removeprefix(prefix)) for line in stage.journal if line.startswith(prefix)]


async def test_everything_is_ready_and_stops_in_order(stage: Stage) -> None:
    supervisor = stage.supervisor(
        stage.workload("encoder", "encoder-0"),
        stage.workload("llm", "llm-0"),
        stage.workload("router", "router"),
    )
    await supervisor.start(LIMIT_S)
    assert {state.phase for state in supervisor.states} == {"ready"}
    pids = [state.pid for state in supervisor.states]
    assert all(pid is not None and alive(pid) for pid in pids)

    await supervisor.drain()

    assert {state.phase for state in supervisor.states} == {"stopped"}
    assert not any(pid is not None and alive(pid) for pid in pids)
    ends = [line for line in stage.journal if line.endswith(("stopping", "stopped"))]
    assert ends == [
        f"{name} {event}"
        for name in ("router", "llm-0", "encoder-0")
        for event in ("stopping", "stopped")
    ]
    assert ("llm-0", "hello from llm-0") in stage.lines
    assert "hello from llm-0" in (stage.folder / "llm-0.log").read_text()


async def test_crashes_are_started_again_until_it_is_ready(stage: Stage) -> None:
    supervisor = stage.supervisor(stage.workload("llm", "llm-0", FAKE_CRASHES="3"))
    await supervisor.start(LIMIT_S)
    assert len(starts(stage, "llm-0")) == 4
    assert supervisor.states[0].num_restarts == 3
    assert ("llm-0", "restarting") in stage.phases
    await supervisor.drain()


async def test_a_process_that_never_comes_up_ends_it(stage: Stage) -> None:
    supervisor = stage.supervisor(
        stage.workload("llm", "llm-0", FAKE_EXIT="1", FAKE_WORDS="no such luck"),
        stage.workload("router", "router"),
    )
    with pytest.raises(Unavailable, match=r"llm-0 ended 4 times .*exit status 1.*: no such luck"):
        await supervisor.start(LIMIT_S)
    await supervisor.drain()
    assert len(starts(stage, "llm-0")) == 4
    assert not any(alive(pid) for pid in starts(stage, "router"))


async def test_wrong_settings_are_not_tried_again(stage: Stage) -> None:
    words = "REDSERVE_LLM_DEVICE: device 'cuda' is not there"
    supervisor = stage.supervisor(
        stage.workload("llm", "llm-0", FAKE_EXIT="2", FAKE_WORDS=words),
        stage.workload("router", "router"),
    )
    with pytest.raises(ConfigError, match=f"llm-0 refused to start: {words}"):
        await supervisor.start(LIMIT_S)
    await supervisor.drain()
    assert len(starts(stage, "llm-0")) == 1


async def test_a_killed_process_comes_back_with_the_same_address(stage: Stage) -> None:
    supervisor = stage.supervisor(
        stage.workload("encoder", "encoder-0"), stage.workload("router", "router")
    )
    await supervisor.start(LIMIT_S)
    before = supervisor.states[0]
    assert before.pid is not None
    os.kill(before.pid, signal.SIGKILL)

    await stage.until(
        lambda: (
            supervisor.states[0].pid not in (None, before.pid)
            and stage.phase_of("encoder-0") == "ready"
        )
    )

    after = supervisor.states[0]
    assert (after.address, after.num_restarts) == (before.address, 1)
    assert len(starts(stage, "router")) == 1
    await supervisor.drain()


async def test_grandchildren_go_with_a_crash(stage: Stage) -> None:
    note = stage.folder / "grandchild"
    supervisor = stage.supervisor(stage.workload("llm", "llm-0", FAKE_CHILD=str(note)))
    await supervisor.start(LIMIT_S)
    grandchild = int(note.read_text())
    assert alive(grandchild)
    pid = supervisor.states[0].pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    await stage.until(lambda: supervisor.states[0].pid not in (None, pid))
    assert not alive(grandchild)
    await supervisor.drain()


async def test_whoever_does_not_become_ready_is_named(stage: Stage) -> None:
    supervisor = stage.supervisor(
        stage.workload("llm", "llm-0", FAKE_UNREADY="yes"), stage.workload("router", "router")
    )
    with pytest.raises(
        Unavailable,
        match=r"not ready within 3 s:\n  llm-0, starting: hello from llm-0; see /\S+/llm-0\.log$",
    ):
        await supervisor.start(3.0)
    await supervisor.drain()


async def test_who_comes_back_too_late_says_how_it_ended(stage: Stage) -> None:
    supervisor = stage.supervisor(
        stage.workload("llm", "llm-0", FAKE_CRASHES="1", FAKE_UNREADY="yes")
    )
    words = r"llm-0, starting \(before: exit status 1, fake crash\): hello from llm-0; see"
    with pytest.raises(Unavailable, match=words):
        await supervisor.start(5.0)
    await supervisor.drain()


async def test_three_crashes_at_the_first_start_are_enough(stage: Stage) -> None:
    words = "Traceback (most recent call last):\n  File 'x', line 1\nOSError: bad header\na warning"
    supervisor = stage.supervisor(
        stage.workload("encoder", "encoder-0", FAKE_EXIT="1", FAKE_WORDS=words),
        policy=RestartPolicy(first_delay_s=0.01, max_delay_s=0.01),
    )
    with pytest.raises(Unavailable) as caught:
        await supervisor.start(LIMIT_S)
    await supervisor.drain()
    assert caught.value.message == (
        "encoder-0 ended 3 times without being ready (exit status 1): OSError: bad header; "
        f"see {stage.folder / 'encoder-0.log'}"
    )
    assert len(starts(stage, "encoder-0")) == 3


@pytest.mark.parametrize(
    ("words", "field", "message"),
    [
        (
            "2026 [error    ] cannot start      process=llm-0 reason=CONFIG_ERROR "
            "why='token_budget: \"13\" is too few'",
            "spec.llm.tokenBudget",
            'llm-0 refused to start: token_budget: "13" is too few [CONFIG_ERROR]',
        ),
        (
            '{"event": "cannot start", "reason": "UNSUPPORTED_MODEL", "why": "no layers"}',
            "spec.model.uri",
            "llm-0 refused to start: no layers [UNSUPPORTED_MODEL]",
        ),
        (
            '{"event": "cannot start", "reason": "UNAVAILABLE", "why": "the hub is away"}',
            None,
            "llm-0 refused to start: the hub is away [UNAVAILABLE]",
        ),
    ],
    ids=["text", "json", "no field"],
)
async def test_a_refusal_is_told_in_plain_words(
    stage: Stage, words: str, field: str | None, message: str
) -> None:
    supervisor = stage.supervisor(stage.workload("llm", "llm-0", FAKE_EXIT="2", FAKE_WORDS=words))
    with pytest.raises(ConfigError) as caught:
        await supervisor.start(LIMIT_S)
    await supervisor.drain()
    assert (caught.value.field, caught.value.message) == (field, message)


async def test_kill_ends_the_deaf_at_once(stage: Stage) -> None:
    supervisor = stage.supervisor(stage.workload("llm", "llm-0", 600.0, FAKE_DEAF="yes"))
    await supervisor.start(LIMIT_S)
    draining = asyncio.create_task(supervisor.drain())
    await stage.until(lambda: stage.phase_of("llm-0") == "draining")
    supervisor.kill()
    async with asyncio.timeout(LIMIT_S):
        await draining
    assert not any(alive(pid) for pid in starts(stage, "llm-0"))


async def test_the_deaf_are_killed_when_their_time_is_over(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("redserve.local.process.GRACE_S", 0.1)
    supervisor = stage.supervisor(stage.workload("llm", "llm-0", 0.1, FAKE_DEAF="yes"))
    await supervisor.start(LIMIT_S)
    async with asyncio.timeout(LIMIT_S):
        await supervisor.drain()
    assert not any(alive(pid) for pid in starts(stage, "llm-0"))


async def test_nobody_is_started_again_while_it_drains(stage: Stage) -> None:
    supervisor = stage.supervisor(
        stage.workload("encoder", "encoder-0"),
        stage.workload("router", "router", 600.0, FAKE_DEAF="yes"),
    )
    await supervisor.start(LIMIT_S)
    draining = asyncio.create_task(supervisor.drain())
    await stage.until(lambda: stage.phase_of("router") == "draining")
    encoder = supervisor.states[0].pid
    assert encoder is not None
    os.kill(encoder, signal.SIGKILL)
    await stage.until(lambda: stage.phase_of("encoder-0") == "stopped")
    supervisor.kill()
    await draining
    assert len(starts(stage, "encoder-0")) == 1


SUPERVISE = """
import asyncio, sys
from pathlib import Path
from tests.local.fakes import LIMIT_S, Stage

async def main():
    stage = Stage(Path(sys.argv[1]))
    note = str(stage.folder / "grandchild")
    supervisor = stage.supervisor(
        stage.workload("llm", "llm-0"), stage.workload("encoder", "encoder-0", FAKE_DEAF="yes")
    )
    await supervisor.start(LIMIT_S)
    print("ready", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


def test_children_die_with_a_killed_supervisor(tmp_path: Path) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", SUPERVISE, str(tmp_path)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "ready\n"
        stage = Stage(tmp_path)
        children = starts(stage, "llm-0") + starts(stage, "encoder-0")
        assert len(children) == 2
        assert all(alive(pid) for pid in children)
    finally:
        parent.kill()
        parent.wait()
        parent.communicate()
    end_s = time.monotonic() + LIMIT_S
    while any(alive(pid) for pid in children) and time.monotonic() < end_s:
        time.sleep(0.01)  # the kernel does it; there is nothing to wait for
    assert not any(alive(pid) for pid in children)


def test_without_the_kernel_the_end_of_stdin_tells() -> None:
    code = "from redserve.local.launch import watch_stdin; import time; watch_stdin(); "
    code += "print('up', flush=True); time.sleep(600)"
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdin is not None
    assert child.stdout is not None
    assert child.stdout.readline() == "up\n"
    child.stdin.close()
    assert child.wait(LIMIT_S) == -signal.SIGKILL
    child.stdout.close()


def test_an_orphan_does_not_begin() -> None:
    command = [sys.executable, "-m", "redserve.local.launch", "1", "tests.local.fake_service"]
    done = subprocess.run(
        command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    assert done.returncode == -signal.SIGKILL
