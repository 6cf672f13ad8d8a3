"""Keeps a process from which others read a pool over TCP.

UCX over TCP sends from within the process that is read from, trusts whoever reaches its port with
all of that process's memory, and aborts it when a reader dies while a reply is on its way. So it is
not the encoder that is read from, but a small process that maps the same pool:

    encoder ──writes──► pool ◄──maps── reader process ◄──UCX over TCP── engines
       └──────────── starts it, and another one when it ends ──┘

What dies with it are reads under way, which fail as those from a lost peer do. The pool, and what
is offered and leased in it, stay. RDMA needs none of this: the NIC sends, and checks keys.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final

from redserve.telemetry.log import get_logger
from redserve.transport.nixl.library import AgentError
from redserve.transport.nixl.reader_process import ReaderProcess

if TYPE_CHECKING:
    from collections.abc import Callable

    from redserve.transport.slab import SharedSlab

log = get_logger()

_CLOSE_TIMEOUT_S: Final = 2.0
_SHORTEST_PAUSE_S: Final = 0.05
_LONGEST_PAUSE_S: Final = 5.0
"""Between two processes when the former one ended at once."""
_SETTLED_S: Final = 10.0
"""A process that lived as long as this did not end at once."""


class ReadServer:
    """Starts the process, and another one whenever it has ended, until `close`.

    Args:
        slab: The pool's memory.
        new_name: Makes a name for an agent; unique for ever.
        on_served: Told of each process, the first one included, and of how many there were before
            it; in a thread of its own.

    Raises:
        AgentError: The first process cannot serve; says why.
    """

    def __init__(
        self,
        slab: SharedSlab,
        new_name: Callable[[], str],
        on_served: Callable[[ReaderProcess, int], None],
    ) -> None:
        self._slab = slab
        self._new_name = new_name
        self._on_served = on_served
        self._on_change: Callable[[bool], None] = lambda _: None
        self._lock = threading.Lock()  # of the two below, and of who is told in which order
        self._process: ReaderProcess | None = None
        self._serving = False
        self._problem: AgentError | None = None
        self._closing = threading.Event()
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
        return self._serving

    @property
    def pid(self) -> int:
        """Of the process that serves, or served last; 0 before the first one."""
        return 0 if self._process is None else self._process.pid

    def on_change(self, callback: Callable[[bool], None]) -> None:
        """Call `callback(serving)` now, and in a thread of its own with every change."""
        with self._lock:
            self._on_change = callback
            callback(self._serving)

    def close(self) -> None:
        """End it; idempotent. Reads under way fail at their readers. Blocks for a moment."""
        self._closing.set()
        process = self._process
        if process is not None:
            process.end()
        self._thread.join(_CLOSE_TIMEOUT_S)

    def _run(self, first: threading.Event) -> None:
        number, pause_s = 0, 0.0
        while not self._closing.wait(pause_s):
            try:
                process = ReaderProcess(self._slab, self._new_name())
            except Exception as error:  # whatever it is: this thread must not end in silence
                if not first.is_set():
                    self._problem = (
                        error if isinstance(error, AgentError) else AgentError(str(error))
                    )
                    first.set()
                    return
                if not self._closing.is_set():
                    log.warning("nobody can read embeddings; tried again", why=str(error))
                pause_s = min(max(2 * pause_s, _SHORTEST_PAUSE_S), _LONGEST_PAUSE_S)
                continue
            started_at = time.monotonic()
            self._process = process
            self._on_served(process, number)
            self._set(serving=True)
            first.set()
            if self._closing.is_set():  # in the meantime, and may not have seen this process
                process.end()
            status = process.watch()
            self._set(serving=False)
            if self._closing.is_set():
                return
            log.warning(
                "the process that embeddings are read from has ended, another one takes its place",
                status=status,
            )
            number += 1
            settled = time.monotonic() - started_at > _SETTLED_S
            pause_s = 0.0 if settled else min(max(2 * pause_s, _SHORTEST_PAUSE_S), _LONGEST_PAUSE_S)

    def _set(self, *, serving: bool) -> None:
        with self._lock:
            self._serving = serving
            self._on_change(serving)
