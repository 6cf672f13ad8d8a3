"""The thread that owns an agent: every call of the library is made here.

The library is safe with several threads, but on one host a read is a copy in the thread that
posts it: it must not be the event loop.
"""

from __future__ import annotations

import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Final

from redserve.telemetry.log import get_logger
from redserve.transport.cutting import transfers
from redserve.transport.nixl.inbox import Inbox
from redserve.transport.nixl.library import Agent, AgentError, NoWay, Peer
from redserve.transport.nixl.peers import Peers
from redserve.transport.nixl.reads import Read

if TYPE_CHECKING:
    from collections.abc import Callable

    from redserve.transport.base import Descriptor, PeerInfo
    from redserve.transport.buffer import Buffer
    from redserve.transport.pool import Pool
    from redserve.transport.slab import Memory

log = get_logger()

_SHORTEST_PAUSE_S: Final = 50e-6
_LONGEST_PAUSE_S: Final = 2e-3
"""Pauses between two looks at the transfers under way: short while they move, long when one hangs,
because it may hang for many minutes."""
_PATIENCE: Final = 20.0
"""A pause is this part of the time since anything moved."""
_CLOSE_TIMEOUT_S: Final = 5.0
_START_TIMEOUT_S: Final = 30.0
"""UCX looks for a free port of its range for ever."""
_OPEN: set[Endpoint] = set()
"""Endpoints that were not closed, or could not be: their agents live until the process ends."""


def close_readers(timeout_s: float) -> None:
    """Close those that only read, unless that was begun before; `timeout_s` seconds for each."""
    for endpoint in tuple(_OPEN):
        if not (endpoint.serves or endpoint.closing):
            endpoint.close(timeout_s)


class PeerGivenUp(AgentError):
    """The peer was removed, or the endpoint is closing."""


