"""A container's process: started in its own mounts, signalled, waited for."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from tools.kubernetes.kubelet import launch as launcher

if TYPE_CHECKING:
    from asyncio.subprocess import Process as Child
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_SIGNALLED: Final = 128


@dataclass(frozen=True, slots=True)
class Mount:
    """Something of this machine at a place in the container."""

    source: str
    target: str
    read_only: bool


@dataclass(frozen=True, slots=True)
class Launch:
    """What to start.

    Attributes:
        command: Program and arguments.
        environment: All of it.
        working_dir: In the container.
        mounts: Later ones lie above earlier ones.
        read_only: Whether everything but mounts is.
        termination_path: Where the container leaves its last words.
    """

    command: tuple[str, ...]
    environment: Mapping[str, str]
    working_dir: str
    mounts: tuple[Mount, ...]
    read_only: bool
    termination_path: str


class Process:
    """One run of a container.

    Args:
        launch: What to start.
        folder: For log, last words and the root of its mounts; made when missing.

    Attributes:
        ended: Is done when the process ended, with its exit code: 128 + n for signal n.
    """

    def __init__(self, launch: Launch, folder: Path) -> None:
        self._launch = launch
        self._folder = folder
        self._child: Child | None = None
        self.ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int:
        """Of the process, and of its group."""
        return 0 if self._child is None else self._child.pid

    async def start(self) -> str:
        """Returns when the command runs: empty, or why it could not be started."""
        (self._folder / "root").mkdir(parents=True, exist_ok=True)
        words = self._folder / "termination-log"
        words.write_text("")
        words.chmod(0o666)
        last_words = Mount(str(words), self._launch.termination_path, read_only=False)
        spec = asdict(self._launch) | {
            "root": str(self._folder / "root"),
            "mounts": [asdict(mount) for mount in (*self._launch.mounts, last_words)],
        }
        with (self._folder / "log").open("ab") as log:
            self._child, failure = await _spawn(spec, self._folder / "launch.json", log.fileno())
        self._waiting = asyncio.create_task(self._wait())
        return failure

    async def wait(self) -> int:
        """Its exit code, once it and all that it started have ended."""
        return await asyncio.shield(self.ended)

    async def wait_or(self, work: asyncio.Task[None], timeout_s: float) -> None:
        """Returns when the process ended, the work is done or time is over."""
        both: set[asyncio.Future[Any]] = {self.ended, work}
        await asyncio.wait(both, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process alone."""
        if self._child is not None and not self.ended.done():
            with suppress(ProcessLookupError):
                self._child.send_signal(number)

    def kill(self) -> None:
        """SIGKILL for the process and everything that it started."""
        if self._child is not None and not self.ended.done():
            _kill_group(self._child.pid)

    async def execute(self, command: Sequence[str]) -> tuple[int, str]:
        """Run a command beside the process, in its mounts; its exit code and output."""
        spec = asdict(self._launch) | {"command": list(command)}
        output = self._folder / f"exec-{os.urandom(4).hex()}"
        try:
            with output.with_suffix(".log").open("w+b") as log:
                child, failure = await _spawn(
                    spec, output.with_suffix(".json"), log.fileno(), str(self.pid)
                )
                try:
                    code = await child.wait()
                finally:
                    _kill_group(child.pid)
                log.seek(0)
                return code, failure or log.read().decode(errors="replace").strip()[-1000:]
        finally:
            for suffix in (".log", ".json"):
                output.with_suffix(suffix).unlink(missing_ok=True)

    async def _wait(self) -> None:
        assert self._child is not None
        code = await self._child.wait()
        _kill_group(self._child.pid)  # what it started and left behind
        self.ended.set_result(code if code >= 0 else _SIGNALLED - code)


async def _spawn(
    spec: dict[str, Any], path: Path, output: int, *arguments: str
) -> tuple[Child, str]:
    reading, writing = os.pipe()
    try:
        path.write_text(json.dumps(spec | {"outcome": writing}))  # noqa: ASYNC240 -- tiny, and first
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-S", "-E", launcher.__file__, str(os.getpid()), str(path)),
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={},
            pass_fds=(writing,),
            start_new_session=True,
        )
    finally:
        os.close(writing)
    try:
        failure = await asyncio.to_thread(os.read, reading, 4096)
    finally:
        os.close(reading)
    return child, failure.decode(errors="replace")


def _kill_group(group: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)
