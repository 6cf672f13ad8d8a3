"""Embeddings over real gRPC: tags, transfers that fail, room; nothing is left behind."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from redserve.errors import (
    InvalidArgument,
)
from redserve.telemetry.clock import now_ns
from redserve.telemetry.timeline import ABORTED, ROOM, TRANSFER
from redserve.transport.base import PeerInfo
from redserve.wire.errors import from_rpc_error
from redserve.wire.transport import peer_to_proto
from redserve_llm.pulls import LEAST_WAIT_NS
from tests.llm.fake_encoder import FakeEncoder
from tests.llm.service import (
    MIB,
    ROW_BYTES,
    TIMEOUT_S,
    Gate,
    check,
    error_of,
    question,
    running,
)

if TYPE_CHECKING:
    from tests.llm.service import Service


# -- tags ---------------------------------------------------------------------------------


async def test_doubled_late_and_foreign_tags_are_dropped(service: Service) -> None:
    gate = Gate(service.runner)
    gate.close()
    asked = question("r", 2)
    call = service.call(asked)
    await call.until("admitted")
    assert (await service.encoder.announce(asked, 0, attempt=2)).accepted
    await call.until("item_landed")
    doubled = await service.encoder.announce(asked, 0, attempt=2, offer=False)
    late = await service.encoder.announce(asked, 0, attempt=1)
    here_already = await service.encoder.announce(asked, 0, attempt=3)
    other_generation = await service.encoder.announce(asked, 1, generation=7)
    foreign = await service.encoder.announce(question("nobody", 1), 0)
    refused = (doubled, late, here_already, other_generation, foreign)
    assert not any(response.accepted for response in refused)
    assert all(response.why for response in refused)
    gate.open()
    assert (await service.encoder.announce(asked, 1, attempt=1, offer=False)).accepted
    await call.finish()
    check(call, asked)
    after = await service.encoder.announce(asked, 0, attempt=9)
    assert not after.accepted
    await service.check_nothing_is_left()


async def test_an_encoder_may_ask_whether_its_embedding_is_still_wanted(service: Service) -> None:
    """By saying again that it is there."""
    asked = question("r", 1)
    call = service.call(asked)
    await call.until("admitted")
    filler = service.replica.pool.alloc(service.replica.pool.num_bytes)
    try:
        for _ in range(3):
            assert (await service.encoder.announce(asked, 0, offer=False)).accepted, "it is in line"
    finally:
        filler.free()
    await call.until("item_needed")  # nothing was offered
    assert not (await service.encoder.announce(asked, 0, offer=False)).accepted
    dropped = service.replica.registry.get_sample_value
    assert dropped("redserve_items_dropped_total", {"why": "late"}) == 0, "a question is no loss"
    assert (await service.encoder.announce(asked, 0, attempt=2)).accepted
    asks: dict[str, Any] = {"offer": False, "producer": peer_to_proto(PeerInfo("", "", ""))}
    assert not (await service.encoder.announce(asked, 0, attempt=1, **asks)).accepted
    await call.finish()
    check(call, asked)
    assert not (await service.encoder.announce(asked, 0, attempt=2, **asks)).accepted
    assert dropped("redserve_items_dropped_total", {"why": "late"}) == 0
    await service.check_nothing_is_left()


async def test_a_newer_attempt_replaces_one_that_has_not_landed(service: Service) -> None:
    """The first producer hangs; the router asks another one before the pull times out."""
    asked = question("r", 1)
    call = service.call(asked)
    await call.until("admitted")
    reached = asyncio.Event()

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reached.set()
        await reader.read()  # and never answer
        writer.close()

    hung = await asyncio.start_server(hang, "127.0.0.1", 0)
    async with hung:
        port = hung.sockets[0].getsockname()[1]
        peer = replace(
            service.encoder.side.peer_info, incarnation="hung", address=f"127.0.0.1:{port}"
        )
        response = await service.encoder.announce(
            asked, 0, attempt=2, offer=False, producer=peer_to_proto(peer)
        )
        assert response.accepted
        await asyncio.wait_for(reached.wait(), TIMEOUT_S)
        late = await service.encoder.announce(asked, 0, attempt=1)
        assert not late.accepted
        assert (await service.encoder.announce(asked, 0, attempt=3)).accepted
        answer = await call.finish()
    assert answer.landed == [(0, 3)]
    assert not answer.needed
    check(call, asked)
    await service.check_nothing_is_left()


@pytest.mark.parametrize(
    ("changes", "field"),
    [({"shape": (2, 5, 512)}, "shape"), ({"dtype": "int8"}, "dtype"), ({"tensor_key": ""}, "key")],
)
async def test_an_embedding_of_another_model_is_refused(
    service: Service, changes: dict[str, Any], field: str
) -> None:
    asked = question("r", 1)
    call = service.call(asked)
    await call.until("admitted")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await service.encoder.announce(asked, 0, **changes)
    error = from_rpc_error(caught.value)
    assert isinstance(error, InvalidArgument)
    assert field in str(error.field)
    assert (await service.encoder.announce(asked, 0, offer=False)).accepted
    await call.finish()
    check(call, asked)


# -- transfers that fail ------------------------------------------------------------------


async def test_a_lost_producer_is_reported_and_replaced(service: Service) -> None:
    asked = question("r", 1)
    call = service.call(asked)
    await call.until("admitted")
    dying = FakeEncoder(service.replica.address)
    await dying.server.start()
    await dying.stop()
    assert (await dying.announce(asked, 0)).accepted
    await call.until("item_needed")
    assert (call.answer.needed[0].index, call.answer.needed[0].lost_attempt) == (0, 1)
    assert call.answer.needed[0].why == "peer lost"
    assert (await service.encoder.announce(asked, 0, attempt=2)).accepted
    answer = await call.finish()
    check(call, asked)
    assert answer.finished is not None
    moved = [bar for bar in answer.finished.bars if bar.name in (TRANSFER, ABORTED)]
    assert [(bar.name, bar.item_index, bar.detail) for bar in moved] == [
        (ABORTED, 0, "peer lost"),
        (TRANSFER, 0, ""),
    ]
    await dying.close()
    await service.check_nothing_is_left()


async def test_an_evicted_tensor_is_asked_for_again(service: Service) -> None:
    asked = question("r", 1)
    call = service.call(asked)
    await call.until("admitted")
    assert (await service.encoder.announce(asked, 0, offer=False)).accepted
    await call.until("item_needed")
    assert call.answer.needed[0].why == "tensor gone"
    assert (await service.encoder.announce(asked, 0, attempt=2)).accepted
    await call.finish()
    check(call, asked)
    await service.check_nothing_is_left()


async def test_corrupt_bytes_never_reach_the_engine(service: Service) -> None:
    asked = question("r", 1)
    call = service.call(asked)
    await call.until("admitted")
    service.encoder.offer("bad", asked.rows[0])
    service.encoder._regions["bad"].view[0] ^= 1  # after its checksum was taken
    await service.encoder.announce(asked, 0, offer=False, tensor_key="bad")
    await call.until("item_needed")
    assert call.answer.needed[0].why == "corrupt transfer"
    assert (await service.encoder.announce(asked, 0, attempt=2)).accepted
    await call.finish()
    check(call, asked)
    await service.check_nothing_is_left()


# -- room ---------------------------------------------------------------------------------


async def test_an_arena_smaller_than_one_request() -> None:
    """Five images, room for two and a half: the first ones are used before the last ones land."""
    async with running(arena_bytes=MIB, num_blocks=700) as service:
        rows = 30
        pool = service.replica.pool
        taken = pool.try_alloc(pool.num_bytes - 2 * rows * ROW_BYTES - ROW_BYTES)
        assert taken is not None
        asked = question("r", 5, rows_per_image=rows)
        call = service.call(asked)
        await call.until("admitted")
        for index in (4, 3, 2, 1):
            assert (await service.encoder.announce(asked, index)).accepted
        for _ in range(2):
            await call.until("item_landed")
        assert (await service.encoder.announce(asked, 0)).accepted
        attempts = [1] * 5
        while (name := await call.next()) != "finished":
            if name == "item_needed":
                lost = call.answer.needed[-1]
                assert lost.why == "evicted"
                assert lost.lost_attempt == attempts[lost.index]
                attempts[lost.index] += 1
                await service.encoder.announce(asked, lost.index, attempts[lost.index])
        check(call, asked)
        assert call.answer.needed, "nothing gave way to the first image"
        taken.free()
        await service.check_nothing_is_left()


async def test_waiting_for_room_is_a_bar_of_its_own(service: Service) -> None:
    pool = service.replica.pool
    taken = pool.try_alloc(pool.num_bytes)
    assert taken is not None
    asked = question("r", 1)
    call = service.call(asked)
    await call.until("admitted")
    assert (await service.encoder.announce(asked, 0)).accepted
    full_ns = now_ns()
    while now_ns() - full_ns < LEAST_WAIT_NS:
        await asyncio.to_thread(lambda: None)
    taken.free()
    answer = await call.finish()
    check(call, asked)
    assert answer.finished is not None
    waited, moved = (bar for bar in answer.finished.bars if bar.name in (ROOM, TRANSFER))
    assert (waited.name, waited.item_index) == (ROOM, 0)
    assert waited.end_unix_ns - waited.start_unix_ns >= LEAST_WAIT_NS
    assert moved.name == TRANSFER
    assert moved.start_unix_ns <= waited.end_unix_ns, "nothing lies between the two"
    await service.check_nothing_is_left()


async def test_without_overlap_an_arena_smaller_than_one_request_does_not_hang() -> None:
    async with running(arena_bytes=MIB, num_blocks=700, overlap=False) as service:
        pool = service.replica.pool
        taken = pool.try_alloc(pool.num_bytes - 2 * 30 * ROW_BYTES - ROW_BYTES)
        assert taken is not None
        asked = question("r", 4, rows_per_image=30)
        call = service.call(asked)
        await call.until("admitted")
        for index in range(4):
            assert (await service.encoder.announce(asked, index)).accepted
        await call.finish()
        check(call, asked)
        taken.free()
        await service.check_nothing_is_left()


async def test_an_image_larger_than_the_arena_is_refused() -> None:
    async with running(arena_bytes=MIB, num_blocks=400, max_model_length=900) as service:
        big = question("big", 1, rows_per_image=MIB // ROW_BYTES + 1)
        error = await error_of(service.call(big))
        assert isinstance(error, InvalidArgument)
        assert error.field == "items[0]"
        assert str(MIB) in error.message
        await service.check_nothing_is_left()


async def test_an_embedding_that_can_never_fit_is_refused() -> None:
    """In the replica's own dtype it would; the encoder's is wider."""
    async with running(arena_bytes=MIB, num_blocks=400, max_model_length=900) as service:
        servicer = service.replica._servicer
        servicer._limits = replace(servicer._limits, dtype="bfloat16")
        asked = question("r", 1, rows_per_image=MIB // ROW_BYTES + 1)
        call = service.call(asked)
        await call.until("admitted")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await service.encoder.announce(asked, 0)
        error = from_rpc_error(caught.value)
        assert isinstance(error, InvalidArgument)
        assert "arena" in error.message
        await call.cancel()
        await service.check_nothing_is_left()
