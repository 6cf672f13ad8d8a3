"""One container of a pod: its process, started again as its pod's policy says."""

from __future__ import annotations

import asyncio
import signal
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

import aiohttp

from tools.kubernetes.async_api import ApiError
from tools.kubernetes.kubelet.environment import Missing
from tools.kubernetes.kubelet.health import Health
from tools.kubernetes.kubelet.probes import Target, ask
from tools.kubernetes.kubelet.process import Launch, Process
from tools.kubernetes.kubelet.status import (
    ContainerView,
    Running,
    State,
    Terminated,
    Waiting,
    now,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path

    from tools.kubernetes.async_api import JsonObject

_LEAST_GRACE_S: Final = 2.0
_LONGEST_BACKOFF_S: Final = 300.0
_WELL_FOR_S: Final = 600.0
_CONFIG_RETRY_S: Final = 0.5
RestartPolicy = Literal["Always", "OnFailure", "Never"]


@dataclass(slots=True)
class Backoff:
    """How long a container that ended stays down: not at all, then doubling.

    Attributes:
        first_s: After the second end in a row, seconds.
    """

    first_s: float
    _num_ends: int = field(default=0, init=False)

    def wait_s(self, ran_for_s: float) -> float:
        """Seconds to wait after a run of this length; a long one begins anew."""
        self._num_ends = 1 if ran_for_s >= _WELL_FOR_S else self._num_ends + 1
        if self._num_ends == 1:
            return 0.0
        return min(self.first_s * 2.0 ** (self._num_ends - 2), _LONGEST_BACKOFF_S)


class Container:
    """Runs one container until it needs no restart or is stopped.

    Args:
        spec: As in the pod.
        folder: For its files; owned by the container.
        ip: Address of the pod.
        policy: When it is started again.
        grace_s: Grace period where a probe asks for a restart.
        backoff: Between restarts.
        make_launch: What to run; raises Missing as long as something is not there.
        on_change: Called after every change of `view`.
        on_event: Called with type, reason and message of what a person may want to know.
    """

    def __init__(
        self,
        spec: JsonObject,
        folder: Path,
        *,
        ip: str,
        policy: RestartPolicy,
        grace_s: float,
        backoff: Backoff,
        make_launch: Callable[[], Awaitable[Launch]],
        on_change: Callable[[], None],
        on_event: Callable[[str, str, str], None],
    ) -> None:
        self._spec = spec
        self._folder = folder
        self._policy = policy
        self._grace_s = grace_s
        self._backoff = backoff
        self._make_launch = make_launch
        self._on_change = on_change
        self._on_event = on_event
        ports = {p["name"]: p["containerPort"] for p in spec.get("ports", []) if "name" in p}
        self._target = Target(ip, ports, self._execute)
        self._process: Process | None = None
        self._stopping = asyncio.Event()
        self._ending: asyncio.Task[None] | None = None
        self._state: State = Waiting()
        self._last: Terminated | None = None
        self._num_restarts = 0
        self._next: tuple[Terminated | None, int] = (None, 0)
        """What `last` and the number of restarts are from the next start on."""
        self._health: Health | None = None
        self._will_restart = False

    @property
    def name(self) -> str:
        """As in the pod."""
        return str(self._spec["name"])

    @property
    def view(self) -> ContainerView:
        """How it is now."""
        return ContainerView(
            self.name,
            self._spec["image"],
            self._state,
            self._last,
            self._num_restarts,
            self._health is not None and self._health.started,
            self._health is not None and self._health.ready,
            self._will_restart,
        )

    @property
    def pid(self) -> int | None:
        """Its process, where it has one."""
        return None if self._process is None else self._process.pid

    @property
    def log(self) -> Path:
        """Everything that it wrote, restarts included."""
        return self._folder / "log"

    async def run(self) -> None:
        """Returns when it ended for good; its view then is Terminated."""
        while not self._stopping.is_set():
            try:
                launch = await self._make_launch()
            except (Missing, ApiError, aiohttp.ClientError) as error:
                reason = getattr(error, "reason", "CreateContainerConfigError")
                self._set(Waiting(reason, str(error)))
                await self._pause(_CONFIG_RETRY_S)
                continue
            began = time.monotonic()
            await self._run_once(launch)
            if not self._will_restart:
                return
            assert isinstance(self._state, Terminated)
            ended = self._state
            if wait_s := self._backoff.wait_s(time.monotonic() - began):
                message = f"back-off {wait_s:g}s restarting failed container"
                self._last = ended
                self._set(Waiting("CrashLoopBackOff", message))
                self._on_event("Warning", "BackOff", f"{message} {self.name}")
                await self._pause(wait_s)
            if not self._stopping.is_set():
                # Until it runs again it is told as ended, and as about to be restarted.
                self._next = (ended, self._num_restarts + 1)

    async def stop(self, grace_s: float) -> None:
        """End it for good: preStop and SIGTERM within the grace period, then SIGKILL."""
        self._stopping.set()
        await self._end(grace_s)

    def kill(self) -> None:
        """SIGKILL, at once and for good."""
        self._stopping.set()
        if self._process is not None:
            self._process.kill()

    async def _run_once(self, launch: Launch) -> None:
        process = Process(launch, self._folder)
        started_at = now()
        failure = await process.start()
        self._process = process
        probes: asyncio.Task[None] | None = None
        if not failure:
            self._health = Health(
                self._spec,
                self._target,
                is_stopping=self._stopping.is_set,
                on_change=self._on_change,
                on_failure=self._restart,
                on_event=self._on_event,
            )
            self._will_restart = False
            self._last, self._num_restarts = self._next
            self._set(Running(started_at, process.pid))
            probes = asyncio.create_task(self._health.watch())
            if self._stopping.is_set():
                # It was told to stop while it was being started.
                self._ending = asyncio.create_task(self._end(0))
        try:
            code = await process.wait()
        except asyncio.CancelledError:
            process.kill()
            await process.wait()
            raise
        finally:
            self._process = None
            if probes is not None:
                probes.cancel()
                await asyncio.gather(probes, return_exceptions=True)
        self._health = None
        if failure:
            message, reason = failure, "StartError"
            self._on_event("Warning", "Failed", f"{self.name}: {failure}")
        else:
            message, reason = self._last_words(code), "Completed" if code == 0 else "Error"
        again = self._policy == "Always" or (self._policy == "OnFailure" and code != 0)
        self._will_restart = again and not self._stopping.is_set()
        self._set(Terminated(code, reason, message, started_at, now(), process.pid))

    async def _end(self, grace_s: float) -> None:
        if (process := self._process) is None:
            return
        deadline = time.monotonic() + grace_s
        if grace_s > 0 and (hook := self._spec.get("lifecycle", {}).get("preStop")):
            work = asyncio.create_task(self._run_hook(hook))
            await process.wait_or(work, grace_s)
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
        if grace_s > 0:
            process.signal(signal.SIGTERM)
            left_s = max(deadline - time.monotonic(), _LEAST_GRACE_S)
            with suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(process.ended), left_s)
        process.kill()
        await process.ended

    async def _run_hook(self, hook: JsonObject) -> None:
        if "sleep" in hook:
            await asyncio.sleep(hook["sleep"]["seconds"])
            return
        well, message = await ask(hook, self._target, timeout_s=3600.0)
        if not well:
            self._on_event("Warning", "FailedPreStopHook", f"{self.name}: {message}")

    async def _execute(self, command: Sequence[str]) -> tuple[int, str]:
        if (process := self._process) is None:
            return 1, "it does not run"
        return await process.execute(command)

    def _restart(self, grace_s: float | None) -> None:
        self._on_event("Normal", "Killing", f"container {self.name} failed its probe")
        self._ending = asyncio.create_task(self._end(self._grace_s if grace_s is None else grace_s))

    def _last_words(self, code: int) -> str:
        words = (self._folder / "termination-log").read_text(errors="replace")
        fall_back = self._spec.get("terminationMessagePolicy") == "FallbackToLogsOnError"
        if not words and fall_back and code != 0 and self.log.exists():
            words = "\n".join(self.log.read_text(errors="replace")[-2048:].splitlines()[-80:])
        return words[-4096:]

    def _set(self, state: State) -> None:
        self._state = state
        self._on_change()

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)
