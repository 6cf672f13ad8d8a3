"""Embeddings in the pool: evicted when nobody needs them, never while somebody does."""

from __future__ import annotations

import asyncio
import time

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from redserve.errors import InternalError, PolicyViolation
from redserve.transport.buffer import read
from redserve.transport.grpc_stream import GrpcProducer
from redserve.transport.pool import Pool
from redserve.transport.probe import probe_key
from redserve.wire.channel import open_channel
from redserve_encoder.cache import Embedding, EmbeddingCache
from redserve_encoder.fake import FakeVision
from tests.encoder.support import MIB, Gate, bench, item, picture, published, sha, until

# 64 rows of 4 KiB: four embeddings fill a pool of 1 MiB.
SIDE = 128
WIDE = 1024


def large(shade: int) -> bytes:
    return picture(SIDE, SIDE, shade)


async def test_the_least_recently_used_embedding_makes_room() -> None:
    pictures = [large(shade) for shade in range(5)]
    async with bench(FakeVision(hidden_size=WIDE), pool_bytes=MIB) as b:
        for number, data in enumerate(pictures[:4]):
            await b.encode(f"r{number}", [item(0, data)])
        await b.replica.reception.ledger.wait_empty()
        [event] = await b.encode("again", [item(0, pictures[0])])
        assert event.published.cached
        await b.replica.reception.ledger.wait_empty()
        await b.encode("new", [item(0, pictures[4])])
        await b.replica.reception.ledger.wait_empty()
        assert sha(pictures[0]) in b.replica.cache
        assert sha(pictures[1]) not in b.replica.cache
        assert b.metric("redserve_encoder_cache_evictions_total") == 1
        assert b.metric("redserve_encoder_cache_bytes") == MIB
        assert b.metric("redserve_transport_pool_bytes", state="free") == 0


async def test_encoding_waits_while_everything_is_held_and_drops_nothing() -> None:
    pictures = [large(shade) for shade in range(6)]
    async with bench(FakeVision(hidden_size=WIDE), pool_bytes=MIB) as b:
        b.llm.pulls = False
        call = b.call("r", [item(i, data) for i, data in enumerate(pictures)])
        for _ in range(4):
            assert (await call.read()).HasField("published")
        await b.prepared(pictures[4])
        assert b.replica.publisher.num_held == 4
        assert b.replica.reception.load().num_items == 2
        assert sum(len(batch) for batch in b.fake.batches) == 4
        assert b.metric("redserve_encoder_cache_evictions_total") == 0
        # One is fetched: one more fits, whichever it is.
        await b.llm.pull(b.llm.announced[2])
        assert (await call.read()).published.index == 4
        for index in (0, 1, 3):
            await b.llm.pull(b.llm.announced[index])
        assert (await call.read()).published.index == 5
        assert await call.read() == grpc.aio.EOF
        for index in (4, 5):
            await b.llm.pull(b.llm.announced[index])
        assert not b.llm.errors
        for index, data in enumerate(pictures):
            assert b.llm.landed["r", index] == b.fake.embedding(sha(data), 64)


async def test_what_has_room_is_encoded_although_the_next_item_has_none() -> None:
    small, huge = picture(16, 16, 1), picture(16 * 200, 16, 2)
    held = large(3)
    gate = Gate(is_open=True)
    async with bench(FakeVision(hidden_size=WIDE, wait=gate), pool_bytes=MIB) as b:
        b.llm.pulls = False
        await b.encode("holder", [item(0, held)])
        gate.is_open = False
        first = asyncio.create_task(b.encode("first", [item(0, picture(16, 16, 9))]))
        await gate.batches_entered(2)
        call = b.call("r", [item(0, small), item(1, huge)])
        await b.waiting(3)
        await b.prepared(small, huge)
        gate.open()
        assert (await call.read()).published.index == 0
        assert published(await first) == [0]
        assert b.replica.reception.load().num_items == 1
        for announcement in list(b.llm.announced):
            await b.llm.pull(announcement)
        assert (await call.read()).published.index == 1
        await b.llm.pull(b.llm.announced[-1])


async def test_a_waiting_call_that_is_cancelled_gives_up_its_place() -> None:
    pictures = [large(shade) for shade in range(5)]
    async with bench(FakeVision(hidden_size=WIDE), pool_bytes=MIB) as b:
        b.llm.pulls = False
        await b.encode("holder", [item(i, data) for i, data in enumerate(pictures[:4])])
        waiting = b.call("waiting", [item(0, pictures[4])])
        await b.prepared(pictures[4])
        waiting.cancel()
        await b.waiting(0)
        assert b.replica.reception.lineup.is_empty
        for announcement in b.llm.announced:
            await b.llm.pull(announcement)


