"""The life of `redserve up` after planning: start, tell, wait for a signal, stop."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Final, Protocol

from redserve.errors import RedServeError
from redserve.local.state import ServiceFolder, ServiceState, hold, with_processes
from redserve.local.supervisor import Supervisor
from redserve.wire.router_client import RouterClient

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from redserve.local.plan import LocalPlan
    from redserve.local.restarts import RestartPolicy
    from redserve.local.state import ProcessState

ACQUAINTANCE_S: Final = 30.0
"""Longest wait until the router has met every replica, seconds; each of them is ready by then."""
_POLL_S: Final = 0.1
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Listener(Protocol):
    """Hears what happens; shows it."""

    def changed(self, state: ServiceState) -> None:
        """A process changed its phase."""
        ...

    def line(self, name: str, text: str) -> None:
        """A process wrote a line."""
        ...

    def ready(self, state: ServiceState) -> None:
        """Every process is ready, for the first time."""
        ...

    def stopping(self, *, at_once: bool) -> None:
        """Processes are asked to end, or (`at_once`) killed."""
        ...


class Session:
    """One run of a service on this machine.

    Args:
        plan: What to start.
        manifest: Path of the manifest, for `redserve status`.
        folder: Where the state and the logs go.
        listener: Who is told.
        policy: When processes are started again.
    """

    def __init__(
        self,
        plan: LocalPlan,
        manifest: Path,
        folder: ServiceFolder,
        listener: Listener,
        policy: RestartPolicy | None = None,
    ) -> None:
        self._folder = folder
        self._listener = listener
        self._stop = asyncio.Event()
        self._draining = False
        self._announced = False
        self._is_stale = False  # whether the folder has an older state than this one
        self._num_replicas = sum(one.role != "router" for one in plan.workloads)
        self._state = ServiceState(
            service=plan.service.name,
            pid=os.getpid(),
            manifest=str(manifest.resolve()),
            started_unix_s=time.time(),
            phase="starting",
            grpc_address=plan.grpc_address,
            http_address=plan.http_address,
            playground=plan.playground,
            namespace=plan.service.metadata.namespace,
        )
        self._supervisor = Supervisor(
            plan.workloads,
            log_path=folder.log_path,
            on_change=self._changed,
            on_line=listener.line,
            policy=policy,
        )

    async def run(self, start_timeout_s: float) -> None:
        """Run until a signal asks to stop; no process is left when it returns or raises.

        Raises:
            ConfigError: A process refused its settings.
            Unavailable: A process did not come up, or not in time.
        """
        with _signals(self._on_signal):
            life = asyncio.create_task(self._live(start_timeout_s))
            stop = asyncio.create_task(self._stop.wait())
            try:
                await asyncio.wait({life, stop}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                stop.cancel()
                failed = life.done()
                life.cancel()
                await asyncio.wait({life})
                await self._drain()
            if failed:
                await life

    async def _live(self, start_timeout_s: float) -> None:
        await self._supervisor.start(start_timeout_s)
        await self._until_acquainted()
        self._announced = True
        self._changed(self._supervisor.states)
        self._listener.ready(self._state)
        await self._supervisor.wait_for_failure()

    async def _until_acquainted(self) -> None:
        """Wait until the router sends work to every replica, so that none seems to be idle.

        It gives up quietly: the service is ready, and the router goes on trying.
        """
        try:
            async with (
                asyncio.timeout(ACQUAINTANCE_S),
                RouterClient(self._state.grpc_address) as router,
            ):
                while True:
                    if await self._has_met_all(router):
                        return
                    await asyncio.sleep(_POLL_S)
        except TimeoutError:
            self._listener.line("router", "(it has not met every replica yet)")

    async def _has_met_all(self, router: RouterClient) -> bool:
        try:
            known = await router.replicas()
        except RedServeError:  # it may just be restarting
            return False
        return sum(replica.serving for replica in known) >= self._num_replicas

    async def _drain(self) -> None:
        self._draining = True
        self._state = replace(self._state, phase="draining")
        self._listener.stopping(at_once=False)
        await self._supervisor.drain()

    def _on_signal(self) -> None:
        if self._draining:
            self._listener.stopping(at_once=True)
            self._supervisor.kill()
        else:
            self._stop.set()

    def _changed(self, processes: tuple[ProcessState, ...]) -> None:
        state = with_processes(self._state, processes)
        if state.phase == "ready" and not self._announced:
            state = replace(state, phase="starting")
        self._state = state
        self._write()
        self._listener.changed(self._state)

    def _write(self) -> None:
        """Let other commands know; a full disk must take the service neither down nor its end."""
        was_stale = self._is_stale
        try:
            self._folder.write(self._state)
            self._is_stale = False
        except OSError as error:
            self._is_stale = True
            if not was_stale:
                why = f"{error.filename}: {error.strerror}"
                self._listener.line("redserve", f"(status shows what was before; {why})")


async def run_session(
    plan: LocalPlan,
    manifest: Path,
    root: Path,
    listener: Listener,
    *,
    start_timeout_s: float,
    policy: RestartPolicy | None = None,
) -> None:
    """Hold the service's name and run it; see `Session.run` and `hold` for what is raised."""
    with hold(root, plan.service.name) as folder:
        await Session(plan, manifest, folder, listener, policy).run(start_timeout_s)


@contextmanager
def _signals(handler: Callable[[], None]) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    # What is ignored stays ignored: `nohup redserve up` outlives its terminal.
    numbers = [n for n in _SIGNALS if signal.getsignal(n) is not signal.SIG_IGN]
    for number in numbers:
        loop.add_signal_handler(number, handler)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
