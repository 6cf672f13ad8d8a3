"""One pull, step by step, against an agent that does what it is told."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from redserve.transport.buffer import Segment
from redserve.transport.cutting import transfers
from redserve.transport.nixl.library import AgentError, Peer, PeerDisconnected
from redserve.transport.nixl.reads import SETTLE_S, WINDOW, Read
from redserve.transport.pool import Pool
from tests.strategies import effort

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redserve.transport.cutting import Pair

PEER = Peer("p-1", 1 << 32, "dram", 0)
SIZE = 1000
CHUNK = 100


@dataclass
class Script:
    """An agent whose transfers end when the test says so.

    Attributes:
        started: Bytes of every transfer that began.
        under_way: Handles, with the bytes that may still land.
        done, broken: Handles that have ended.
    """

    at_once: bool = False
    start_error: AgentError | None = None
    started: list[int] = field(default_factory=list)
    under_way: dict[int, int] = field(default_factory=dict)
    done: set[int] = field(default_factory=set)
    broken: set[int] = field(default_factory=set)

    def start(self, peer: Peer, batch: Sequence[Pair]) -> int | None:
        assert peer is PEER
        if self.start_error is not None:
            raise self.start_error
        self.started.append(sum(pair.num_bytes for pair in batch))
        if self.at_once:
            return None
        handle = len(self.started)
        self.under_way[handle] = self.started[-1]
        return handle

    def is_done(self, handle: int) -> bool:
        assert handle in self.under_way
        if handle in self.broken:
            raise PeerDisconnected("gone")
        return handle in self.done

    def release(self, handle: int) -> None:
        assert handle in self.done | self.broken, "released while bytes may land"
        del self.under_way[handle]


@dataclass
class World:
    agent: Script = field(default_factory=Script)
    told: list[AgentError | None] = field(default_factory=list)
    now: float = 0.0

    def __post_init__(self) -> None:
        self.region = Pool(4096).alloc(SIZE)
        batches = transfers(self.region.segments, (Segment(0, SIZE),), chunk_bytes=CHUNK)
        self.read = Read(PEER, batches, self.region, self.told.append)

    def step(self) -> bool:
        return self.read.step(self.agent, self.now)

    @property
    def over(self) -> bool:
        return self.read.is_over(self.now)


def test_a_few_transfers_at_once_until_all_have_landed():
    world = World()
    while not world.over:
        assert world.step()
        assert len(world.agent.under_way) <= WINDOW
        world.agent.done.update(world.agent.under_way)
    assert world.told == []
    world.read.report()
    assert world.told == [None]
    assert sum(world.agent.started) == SIZE


def test_transfers_that_are_done_at_once_leave_others_their_turn():
    world = World(Script(at_once=True))
    world.step()
    assert len(world.agent.started) == WINDOW
    for _ in range(SIZE // CHUNK):
        world.step()
    assert world.over
    assert sum(world.agent.started) == SIZE


def test_an_abandoned_read_begins_nothing_and_ends_with_what_is_under_way():
    world = World()
    world.step()
    world.read.abandon()
    world.agent.done.add(1)
    world.step()
    assert not world.over, "a transfer is under way: its bytes may land"
    assert len(world.agent.started) == WINDOW
    world.agent.done.add(2)
    world.step()
    assert world.over
    world.read.report()
    assert world.told == [], "nobody waits for the outcome"


def test_an_error_is_told_at_once_and_the_rest_is_waited_for():
    world = World()
    world.step()
    world.agent.broken.add(1)
    world.step()
    assert len(world.told) == 1
    assert isinstance(world.told[0], PeerDisconnected)
    assert not world.over
    world.agent.done.add(2)
    world.step()
    world.now += 0.1
    assert not world.over, "the last bytes may be on their way"
    world.now += SETTLE_S
    assert world.over
    world.read.report()
    assert len(world.told) == 1


def test_a_transfer_that_does_not_begin_is_an_error():
    world = World(Script(start_error=AgentError("no way")))
    world.step()
    assert [str(error) for error in world.told] == ["no way"]
    world.now += SETTLE_S
    assert world.over
    assert not world.step()


@effort(200)
@given(st.lists(st.sampled_from(["step", "done", "broken", "abandon", "fail"]), max_size=40))
def test_it_is_over_only_when_nothing_can_land_and_is_told_once(moves: list[str]):
    world = World()
    for move in moves:
        if world.over:
            break
        running = sorted(set(world.agent.under_way) - world.agent.done - world.agent.broken)
        if move == "step":
            world.step()
        elif move == "abandon":
            world.read.abandon()
        elif move == "fail":
            world.read.fail(AgentError("given up"))
        elif running:
            (world.agent.done if move == "done" else world.agent.broken).add(running[0])
        if world.over:
            assert not world.agent.under_way
        world.now += 0.01
    ended = not world.agent.under_way
    if world.over:
        assert ended
        world.read.report()
    assert len(world.told) <= 1
