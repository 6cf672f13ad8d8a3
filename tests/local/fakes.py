"""Workloads that run the fake service, and a supervisor's surroundings."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from redserve.local.ports import free_ports
from redserve.local.restarts import RestartPolicy
from redserve.local.supervisor import Supervisor
from redserve.spec.workloads import Workload

if TYPE_CHECKING:
    from collections.abc import Callable

    from redserve.local.state import ProcessState
    from redserve.spec.placement import Role

ROOT = Path(__file__).resolve().parents[2]
QUICK = RestartPolicy(first_delay_s=0.01, max_delay_s=0.05, stable_s=30.0, max_failed_starts=4)
LIMIT_S = 40.0


@dataclass
class Stage:
    """Everything that a test sees of the processes it starts."""

    folder: Path
    lines: list[tuple[str, str]] = field(default_factory=list)
    phases: list[tuple[str, str]] = field(default_factory=list)
    states: tuple[ProcessState, ...] = ()
    news: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def journal(self) -> list[str]:
        path = self.folder / "journal"
        return path.read_text().splitlines() if path.exists() else []

    def workload(self, role: Role, name: str, drain_timeout_s: float = 5.0, **env: str) -> Workload:
        port = next(free_ports())
        return Workload(
            role=role,
            name=name,
            module="tests.local.fake_service",
            replicas=1,
            env={
                "PYTHONPATH": str(ROOT),
                "FAKE_NAME": name,
                "FAKE_PORT": str(port),
                "FAKE_JOURNAL": str(self.folder / "journal"),
                **env,
            },
            address=f"127.0.0.1:{port}",
            drain_timeout_s=drain_timeout_s,
        )

    def supervisor(self, *workloads: Workload, policy: RestartPolicy = QUICK) -> Supervisor:
        return Supervisor(
            workloads,
            log_path=lambda name: self.folder / f"{name}.log",
            on_change=self._changed,
            on_line=self._line,
            policy=policy,
        )

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(LIMIT_S):
            while not holds():
                self.news.clear()
                await self.news.wait()

    def phase_of(self, name: str) -> str:
        return next((state.phase for state in self.states if state.name == name), "")

    def _changed(self, states: tuple[ProcessState, ...]) -> None:
        for state in states:
            if (state.name, state.phase) != next(
                (seen for seen in reversed(self.phases) if seen[0] == state.name), None
            ):
                self.phases.append((state.name, state.phase))
        self.states = states
        self.news.set()

    def _line(self, name: str, text: str) -> None:
        self.lines.append((name, text))
        self.news.set()


def alive(pid: int) -> bool:
    """Whether a process runs (one that is dead and not yet reaped does not)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"
