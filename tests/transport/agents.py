"""An agent for tests of what is done with agents: it keeps a record and moves nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from redserve.transport.nixl.library import (
    Agent,
    ForeignMetadata,
    NoWay,
    Peer,
    PeerDisconnected,
)

if TYPE_CHECKING:
    import threading
    from collections.abc import Sequence

    from redserve.transport.cutting import Pair
    from redserve.transport.slab import Slab

FOREIGN = b"of another"


@dataclass
class Record:
    """An agent whose reads are done at once, or break.

    Attributes:
        calls: What it was asked for.
        dead: Peers whose reads break.
        unreachable: Peers to which there is no way.
        foolish: Whether reads end in what nobody foresaw.
        gate: What connecting waits for.
        slow: Whether reads go on until it is false.
        num_under_way: Reads that go on.
    """

    calls: list[tuple[str, str]] = field(default_factory=list)
    dead: set[str] = field(default_factory=set)
    unreachable: set[str] = field(default_factory=set)
    foolish: bool = False
    gate: threading.Event | None = None
    slow: bool = False
    num_under_way: int = 0
    metadata: bytes = b"mine"

    def __call__(self, name: str, slab: Slab, *, serves: bool) -> Agent:
        return cast("Agent", self)

    def check_metadata(self, name: str, metadata: bytes) -> None:
        if metadata == FOREIGN:
            raise ForeignMetadata(name)

    def add_peer(self, peer: Peer, metadata: bytes) -> None:
        self.check_metadata(peer.name, metadata)
        if self.gate is not None:
            assert self.gate.wait(20)
        if peer.name in self.unreachable:
            self.calls.append(("refuse", peer.name))
            raise NoWay(peer.name)
        self.calls.append(("add", peer.name))

    def remove_peer(self, name: str) -> None:
        self.calls.append(("remove", name))

    def start(self, peer: Peer, batch: Sequence[Pair]) -> int | None:
        if self.foolish:
            raise ValueError("nobody thought of this")
        if peer.name in self.dead:
            raise PeerDisconnected(peer.name)
        if not self.slow:
            return None
        self.num_under_way += 1
        return self.num_under_way

    def is_done(self, handle: int) -> bool:
        return not self.slow

    def release(self, handle: int) -> None:
        self.num_under_way -= 1

    def close(self) -> None:
        self.calls.append(("close", ""))
