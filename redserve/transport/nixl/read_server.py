"""Keeps a process from which others read a pool over TCP.

UCX over TCP sends from within the process that is read from, trusts whoever reaches its port with
all of that process's memory, and aborts it when a reader dies while a reply is on its way. So it is
not the encoder that is read from, but a small process that maps the same pool:

    encoder ──writes──► pool ◄──maps── read server ◄──UCX over TCP── engines
       └───────────── starts it, and another one when it ends ──┘

What dies with it are reads under way, which fail as those from a lost peer do. The pool, and what
is offered and leased in it, stay. RDMA needs none of this: the NIC sends, and checks keys.
"""

from __future__ import annotations

import base64
import json
import os
import select
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from redserve.telemetry.log import get_logger
from redserve.transport.nixl.library import AgentError

if TYPE_CHECKING:
    from collections.abc import Callable

    from redserve.transport.slab import SharedSlab

log = get_logger()

_START_TIMEOUT_S: Final = 30.0
"""UCX looks for a free port of its range for ever."""
_END_TIMEOUT_S: Final = 2.0
_LONGEST_PAUSE_S: Final = 5.0
"""Between two tries to start a process that ends at once."""
_SETTLED_S: Final = 10.0
"""A process that lived as long as this did not end at once."""


@dataclass(frozen=True, slots=True)
class Served:
    """What consumers need to read from one such process.

    Attributes:
        name: Of its agent.
        metadata: See `Agent.metadata`.
        address: Of the first byte of the pool, over there.
        number: How many there were before it.
    """

    name: str
    metadata: bytes
    address: int
    number: int


class ReadServer:
    """Starts the process, and another one whenever it has ended, until `close`.

    Args:
        slab: The pool's memory.
        new_name: Makes a name for an agent; unique for ever.
        on_served: Told of each process, the first one included, in a thread of its own.

    Raises:
        AgentError: The first process cannot serve; says why.
    """

    def __init__(
        self,
        slab: SharedSlab,
        new_name: Callable[[], str],
        on_served: Callable[[Served], None],
    ) -> None:
        self._slab = slab
        self._new_name = new_name
        self._on_served = on_served
        self._num_started = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._problem: AgentError | None = None
        self._closing = threading.Event()
        self._serving = threading.Event()
        first = threading.Event()
        # A thread that lives as long as this process: the kernel ends a child when the thread that
        # started it has ended.
        self._thread = threading.Thread(
            target=self._run, args=(first,), name="read-server", daemon=True
        )
        self._thread.start()
        first.wait()
        if self._problem is not None:
            raise self._problem

    @property
    def serving(self) -> bool:
        """Whether there is a process to read from, as far as is known."""
        return self._serving.is_set()

    @property
    def pid(self) -> int:
        """Of the process that serves, or served last; 0 before the first one."""
        return 0 if self._process is None else self._process.pid

    def close(self) -> None:
        """End it; idempotent. Reads under way fail at their readers. Blocks for a moment."""
        self._closing.set()
        process = self._process
        if process is not None:
            _end(process)
        self._thread.join(_END_TIMEOUT_S)

    def _run(self, first: threading.Event) -> None:
        pause_s = 0.0
        while not self._closing.wait(pause_s):
            try:
                process, served = self._start()
            except (AgentError, OSError) as error:
                problem = error if isinstance(error, AgentError) else AgentError(str(error))
                if not first.is_set():
                    self._problem = problem
                    first.set()
                    return
                log.warning("nobody can read embeddings; tried again", why=str(problem))
                pause_s = min(max(2 * pause_s, 0.1), _LONGEST_PAUSE_S)
                continue
            started_at = time.monotonic()
            self._on_served(served)
            self._serving.set()
            first.set()
            status = process.wait()
            self._serving.clear()
            if self._closing.is_set():
                return
            log.warning(
                "the process that embeddings are read from has ended, another one takes its place",
                status=status,
            )
            settled = time.monotonic() - started_at > _SETTLED_S
            pause_s = 0.0 if settled else min(max(2 * pause_s, 0.05), _LONGEST_PAUSE_S)

    def _start(self) -> tuple[subprocess.Popen[bytes], Served]:
        name = self._new_name()
        reading, writing = os.pipe()
        passed = (self._slab.descriptor, writing)
        try:
            # Its standard input ends with this process; standard output is for UCX's own lines.
            process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "redserve.transport.nixl.serve", str(os.getpid())),
                    *(str(passed[0]), str(self._slab.num_bytes), str(passed[1]), name),
                ],
                stdin=subprocess.PIPE,
                pass_fds=passed,
            )
        except OSError:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        self._process = process
        try:
            hello = _line(reading)
        except AgentError:
            _end(process)
            raise
        finally:
            os.close(reading)
        if self._closing.is_set():  # in the meantime, and may not have seen this process
            _end(process)
        number = self._num_started
        self._num_started += 1
        metadata = base64.b64decode(hello["metadata"])
        return process, Served(name, metadata, hello["address"], number)


def _line(pipe: int) -> dict[str, Any]:
    """The hello of the process at the other end.

    Raises:
        AgentError: It cannot serve, or says nothing.
    """
    ends_at = time.monotonic() + _START_TIMEOUT_S
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    data = b""
    while not data.endswith(b"\n"):
        if not poll.poll(max(ends_at - time.monotonic(), 0.0) * 1000):
            raise AgentError(
                f"UCX did not start within {_START_TIMEOUT_S:g} s: is no port of "
                "UCX_TCP_PORT_RANGE free?"
            )
        piece = os.read(pipe, 1 << 16)
        if not piece:
            raise AgentError("the process that embeddings are read from ended at its start")
        data += piece
    hello: dict[str, Any] = json.loads(data)
    if "error" in hello:
        raise AgentError(hello["error"])
    return hello


def _end(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    process.stdin.close()
    try:
        process.wait(_END_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
