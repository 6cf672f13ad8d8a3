"""When an endpoint connects, stays connected and disconnects, by an agent that keeps a record."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest

from redserve.transport.base import Descriptor, PeerInfo
from redserve.transport.buffer import Segment
from redserve.transport.nixl import peers
from redserve.transport.nixl.endpoint import Endpoint
from redserve.transport.nixl.library import (
    Agent,
    AgentError,
    ForeignMetadata,
    NoWay,
    PeerDisconnected,
)
from redserve.transport.pool import Pool
from tests.transport.agents import FOREIGN, Record
from tests.transport.links import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from redserve.transport.slab import Slab


@pytest.fixture
def record() -> Record:
    return Record()


@pytest.fixture
def pool() -> Pool:
    return Pool(4 * 4096)


@pytest.fixture
def endpoint(record: Record, pool: Pool) -> Iterator[Endpoint]:
    endpoint = Endpoint(pool, "me", record, serves=False)
    yield endpoint
    assert endpoint.close()
    assert record.calls[-1] == ("close", "")
    added = [name for call, name in record.calls if call == "add"]
    removed = [name for call, name in record.calls if call == "remove"]
    assert sorted(added) == sorted(removed), "nobody stays connected"


async def read(
    endpoint: Endpoint, pool: Pool, name: str, metadata: bytes = b""
) -> AgentError | None:
    """One read, until nothing can land any more; its outcome."""
    region = await pool.alloc_wait(100, 20)
    region.hold()
    told: list[AgentError | None] = []
    lease = Descriptor(name, (Segment(0, 100),), 1, 30.0, None)
    endpoint.read(PeerInfo(name, "nixl", "", metadata), lease, region, told.append)
    await until(lambda: bool(told))
    region.free()
    return told[0]


async def settled(pool: Pool) -> None:
    await until(lambda: pool.used_bytes == 0)


async def test_a_peer_that_is_forgotten_and_comes_back_is_connected_once(
    endpoint: Endpoint, record: Record, pool: Pool
):
    for _ in range(10):
        assert await read(endpoint, pool, "a") is None
        endpoint.forget("a")
    assert record.calls == [("add", "a")]


async def test_whoever_says_to_be_another_is_not_read_from_in_its_place(
    endpoint: Endpoint, record: Record, pool: Pool
):
    """Whether the first or the second one lies."""
    for metadata in (b"one", b"two", b"two", b"one"):
        assert await read(endpoint, pool, "a", metadata) is None
        endpoint.forget("a")
    added, removed = ("add", "a"), ("remove", "a")
    assert record.calls == [added, removed, added, removed, added]


async def test_metadata_of_another_disconnects_nobody(
    endpoint: Endpoint, record: Record, pool: Pool
):
    assert await read(endpoint, pool, "a", b"one") is None
    assert isinstance(await read(endpoint, pool, "a", FOREIGN), ForeignMetadata)
    assert isinstance(await read(endpoint, pool, "b", FOREIGN), ForeignMetadata)
    assert await read(endpoint, pool, "a", b"one") is None
    assert record.calls == [("add", "a")]


async def test_nobody_takes_the_place_of_a_peer_that_is_read_from(
    endpoint: Endpoint, record: Record, pool: Pool
):
    record.slow = True
    first = asyncio.create_task(read(endpoint, pool, "a", b"one"))
    await until(lambda: record.num_under_way == 1)
    assert isinstance(await read(endpoint, pool, "a", b"two"), ForeignMetadata)
    record.slow = False
    assert await first is None
    assert record.num_under_way == 0


async def test_a_connection_that_broke_is_made_anew_however_hard_it_is_tried(
    endpoint: Endpoint, record: Record, pool: Pool
):
    assert await read(endpoint, pool, "a") is None
    record.dead.add("a")
    assert isinstance(await read(endpoint, pool, "a"), PeerDisconnected)
    record.dead.clear()
    endpoint.forget("a")
    async with asyncio.timeout(20):
        while await read(endpoint, pool, "a") is not None:
            endpoint.forget("a")
    assert record.calls == [("add", "a"), ("remove", "a"), ("add", "a")]


async def test_one_that_breaks_when_nobody_waits_is_disconnected_too(
    endpoint: Endpoint, record: Record, pool: Pool
):
    record.dead.add("a")
    assert await read(endpoint, pool, "a") is not None
    await settled(pool)
    record.dead.clear()
    await until(lambda: ("remove", "a") in record.calls)
    assert await read(endpoint, pool, "a") is None


async def test_of_those_that_are_forgotten_some_stay_connected(
    endpoint: Endpoint, record: Record, pool: Pool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(peers, "MAX_PARKED", 2)
    for name in "abc":
        assert await read(endpoint, pool, name) is None
        endpoint.forget(name)
    assert await read(endpoint, pool, "c") is None
    assert record.calls == [("add", "a"), ("add", "b"), ("add", "c"), ("remove", "a")]


async def test_a_peer_without_a_way_is_not_tried_again_at_once(
    endpoint: Endpoint, record: Record, pool: Pool
):
    """Each try holds up the reads from everybody else: UCX connects in the agent's thread."""
    record.unreachable.add("walled")
    for _ in range(3):
        assert isinstance(await read(endpoint, pool, "walled"), NoWay)
    assert record.calls == [("refuse", "walled")]
    assert await read(endpoint, pool, "sound") is None


async def test_a_read_that_nobody_waits_for_connects_to_nobody(
    endpoint: Endpoint, record: Record, pool: Pool
):
    record.gate = threading.Event()
    first = asyncio.ensure_future(read(endpoint, pool, "slow"))
    region = pool.alloc(100)
    region.hold()
    lease = Descriptor("late", (Segment(0, 100),), 1, 30.0, None)
    late = endpoint.read(PeerInfo("late", "nixl", ""), lease, region, lambda _: None)
    endpoint.abandon(late)
    region.free()
    record.gate.set()
    assert await first is None
    await settled(pool)
    assert ("add", "late") not in record.calls


async def test_what_nobody_foresaw_ends_one_read_and_not_the_thread(
    endpoint: Endpoint, record: Record, pool: Pool
):
    record.foolish = True
    error = await read(endpoint, pool, "p")
    assert error is not None
    assert "nobody thought of this" in str(error)
    record.foolish = False
    await settled(pool)
    assert await read(endpoint, pool, "p") is None


def test_an_agent_that_cannot_be_made_is_an_error_whatever_it_is():
    def make(name: str, slab: Slab, *, serves: bool) -> Agent:
        raise ValueError("nobody thought of this")

    with pytest.raises(AgentError, match="nobody thought of this"):
        Endpoint(Pool(4096), "me", make, serves=False)
