"""Processes that are asked by lines of JSON, and end with whoever started them."""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

_ROOT: Final = Path(__file__).resolve().parents[2]
_PR_SET_PDEATHSIG: Final = 1
_END_TIMEOUT_S: Final = 20.0


class Child:
    """A process that answers.

    Args:
        module: What it runs.
        arguments: Of its command line.
        env: In addition to ours.
        pass_fds: Descriptors that it gets.

    Attributes:
        hello: What it said when it was ready.
    """

    def __init__(
        self,
        module: str,
        *arguments: str,
        env: Mapping[str, str] | None = None,
        pass_fds: Sequence[int] = (),
    ) -> None:
        self._module = module
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=_ROOT,
            env={**os.environ, **(env or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            pass_fds=pass_fds,
        )
        self.hello = self._read()

    def ask(self, operation: str, **arguments: object) -> dict[str, Any]:
        """Have it do something; blocks until it answers.

        Raises:
            RuntimeError: It died.
        """
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"op": operation, **arguments}) + "\n")
        self._process.stdin.flush()
        return self._read()

    def close(self) -> None:
        """Hang up, and see it end."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(_END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._module} died with {self._process.wait(_END_TIMEOUT_S)}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def own_stdout() -> TextIO:
    """Stdout for answers alone: UCX writes there too, and is led to stderr.

    From here on the process dies with its parent.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    ours = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return ours


async def serve(
    out: TextIO, hello: Mapping[str, object], **operations: Callable[..., Awaitable[object]]
) -> None:
    """Say `hello` and answer until the parent hangs up."""
    requests = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(requests), sys.stdin
    )
    _write(out, hello)
    while line := await requests.readline():
        request = json.loads(line)
        _write(out, await operations[request.pop("op")](**request) or {})


def _write(out: TextIO, message: object) -> None:
    out.write(json.dumps(message) + "\n")
    out.flush()
