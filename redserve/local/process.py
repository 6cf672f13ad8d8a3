"""One child process: started, watched, started again, stopped."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import aclosing
from typing import TYPE_CHECKING, Final

from redserve.errors import ConfigError, ModelNotFound, Unavailable, UnsupportedModel
from redserve.local.last_words import conclusion, refusal_in
from redserve.local.output import OutputSink
from redserve.local.restarts import CONFIG_EXIT_CODE, History
from redserve.local.state import ProcessState
from redserve.spec.setting_fields import blamed_field
from redserve.spec.settings import base_environment

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from pathlib import Path

    from redserve.local.restarts import RestartPolicy
    from redserve.local.state import Phase
    from redserve.spec.workloads import Workload

GRACE_S: Final = 10.0
"""Added to the drain timeout before a process that was asked to stop is killed, seconds."""
_LAST_WORDS_S: Final = 2.0
_MODEL_REASONS: Final = (ModelNotFound.reason, UnsupportedModel.reason)


class ChildProcess:
    """Runs one workload until it is stopped.

    Args:
        workload: What to run; its `replicas` must be 1.
        log_path: Where its output goes.
        policy: When it is started again.
        watch: Yields whether the gRPC server at an address is ready, at once and at every change.
        on_change: Called when its phase or process id changed.
        on_line: Called with each line that it writes.
    """

    def __init__(
        self,
        workload: Workload,
        log_path: Path,
        *,
        policy: RestartPolicy,
        watch: Callable[[str], AsyncGenerator[bool, None]],
        on_change: Callable[[], None],
        on_line: Callable[[str], None],
    ) -> None:
        self.workload = workload
        self.ready = asyncio.Event()
        self._log_path = log_path
        self._sink = OutputSink(log_path, on_line)
        self._policy = policy
        self._watch = watch
        self._on_change = on_change
        self._phase: Phase = "starting"
        self._process: subprocess.Popen[bytes] | None = None
        self._history = History()
        self._stopping = asyncio.Event()
        self._last_run = asyncio.Event()
        self._ready_at_s: float | None = None
        self._before = ""

    @property
    def account(self) -> str:
        """What it does and what it last said, for people who wait for it."""
        words = conclusion(self._sink.lines) or "it has written nothing yet"
        return f"{self.workload.name}, {self._phase}{self._before}: {words}; see {self._log_path}"

    @property
    def state(self) -> ProcessState:
        """What it does now."""
        return ProcessState(
            name=self.workload.name,
            role=self.workload.role,
            phase=self._phase,
            pid=self._process.pid if self._process is not None else None,
            address=self.workload.address,
            metrics_address=self.workload.metrics_address,
            num_restarts=self._history.num_restarts,
            log=str(self._log_path),
        )

    async def run(self) -> None:
        """Keep it running; returns after `stop` or `kill` when it has ended.

        Raises:
            ConfigError: It says that its settings are wrong.
            Unavailable: It ended again and again and was never ready.
        """
        try:
            while not self._last_run.is_set():
                code = await self._run_once()
                if self._last_run.is_set():
                    break
                self._judge(code)
                self._set_phase("restarting")
                with contextlib.suppress(TimeoutError):
                    delay_s = self._history.delay_s(self._policy)
                    await asyncio.wait_for(self._last_run.wait(), delay_s)
        finally:
            self._set_phase("stopped")
            self._sink.close()

    def let_end(self) -> None:
        """Do not start it again, should it end."""
        self._last_run.set()

    async def stop(self) -> None:
        """Ask it to finish its streams and end; kill it when it takes too long."""
        self.let_end()
        self._stopping.set()
        if self._process is None:
            return
        self._set_phase("draining")
        process = self._process
        process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(self.workload.drain_timeout_s + GRACE_S):
                while self._process is process:
                    await self._ended.wait()
        except TimeoutError:
            self._signal_group(process, signal.SIGKILL)

    def kill(self) -> None:
        """End it at once, with everything that it started."""
        self.let_end()
        self._stopping.set()
        if self._process is not None:
            self._signal_group(self._process, signal.SIGKILL)

    async def _run_once(self) -> int:
        self._ready_at_s = None
        self._ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        self._sink.begin_run()
        process = self._spawn()
        self._process = process
        self._set_phase("starting")
        exited: asyncio.Future[int] = loop.create_future()
        _call_at_exit(process, loop, exited)
        output = asyncio.create_task(self._pump(process))
        health = asyncio.create_task(self._follow_health())
        health.add_done_callback(lambda task: _pass_failure(task, exited))
        try:
            return await exited
        finally:
            health.cancel()
            self.ready.clear()
            # What it started goes with it, and lets go of the pipe.
            self._signal_group(process, signal.SIGKILL)
            await asyncio.wait({output, health}, timeout=_LAST_WORDS_S)
            output.cancel()
            if process.stdin is not None:
                process.stdin.close()
            self._sink.end_of_run()
            self._process = None
            self._ended.set()

    def _spawn(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [
                sys.executable,
                "-m",
                "redserve.local.launch",
                str(os.getpid()),
                self.workload.module,
            ],
            env=base_environment(self.workload.env),
            stdin=subprocess.PIPE,  # held open: its end tells the child that we are gone
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            process_group=0,  # Ctrl-C in the terminal is for the supervisor alone
        )

    async def _pump(self, process: subprocess.Popen[bytes]) -> None:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        transport, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), process.stdout
        )
        try:
            while data := await reader.read(65536):
                self._sink.feed(data)
        finally:
            transport.close()

    async def _follow_health(self) -> None:
        async with aclosing(self._watch(self.workload.address)) as answers:
            async for ready in answers:
                if self._stopping.is_set():
                    return
                if ready:
                    if self._ready_at_s is None:
                        self._ready_at_s = time.monotonic()
                    self.ready.set()
                    self._set_phase("ready")
                elif self._ready_at_s is not None:
                    self.ready.clear()
                    self._set_phase("unready")

    def _judge(self, code: int) -> None:
        """Count a failure; raise when another start makes no sense."""
        lasted_s = None if self._ready_at_s is None else time.monotonic() - self._ready_at_s
        self._history = self._history.ended(lasted_s, self._policy)
        name, words = self.workload.name, conclusion(self._sink.lines)
        if code == CONFIG_EXIT_CODE:
            raise self._refusal(words)
        if self._history.hopeless(self._policy):
            raise Unavailable(
                f"{name} ended {self._history.num_failures} times without being ready "
                f"({_in_words(code)}): {words or 'it wrote nothing'}; see {self._log_path}"
            )
        self._before = f" (before: {_in_words(code)}, {words or 'without a word'})"

    def _refusal(self, words: str) -> ConfigError:
        """Names the manifest's field where the process blames a setting that came from one."""
        said = refusal_in(self._sink.lines)
        intro = f"{self.workload.name} refused to start"
        if said is None:
            words = words or "it did not say why"
            return ConfigError(f"{intro}: {words}; see {self._log_path}")
        field = blamed_field(self.workload.role, said.why)
        if field is None and said.reason in _MODEL_REASONS:
            field = "spec.model.uri"
        why = said.why.removeprefix(f"{field}: ")
        return ConfigError(f"{intro}: {why} [{said.reason}]", field=field)

    def _set_phase(self, phase: Phase) -> None:
        if phase == "draining" or self._phase != "draining" or phase == "stopped":
            self._phase = phase
            self._on_change()

    @staticmethod
    def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)


def _call_at_exit(
    process: subprocess.Popen[bytes], loop: asyncio.AbstractEventLoop, exited: asyncio.Future[int]
) -> None:
    """Wait in a thread: independent of the loop's child watcher, which differs by release."""

    def deliver(code: int) -> None:
        if not exited.done():
            exited.set_result(code)

    def wait() -> None:
        code = process.wait()
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody asks any more
            loop.call_soon_threadsafe(deliver, code)

    threading.Thread(target=wait, name=f"wait-{process.pid}", daemon=True).start()


def _pass_failure(task: asyncio.Task[None], exited: asyncio.Future[int]) -> None:
    """A health watch that breaks is a bug; without it nobody would ever be ready."""
    if not task.cancelled() and task.exception() is not None and not exited.done():
        exited.set_exception(task.exception() or RuntimeError("no reason"))


def _in_words(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit status {code}"