async def test_a_lease_that_outlives_its_hold_keeps_the_memory() -> None:
    pictures = [large(shade) for shade in range(5)]
    async with bench(FakeVision(hidden_size=WIDE), pool_bytes=MIB) as b:
        b.llm.pulls = False
        await b.encode("holder", [item(i, data) for i, data in enumerate(pictures[:4])])
        tables = b.replica.producer.lease_table
        leased = tables.prepare(b.llm.announced[0].request.tensor_key, "llm-0")
        before = bytes(read(tables.buffer_of(leased.lease_id), 0, leased.num_bytes))
        waiting = asyncio.create_task(b.encode("next", [item(0, pictures[4])]))
        await b.prepared(pictures[4])
        for delivery in b.replica.reception.ledger.of_request("holder", [0]):
            b.replica.reception.drop(delivery, InternalError("for the test"))
        # Evicted, but somebody may still be reading: the bytes stay and nobody else gets them.
        await until(lambda: b.replica.pool.quarantined_bytes == 64 * 4096)
        (piece,) = leased.segments
        assert bytes(b.replica.pool.buffer[piece.offset :][: piece.num_bytes]) == before
        assert not waiting.done()
        tables.reap(time.monotonic() + tables.ttl_s + tables.grace_s)
        assert published(await waiting) == [0]
        for announcement in b.llm.announced[1:]:
            await b.llm.pull(announcement)


async def test_a_probe_makes_pictures_wait_and_harms_nobody() -> None:
    async with bench(FakeVision(hidden_size=WIDE), pool_bytes=MIB) as b:
        producer = GrpcProducer(open_channel(b.replica.address), b.replica.address)
        for shade in range(3):
            lease = await producer.prepare(probe_key(MIB), "somebody", 5)
            waiting = asyncio.create_task(b.encode(f"r{shade}", [item(0, large(shade))]))
            await b.prepared(large(shade))
            assert not waiting.done()
            await producer.release(lease.lease_id, consumed=True, timeout_s=5)
            assert published(await waiting) == [0]
            await b.replica.reception.ledger.wait_empty()
            b.replica.cache.clear()
        await producer.close()


def test_the_books_refuse_nonsense() -> None:
    cache = EmbeddingCache(Pool(8 * 4096))
    with pytest.raises(PolicyViolation, match="poolBytes"):
        cache.try_reserve(b"a", 9, 9 * 4096)
    embedding = cache.try_reserve(b"a", 1, 4096)
    assert embedding is not None
    assert cache.get(b"a") is None
    cache.commit(embedding)
    with pytest.raises(InternalError, match="twice"):
        cache.commit(Embedding(b"a", 1, embedding.region))
    cache.unpin(embedding)
    with pytest.raises(InternalError, match="too often"):
        cache.unpin(embedding)
    assert cache.get(b"a") is embedding


VERBS = ("get", "reserve", "commit", "unpin", "clear")


@given(
    steps=st.lists(st.tuples(st.sampled_from(VERBS), st.integers(0, 5))),
    num_pages=st.integers(1, 6),
)
def test_whatever_happens_pins_are_kept_and_pages_come_back(
    steps: list[tuple[str, int]], num_pages: int
) -> None:
    cache = EmbeddingCache(pool := Pool(num_pages * 4096))
    pins: list[Embedding] = []
    for verb, number in steps:
        content, size = bytes([number]), 1 + number % 3
        if verb == "get" and (found := cache.get(content)) is not None:
            assert found.content_hash == content
            assert found.region.view[0] == number
            pins.append(found)
        elif verb == "reserve" and size <= num_pages:
            room = cache.try_reserve(content, size, size * 4096)
            if room is not None:
                room.region.view[:] = number
                pins.append(room)
            else:
                assert pins, "an encoder that nobody keeps waiting has room"
        elif verb == "commit":
            for embedding in pins:
                if not embedding.committed and embedding.content_hash not in cache:
                    cache.commit(embedding)
                    break
        elif verb == "unpin" and pins:
            cache.unpin(pins.pop(number % len(pins)))
        elif verb == "clear":
            cache.clear()
        for embedding in pins:
            assert set(embedding.region.view) == {embedding.content_hash[0]}
        cache.check_integrity()
    for embedding in pins:
        cache.unpin(embedding)
    cache.clear()
    cache.check_integrity()
    assert pool.used_bytes == 0
