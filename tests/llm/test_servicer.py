"""The service over real gRPC: answers, and what it says of itself."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest

from redserve.errors import (
    Unavailable,
)
from redserve.v1 import llm_pb2 as pb
from redserve.v1 import types_pb2
from redserve.wire.types import sampling_from_proto
from tests.llm.service import (
    MIB,
    ROW_BYTES,
    TIMEOUT_S,
    Gate,
    Question,
    check,
    error_of,
    question,
    running,
)

if TYPE_CHECKING:
    from tests.llm.service import Service


# -- the way it should go -----------------------------------------------------------------


async def test_text_is_answered(service: Service) -> None:
    asked = question("r")
    call = service.call(asked)
    answer = await call.finish()
    check(call, asked)
    assert answer.finished is not None
    assert answer.finished.reason == types_pb2.FINISH_REASON_LENGTH
    assert answer.finished.usage.num_prompt_tokens == len(asked.request.token_ids)
    assert answer.finished.usage.num_output_tokens == 6
    assert [bar.name for bar in answer.finished.bars] == ["queue", "prefill", "decode"]
    assert {bar.lane for bar in answer.finished.bars} == {"llm-0"}
    await service.check_nothing_is_left()


async def test_prefill_overlaps_the_arrival_of_images(service: Service) -> None:
    """Each image that lands is prefilled before the next one is even announced."""
    asked = question("r", 3)
    call = service.call(asked)
    await call.until("admitted")
    assert call.answer.admitted is not None
    assert list(call.answer.admitted.needed_items) == [0, 1, 2]
    for index in range(3):
        response = await service.encoder.announce(asked, index)
        assert response.accepted
        await call.until("item_landed")
        assert (await service.encoder.released.get())[1], "pulled, but not as consumed"
        async with asyncio.timeout(TIMEOUT_S):  # its rows are computed and given up
            while service.replica.pool.used_bytes:
                await asyncio.to_thread(lambda: None)
    answer = await call.finish()
    check(call, asked)
    assert answer.landed == [(0, 1), (1, 1), (2, 1)]
    assert answer.finished is not None
    names = [bar.name for bar in answer.finished.bars]
    assert names.count("transfer") == 3
    assert names.count("prefill") >= 4
    assert answer.finished.usage.num_item_tokens == 12
    await service.check_nothing_is_left()


async def test_whoever_watches_sees_every_bar_when_it_is_made(service: Service) -> None:
    asked = question("r", 2)
    call = service.call(asked, watched=True)
    await call.until("admitted")
    for index in range(2):
        assert (await service.encoder.announce(asked, index)).accepted
        while ("transfer", index) not in ((bar.name, bar.item_index) for bar in call.answer.bars):
            await call.next()
    answer = await call.finish()
    check(call, asked)
    assert answer.finished is not None
    decode = [bar for bar in answer.finished.bars if bar.name == "decode"]

    def key(bar: types_pb2.TimelineBar) -> tuple[int, str]:
        return bar.start_unix_ns, bar.name

    assert sorted([*answer.bars, *decode], key=key) == sorted(answer.finished.bars, key=key)
    await service.check_nothing_is_left()


async def test_nobody_else_does(service: Service) -> None:
    asked = question("r", 1)
    call = service.call(asked)
    await call.until("admitted")
    await service.encoder.announce(asked, 0)
    answer = await call.finish()
    assert answer.bars == []


@pytest.mark.parametrize("order", [(2, 1, 0), (1, 2, 0), (0, 2, 1)])
async def test_images_come_in_any_order(service: Service, order: tuple[int, ...]) -> None:
    asked = question("r", 3)
    call = service.call(asked)
    await call.until("admitted")
    for index in order:
        assert (await service.encoder.announce(asked, index)).accepted
    await call.finish()
    check(call, asked)
    await service.check_nothing_is_left()


async def test_without_overlap_prefill_waits_for_the_last_image() -> None:
    async with running(overlap=False) as service:
        gate = Gate(service.runner)
        asked = question("r", 2)
        call = service.call(asked)
        await call.until("admitted")
        await service.encoder.announce(asked, 0)
        await call.until("item_landed")
        num_steps = service.runner.num_steps
        rows = service.replica.scheduler.stats().rows_held
        assert rows == 0, "the engine has rows of an incomplete request"
        await service.encoder.announce(asked, 1)
        await call.finish()
        assert service.runner.num_steps > num_steps
        check(call, asked)
        gate.open()
        await service.check_nothing_is_left()


async def test_many_requests_share_one_small_everything() -> None:
    """Four items' room, blocks for about two requests, eight requests of three images."""
    async with running(arena_bytes=MIB, num_blocks=16, token_budget=9) as service:
        asked = [question(f"r{n}", 3, rows_per_image=12, seed=n) for n in range(8)]
        pool = service.replica.pool
        taken = pool.try_alloc(pool.num_bytes - 4 * 12 * ROW_BYTES)
        assert taken is not None

        async def serve(one: Question) -> None:
            call = service.call(one, timeout_s=60)
            attempts = [0, 0, 0]
            wanted = asyncio.Queue[int]()

            async def announce() -> None:
                while True:
                    index = await wanted.get()
                    attempts[index] += 1
                    await service.encoder.announce(one, index, attempts[index])

            task = asyncio.create_task(announce())
            try:
                while (name := await call.next()) != "finished":
                    if name == "admitted":
                        assert call.answer.admitted is not None
                        for index in reversed(call.answer.admitted.needed_items):
                            wanted.put_nowait(index)
                    elif name == "item_needed":
                        wanted.put_nowait(call.answer.needed[-1].index)
            finally:
                task.cancel()
            check(call, one)

        await asyncio.gather(*(serve(one) for one in asked))
        taken.free()
        await service.check_nothing_is_left()


