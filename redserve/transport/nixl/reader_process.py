"""One process from which others read a pool over TCP, as the process that started it sees it."""

from __future__ import annotations

import base64
import json
import os
import select
import subprocess
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from redserve.spec.settings import reader_environment
from redserve.telemetry.log import get_logger
from redserve.transport.nixl.library import AgentError

if TYPE_CHECKING:
    from redserve.transport.slab import SharedSlab

log = get_logger()

_START_TIMEOUT_S: Final = 30.0
"""UCX looks for a free port of its range for ever."""
_END_TIMEOUT_S: Final = 2.0
_PING_S: Final = 1.0
MOST_MISSES: Final = 10
"""Pings in a row without an answer, after which it hangs. Counted, not timed: when all processes of
a machine were stopped for an hour, that is one."""


class ReaderProcess:
    """Starts it; blocks until others can read.

    Args:
        slab: The pool's memory.
        name: Of its agent; unique for ever.

    Attributes:
        name: As given.
        metadata: See `Agent.metadata`.
        address: Of the first byte of the pool, over there.

    Raises:
        AgentError: It cannot serve; says why.
        OSError: It cannot be started.
    """

    def __init__(self, slab: SharedSlab, name: str) -> None:
        self.name = name
        self._pipe, writing = os.pipe()
        try:
            # Standard output is for UCX's own lines.
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "redserve.transport.nixl.serve", str(os.getpid())),
                    *(str(slab.descriptor), str(slab.num_bytes), str(writing), name),
                ],
                stdin=subprocess.PIPE,
                pass_fds=(slab.descriptor, writing),
                env=reader_environment(),
            )
        except OSError:
            os.close(self._pipe)
            raise
        finally:
            os.close(writing)
        self._poll = select.poll()
        self._poll.register(self._pipe, select.POLLIN)
        try:
            hello = self._hello()
        except BaseException:
            self.end()
            os.close(self._pipe)
            raise
        self.metadata = base64.b64decode(hello["metadata"])
        self.address: int = hello["address"]

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def watch(self) -> int:
        """Wait for its end, and end it when it hangs; once. Returns its exit status."""
        num_missed, answered = 0, True
        while True:
            if self._poll.poll(_PING_S * 1000):
                if not os.read(self._pipe, 4096):
                    break
                num_missed, answered = 0, True
                continue
            num_missed += not answered
            if num_missed == MOST_MISSES:
                log.warning("the process that embeddings are read from hangs", pid=self.pid)
                self._process.kill()
            answered = False
            self._ping()
        os.close(self._pipe)
        return self._wait()

    def end(self) -> None:
        """End it; idempotent, and from any thread. Reads under way fail at their readers."""
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.close()
        self._wait()

    def _ping(self) -> None:
        assert self._process.stdin is not None
        with suppress(OSError, ValueError):  # it is ending, or being ended
            os.write(self._process.stdin.fileno(), b".")

    def _wait(self) -> int:
        try:
            return self._process.wait(_END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def _hello(self) -> dict[str, Any]:
        ends_at = time.monotonic() + _START_TIMEOUT_S
        data = b""
        while not data.endswith(b"\n"):
            if not self._poll.poll(max(ends_at - time.monotonic(), 0.0) * 1000):
                raise AgentError(
                    f"UCX did not start within {_START_TIMEOUT_S:g} s: is no port of "
                    "UCX_TCP_PORT_RANGE free?"
                )
            piece = os.read(self._pipe, 1 << 16)
            if not piece:
                raise AgentError("the process that embeddings are read from ended at its start")
            data += piece
        hello: dict[str, Any] = json.loads(data)
        if "error" in hello:
            raise AgentError(hello["error"])
        return hello
