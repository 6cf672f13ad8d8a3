"""One pull by one-sided reads: a few transfers under way at once, until the last byte has landed.

    post ─► under way ─► done ─► post the next ...        ─► ended, whole
                │
                ├ abandoned (cancel, deadline): post no more, wait for what is under way ─► ended
                └ error: the same, and a moment longer                                   ─► ended

The outcome is told at once, the end only when nothing can land any more: between the two, the
destination is quarantined. Not thread-safe: the agent's thread owns it, but for `abandon`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from redserve.transport.nixl.library import AgentError, PeerDisconnected

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from redserve.transport.buffer import Buffer
    from redserve.transport.cutting import Pair
    from redserve.transport.nixl.library import Peer

WINDOW: Final = 2
"""Transfers under way at once: the next one is posted while one lands, and no more than that has to
be waited for after a cancel."""
SETTLE_S: Final = 0.2
"""How long after an error the destination stays held: an agent reports the first transfer that
fails, and the last bytes of its neighbours may be on their way then."""


class Reader(Protocol):
    """What a read asks of the agent; see `library.Agent`."""

    def start(self, peer: Peer, batch: Sequence[Pair]) -> int | None:
        """Begin a transfer."""
        ...

    def is_done(self, handle: int) -> bool:
        """Look at one."""
        ...

    def release(self, handle: int) -> None:
        """Forget one that has ended."""
        ...


class Read:
    """One pull.

    Args:
        peer: Where the bytes are.
        batches: The transfers, in order.
        destination: Held by the caller; `step` says when to end the hold.
        tell: Called once, in the agent's thread, with None when all bytes are here or with the
            error that ended the pull; not after `abandon`.
    """

    def __init__(
        self,
        peer: Peer,
        batches: Iterator[tuple[Pair, ...]],
        destination: Buffer,
        tell: Callable[[AgentError | None], None],
    ) -> None:
        self.peer = peer
        self.destination = destination
        self._batches: Iterator[tuple[Pair, ...]] | None = batches
        self._tell = tell
        self._under_way: list[int] = []
        self._settled_at = 0.0
        self._told = False
        self._abandoned = False
        self._broken = False

    @property
    def broken(self) -> bool:
        """Whether one of its transfers has failed: the connection is not to be trusted."""
        return self._broken

    @property
    def abandoned(self) -> bool:
        """Whether nobody waits for it."""
        return self._abandoned

    @property
    def num_under_way(self) -> int:
        """Transfers whose bytes may land."""
        return len(self._under_way)

    def abandon(self) -> None:
        """Nobody waits for it any more: begin no further transfer. From any thread."""
        self._abandoned = True

    def fail(self, error: AgentError) -> None:
        """End it with an error; what is under way is waited for."""
        self._batches = None
        self._outcome(error)

    def step(self, agent: Reader, now: float) -> bool:
        """Look after the transfers under way and begin further ones.

        Args:
            agent: Of the calling thread.
            now: Monotonic seconds.

        Returns:
            Whether anything ended or began.
        """
        if self._abandoned:
            self._batches = None
        return self._poll(agent, now) | self._post(agent, now)

    def is_over(self, now: float) -> bool:
        """Whether nothing can land any more: the destination may be given back."""
        return self._batches is None and not self._under_way and now >= self._settled_at

    def report(self) -> None:
        """Tell that all bytes are here, unless an error was told; after `is_over`."""
        self._outcome(None)

    def _poll(self, agent: Reader, now: float) -> bool:
        left = []
        for handle in self._under_way:
            try:
                if not agent.is_done(handle):
                    left.append(handle)
                    continue
            except AgentError as error:
                self._broken = True
                self._broke(error, now)
            self._forget(agent, handle, now)
        moved = len(left) < len(self._under_way)
        self._under_way = left
        return moved

    def _post(self, agent: Reader, now: float) -> bool:
        # Within a host each may be a copy that is done when `start` returns: others get their turn.
        moved = False
        for _ in range(WINDOW - len(self._under_way)):
            batch = next(self._batches, None) if self._batches is not None else None
            if batch is None:
                self._batches = None
                break
            moved = True
            try:
                handle = agent.start(self.peer, batch)
            except AgentError as error:
                self._broke(error, now)
                break
            if handle is not None:
                self._under_way.append(handle)
        return moved

    def _forget(self, agent: Reader, handle: int, now: float) -> None:
        try:
            agent.release(handle)
        except AgentError as error:
            self._broke(error, now)

    def _broke(self, error: AgentError, now: float) -> None:
        # What does not begin for a reason of its own says nothing about the connection.
        self._broken |= isinstance(error, PeerDisconnected)
        self._settled_at = now + SETTLE_S
        self.fail(error)

    def _outcome(self, error: AgentError | None) -> None:
        if not self._told and not self._abandoned:
            self._tell(error)
        self._told = True