class Endpoint:
    """An agent for one pool, and the reads into it. Methods may be called from any thread.

    Args:
        pool: Registered as a whole.
        name: Of the agent; unique for ever.
        make_agent: Makes it, in its thread.
        serves: Whether others read from this pool; see `Agent`.

    Attributes:
        metadata: What a peer needs to read from this pool.
        closing: Whether `close` has been called, and begins no further read.

    Raises:
        AgentError: The agent cannot be made; says why.
    """

    def __init__(
        self,
        pool: Pool,
        name: str,
        make_agent: Callable[..., Agent] = Agent,
        *,
        serves: bool,
    ) -> None:
        self._pool = pool
        self._name = name
        self._make_agent = partial(make_agent, serves=serves)
        self._calls = Inbox()
        self._reads: list[Read] = []
        self.serves = serves
        self.closing = False
        self._over = threading.Event()
        self._problem: AgentError | None = None
        self.metadata = b""
        started = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(started,), name="nixl", daemon=True)
        self._thread.start()
        if not started.wait(_START_TIMEOUT_S):
            raise AgentError(
                f"UCX did not start within {_START_TIMEOUT_S:g} s: is no port of "
                "UCX_TCP_PORT_RANGE free?"
            )
        if self._problem is not None:
            raise self._problem
        _OPEN.add(self)

    def read(
        self,
        peer: PeerInfo,
        descriptor: Descriptor,
        destination: Buffer,
        tell: Callable[[AgentError | None], None],
    ) -> Read:
        """Pull leased bytes.

        Takes over one hold of `destination`, and ends it when nothing can land any more.

        Args:
            peer: Who has them.
            descriptor: Where they are.
            destination: As many bytes.
            tell: See `Read`.
        """
        remote = Peer(peer.incarnation, peer.pool_address, _memory(peer), peer.device_id)
        batches = transfers(destination.segments, descriptor.segments)
        read = Read(remote, batches, destination, tell)
        self._calls.put(lambda: self._begin(read, peer.metadata))
        return read

    def abandon(self, read: Read) -> None:
        """Nobody waits for it any more."""
        read.abandon()
        self._calls.put(_nothing)

    def forget(self, name: str) -> None:
        """Give a peer up: reads from it fail now.

        It is disconnected when they have ended if one of them broke. A sound connection is kept
        for its return: UCX over TCP would close it at neither end while both processes live.
        """
        self._calls.put(lambda: self._forget(name))

    def close(self, timeout_s: float = _CLOSE_TIMEOUT_S, *, leave_it: bool = False) -> bool:
        """Fail all reads, wait until nothing is under way, remove every peer, destroy the agent.

        Blocks; idempotent.

        Args:
            timeout_s: Longest wait, seconds.
            leave_it: Do not destroy the agent: somebody may be reading from here.

        Returns:
            False when the agent is left as it is, because transfers were still under way after
            `timeout_s`: the process at the other end would not survive its destruction.
        """
        if not leave_it:
            self._calls.put(self._close)
            if self._over.wait(timeout_s):
                self._thread.join(_CLOSE_TIMEOUT_S)
                _OPEN.discard(self)
                return True
        return False

    # Below: in the agent's thread.

    def _run(self, started: threading.Event) -> None:
        try:
            agent = self._make_agent(self._name, self._pool.slab)
            self.metadata = agent.metadata
        except Exception as error:
            self._problem = error if isinstance(error, AgentError) else AgentError(repr(error))
            self._over.set()
            return
        finally:
            started.set()
        self._agent = agent
        self._peers = Peers(agent)
        moved_at = time.monotonic()
        while not self.closing or self._reads:
            if self._call_next(moved_at) | self._step():
                moved_at = time.monotonic()
        self._peers.remove_all()
        try:
            agent.close()
        except AgentError as error:
            log.warning("the agent did not close well", why=str(error))
        del self._agent, self._peers, agent
        self._over.set()

    def _call_next(self, moved_at: float) -> bool:
        pause_s: float | None = None
        if self._reads:
            still_s = time.monotonic() - moved_at
            pause_s = min(max(still_s / _PATIENCE, _SHORTEST_PAUSE_S), _LONGEST_PAUSE_S)
        call = self._calls.take(pause_s)
        if call is None:
            return False
        try:
            call()
        except Exception:  # this thread must not end: every later pull would hang
            log.exception("a call in the agent's thread failed")
        return True

    def _step(self) -> bool:
        moved = False
        for read in tuple(self._reads):
            now = time.monotonic()
            try:
                moved |= read.step(self._agent, now)
            except Exception as error:
                log.exception("a read failed in an unforeseen way", peer=read.peer.name)
                read.fail(AgentError(repr(error)))
                moved = True
            if read.is_over(now):
                moved = True
                self._end(read)
        return moved

    def _begin(self, read: Read, metadata: bytes) -> None:
        name = read.peer.name
        self._reads.append(read)
        if self.closing:
            read.fail(PeerGivenUp("the endpoint is closing"))
            return
        if read.abandoned:  # while others were connected to
            read.fail(PeerGivenUp("nobody waits for it any more"))
            return
        is_read = [other for other in self._reads if other is not read and other.peer.name == name]
        if self._peers.is_broken(name) or any(other.broken for other in is_read):
            # It would break as well, and keep what is broken from being cleared away.
            read.fail(PeerGivenUp(f"the connection to {name} broke a moment ago"))
            return
        try:
            self._peers.connect(read.peer, metadata, in_use=bool(is_read))
        except NoWay as error:
            read.fail(error)

    def _end(self, read: Read) -> None:
        self._reads.remove(read)
        try:
            read.destination.unhold()
        except Exception:  # somebody who is told of room; the pages are back
            log.exception("telling of room failed")
        read.report()
        name = read.peer.name
        if read.broken:
            self._peers.broke(name)
        self._look_whether_left(name)

    def _forget(self, name: str) -> None:
        if name not in self._peers:
            return
        self._peers.forget(name)
        for read in self._reads:
            if read.peer.name == name:
                read.fail(PeerGivenUp(f"{name} was given up"))
        self._look_whether_left(name)

    def _look_whether_left(self, name: str) -> None:
        if not any(read.peer.name == name for read in self._reads):
            self._peers.left(name)

    def _close(self) -> None:
        self.closing = True
        for read in self._reads:
            read.fail(PeerGivenUp("the endpoint is closing"))


def _memory(peer: PeerInfo) -> Memory:
    return "vram" if peer.memory == "vram" else "dram"


def _nothing() -> None:
    """Wakes the thread."""
