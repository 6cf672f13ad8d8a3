"""All processes of a service: start together, live together, stop in order."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from redserve.errors import Unavailable
from redserve.local.process import ChildProcess
from redserve.local.restarts import RestartPolicy
from redserve.wire.health_client import watch_serving

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence
    from pathlib import Path

    from redserve.local.state import ProcessState
    from redserve.spec.placement import Role
    from redserve.spec.workloads import Workload

DRAIN_ORDER: Final[tuple[Role, ...]] = ("router", "llm", "encoder")
"""The door closes first; what a running request still needs goes last."""


class Supervisor:
    """Owns the child processes. Create it inside the running event loop.

        supervisor = Supervisor(workloads, log_path=..., on_change=..., on_line=...)
        try:
            await supervisor.start(timeout_s)      # every process is ready
            await supervisor.wait_for_failure()    # until something cannot be mended
        finally:
            await supervisor.drain()               # router, LLM engines, encoders

    Args:
        workloads: One per process.
        log_path: Log file of a process, by name.
        on_change: Called with the states of all processes whenever one changed.
        on_line: Called with the name of a process and a line that it wrote.
        policy: When a process that ended is started again.
        watch: As `redserve.wire.health_client.watch_serving`.
    """

    def __init__(
        self,
        workloads: Sequence[Workload],
        *,
        log_path: Callable[[str], Path],
        on_change: Callable[[tuple[ProcessState, ...]], None],
        on_line: Callable[[str, str], None],
        policy: RestartPolicy | None = None,
        watch: Callable[[str], AsyncGenerator[bool, None]] = watch_serving,
    ) -> None:
        self._on_change = on_change
        self._children = tuple(
            ChildProcess(
                workload,
                log_path(workload.name),
                policy=policy or RestartPolicy(),
                watch=watch,
                on_change=self._changed,
                on_line=_named(on_line, workload.name),
            )
            for workload in workloads
        )
        self._tasks: dict[asyncio.Task[None], ChildProcess] = {}

    @property
    def states(self) -> tuple[ProcessState, ...]:
        """What every process does now."""
        return tuple(child.state for child in self._children)

    async def start(self, timeout_s: float) -> None:
        """Start every process; returns when all are ready at once.

        Raises:
            ConfigError: A process says that its settings are wrong.
            Unavailable: A process never comes up, or not all are ready within `timeout_s` seconds.
        """
        self._tasks = {
            asyncio.create_task(child.run(), name=child.workload.name): child
            for child in self._children
        }
        everybody = asyncio.create_task(self._all_ready())
        failure = asyncio.create_task(self.wait_for_failure())
        try:
            await asyncio.wait(
                {everybody, failure}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED
            )
            if failure.done():
                await failure
            if not everybody.done():
                late = [one.account for one in self._children if not one.ready.is_set()]
                raise Unavailable("\n  ".join([f"not ready within {timeout_s:g} s:", *late]))
        finally:
            everybody.cancel()
            failure.cancel()
            await asyncio.wait({everybody, failure})

    async def wait_for_failure(self) -> None:
        """Wait until a process cannot be kept running; its error is raised."""
        done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            await task

    async def drain(self) -> None:
        """Stop all processes in order, each given its drain timeout; returns when none is left."""
        for child in self._children:
            child.let_end()
        for role in DRAIN_ORDER:
            mine = {t: c for t, c in self._tasks.items() if c.workload.role == role}
            await asyncio.gather(*(child.stop() for child in mine.values()))
            if mine:
                await asyncio.wait(mine)
        # Whoever has heard of a failure has heard of it; the others are not a second error.
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def kill(self) -> None:
        """End all processes at once; `drain` then returns soon."""
        for child in self._children:
            child.kill()

    async def _all_ready(self) -> None:
        while not all(child.ready.is_set() for child in self._children):
            for child in self._children:
                await child.ready.wait()

    def _changed(self) -> None:
        self._on_change(self.states)


def _named(on_line: Callable[[str, str], None], name: str) -> Callable[[str], None]:
    return lambda line: on_line(name, line)
