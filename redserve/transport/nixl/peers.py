"""Who an agent is connected to, and who not any more."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from redserve.telemetry.log import get_logger
from redserve.transport.nixl.library import AgentError, ForeignMetadata, NoWay

if TYPE_CHECKING:
    from redserve.transport.nixl.library import Agent, Peer

log = get_logger()

AVOID_S: Final = 5.0
"""How long a peer that could not be reached is not tried again: UCX connects in the agent's thread,
and everybody else's reads wait for it."""
MAX_PARKED: Final = 256
"""Peers that stay connected although they were forgotten, in case they come back."""


class Peers:
    """Those of one agent. Belongs to the agent's thread; whoever drives it knows of reads.

        connect ─▶ connected ── forget ─▶ left ─▶ parked ── connect ─▶ connected
                       └─ broke ─────────▶ left ─▶ removed

    A sound connection is kept for the peer's return: UCX over TCP would close it at neither end
    while both processes live.

    Args:
        agent: Connects and disconnects.
    """

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._metadata: dict[str, bytes] = {}  # by name, of all that are connected
        self._going: set[str] = set()  # of these: forgotten while they were read from
        self._parked: dict[str, None] = {}  # of these: forgotten, oldest first
        self._broken: set[str] = set()  # of these: a read from them has failed
        # By name and metadata: until when, and why.
        self._unreachable: dict[tuple[str, bytes], tuple[float, NoWay]] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._metadata

    def is_broken(self, name: str) -> bool:
        """Whether a read from it has failed since it was connected."""
        return name in self._broken

    def connect(self, peer: Peer, metadata: bytes, *, in_use: bool) -> None:
        """Make it known to the agent if it is not.

        Args:
            peer: Who.
            metadata: What it says of itself.
            in_use: Whether something is being read from a peer of this name.

        Raises:
            ForeignMetadata: It is another's, or another one of this name is in use.
            NoWay: It cannot be reached; nor can it be for the next `AVOID_S`.
        """
        name = peer.name
        avoided_until, why = self._unreachable.get((name, metadata), (0.0, None))
        if why is not None and time.monotonic() < avoided_until:
            raise NoWay(*why.args)
        if self._metadata.get(name, metadata) != metadata:
            # Two say to be the same peer: the one that nobody reads from may go.
            self._agent.check_metadata(name, metadata)
            if in_use:
                raise ForeignMetadata(f"somebody else is read from as {name}")
            self._remove(name)
        self._going.discard(name)
        self._parked.pop(name, None)
        if name in self._metadata:
            return
        try:
            self._agent.add_peer(peer, metadata)
        except ForeignMetadata:
            raise
        except NoWay as error:
            self._avoid(name, metadata, error)
            raise
        self._unreachable.pop((name, metadata), None)
        self._metadata[name] = metadata

    def broke(self, name: str) -> None:
        """A read from it has failed: disconnect it when it is left."""
        self._broken.add(name)

    def forget(self, name: str) -> None:
        """It is given up: park it, or disconnect it, when it is left."""
        self._going.add(name)

    def left(self, name: str) -> None:
        """Nothing is read from it any more."""
        if name in self._broken:
            self._remove(name)
        elif name in self._going:
            self._going.discard(name)
            self._parked[name] = None
            if len(self._parked) > MAX_PARKED:
                self._remove(next(iter(self._parked)))

    def remove_all(self) -> None:
        """Disconnect everybody."""
        for name in tuple(self._metadata):
            self._remove(name)

    def _avoid(self, name: str, metadata: bytes, why: NoWay) -> None:
        now = time.monotonic()
        for other, (until, _) in tuple(self._unreachable.items()):
            if until <= now:
                del self._unreachable[other]
        self._unreachable[name, metadata] = (now + AVOID_S, why)

    def _remove(self, name: str) -> None:
        self._metadata.pop(name, None)
        self._going.discard(name)
        self._broken.discard(name)
        self._parked.pop(name, None)
        try:
            self._agent.remove_peer(name)
        except AgentError as error:
            log.warning("a peer was not removed well", peer=name, why=str(error))