# -- what it says of itself ---------------------------------------------------------------


async def test_load_is_told_at_once_and_when_it_changes(service: Service) -> None:
    watch = service.stub.WatchLoad(pb.LlmServiceWatchLoadRequest())
    first = await watch.read()
    assert first.serving
    assert first.num_running == 0
    asked = question("r", 1)
    call = service.call(asked)
    await call.until("admitted")
    async with asyncio.timeout(TIMEOUT_S):
        while not (load := await watch.read()).num_running:
            pass
    assert load.blocks_free < load.blocks_total
    await service.encoder.announce(asked, 0)
    await call.finish()
    async with asyncio.timeout(TIMEOUT_S):
        while (await watch.read()).num_running:
            pass
    watch.cancel()


async def test_model_info(service: Service) -> None:
    info = await service.stub.GetModelInfo(pb.LlmServiceGetModelInfoRequest())
    assert (info.family, info.num_layers, info.hidden_size) == ("fake", 2, 512)
    assert info.max_model_length == 200
    assert info.kv_cache_tokens == 256
    assert info.transport == "grpc"
    assert info.max_item_bytes == service.replica.pool.num_bytes
    sampling = sampling_from_proto(info.default_sampling, question("x").request.sampling)
    assert sampling.max_tokens == 200


async def test_the_first_chunk_is_told_once_when_it_has_run(service: Service) -> None:
    asked = question("r", 1)
    call = service.call(asked)
    await call.until("admitted")
    assert (await service.encoder.announce(asked, 0)).accepted
    answer = await call.finish()
    assert answer.finished is not None
    (begun,) = answer.begun
    queue = next(bar for bar in answer.finished.bars if bar.name == "queue")
    assert begun.start_ns == queue.end_unix_ns


async def test_metrics_count_what_happened(service: Service) -> None:
    await service.call(question("r")).finish()
    value = service.replica.registry.get_sample_value
    assert value("redserve_generated_tokens_total") == 6
    assert value("redserve_queue_wait_seconds_count") == 1
    assert value("redserve_kv_blocks", {"state": "used"}) == 0
    assert value("redserve_arena_bytes") == 0


async def test_draining_lets_running_requests_end(service: Service) -> None:
    """Also those whose embeddings are still to come."""
    asked = question("r", 1)
    call = service.call(asked)
    await call.until("admitted")
    drain = asyncio.create_task(service.replica.drain(TIMEOUT_S))
    async with asyncio.timeout(TIMEOUT_S):
        while not isinstance(await error_of(service.call(question("s"))), Unavailable):
            pass
    assert (await service.encoder.announce(asked, 0)).accepted
    await call.finish()
    check(call, asked)
    await asyncio.wait_for(drain, TIMEOUT_S)


async def test_an_idle_replica_takes_no_cpu(service: Service) -> None:
    await service.call(question("r")).finish()
    parked = service.call(question("parked", 1, seed=2))  # its image does not come
    await parked.until("admitted")
    await asyncio.sleep(0.2)  # whatever the start left behind
    before, wall = time.process_time(), time.monotonic()
    await asyncio.sleep(1.0)  # measured, not waited for
    used_s = time.process_time() - before
    assert used_s < 0.05 * (time.monotonic() - wall)
    await parked.cancel()
