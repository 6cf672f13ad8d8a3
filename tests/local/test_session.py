"""A service whose folder cannot be written to goes on, and ends as every other."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from redserve.local import session
from redserve.local.session import Session
from tests.local.fakes import LIMIT_S, QUICK, Stage

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pytest

    from redserve.local.plan import LocalPlan
    from redserve.local.state import ServiceFolder, ServiceState


class FullDisk:
    """A folder that takes no state from some moment on."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.is_full = False
        self.phases: list[str] = []

    def log_path(self, name: str) -> Path:
        return self.path / f"{name}.log"

    def write(self, state: ServiceState) -> None:
        if self.is_full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "state.json")
        self.phases.append(state.phase)


class Heard:
    """Listens."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []
        self.states: list[ServiceState] = []
        self.is_ready = asyncio.Event()
        self.news = asyncio.Event()

    def changed(self, state: ServiceState) -> None:
        self.states.append(state)
        self.news.set()

    def line(self, name: str, text: str) -> None:
        self.lines.append((name, text))

    def ready(self, state: ServiceState) -> None:
        self.is_ready.set()

    def stopping(self, *, at_once: bool) -> None:
        assert not at_once

    async def until(self, holds: Callable[[ServiceState], bool]) -> None:
        while not holds(self.states[-1]):
            self.news.clear()
            await self.news.wait()


async def test_a_full_disk_ends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "ACQUAINTANCE_S", 0.0)
    stage, folder, heard = Stage(tmp_path), FullDisk(tmp_path), Heard()
    plan: Any = SimpleNamespace(
        service=SimpleNamespace(name="demo", metadata=SimpleNamespace(namespace=None)),
        workloads=(stage.workload("encoder", "encoder-0"),),
        grpc_address="127.0.0.1:9",
        http_address=None,
        playground=False,
    )
    running = asyncio.create_task(
        Session(
            cast("LocalPlan", plan), tmp_path / "m", cast("ServiceFolder", folder), heard, QUICK
        ).run(LIMIT_S)
    )
    async with asyncio.timeout(LIMIT_S):
        await heard.is_ready.wait()
        assert folder.phases[-1] == "ready"
        folder.is_full = True
        [victim] = heard.states[-1].processes
        assert victim.pid is not None
        os.kill(victim.pid, signal.SIGKILL)
        await heard.until(lambda state: state.processes[0].num_restarts == 1)
        await heard.until(lambda state: state.phase == "ready")
        os.kill(os.getpid(), signal.SIGTERM)
        await running
    assert [line for line in stage.journal if line.endswith("stopped")] == ["encoder-0 stopped"]
    told = [text for name, text in heard.lines if name == "redserve"]
    assert told == ["(status shows what was before; state.json: No space left on device)"]
