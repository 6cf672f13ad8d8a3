"""The service over real gRPC: every request ends, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from redserve.errors import (
    Cancelled,
    ContextTooLong,
    DeadlineExceeded,
    InternalError,
    InvalidArgument,
    Overloaded,
    RedServeError,
    Unavailable,
)
from redserve.v1 import llm_pb2 as pb
from redserve.v1 import types_pb2
from redserve.wire.errors import from_rpc_error
from redserve.wire.transport import peer_to_proto
from redserve.wire.types import sampling_from_proto
from redserve_llm.runner.interface import RunnerDead
from tests.llm.service import (
    MIB,
    ROW_BYTES,
    TIMEOUT_S,
    Call,
    Gate,
    Question,
    question,
    running,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.llm.service import Service


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    async with running() as service:
        yield service


async def _error(call: Call) -> RedServeError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.finish()
    return from_rpc_error(caught.value)


def _check(call: Call, asked: Question) -> None:
    assert call.answer.token_ids == asked.answer
    assert call.answer.text == asked.text


# -- the way it should go ------------------------------------------------------------------


async def test_text_is_answered(service: Service) -> None:
    asked = question("r")
    call = service.call(asked)
    answer = await call.finish()
    _check(call, asked)
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
    _check(call, asked)
    assert answer.landed == [(0, 1), (1, 1), (2, 1)]
    assert answer.finished is not None
    names = [bar.name for bar in answer.finished.bars]
    assert names.count("transfer") == 3
    assert names.count("prefill") >= 4
    assert answer.finished.usage.num_item_tokens == 12
    await service.check_nothing_is_left()


@pytest.mark.parametrize("order", [(2, 1, 0), (1, 2, 0), (0, 2, 1)])
async def test_images_come_in_any_order(service: Service, order: tuple[int, ...]) -> None:
    asked = question("r", 3)
    call = service.call(asked)
    await call.until("admitted")
    for index in order:
        assert (await service.encoder.announce(asked, index)).accepted
    await call.finish()
    _check(call, asked)
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
        _check(call, asked)
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
            _check(call, one)

        await asyncio.gather(*(serve(one) for one in asked))
        taken.free()
        await service.check_nothing_is_left()


# -- tags ----------------------------------------------------------------------------------


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
    _check(call, asked)
    after = await service.encoder.announce(asked, 0, attempt=9)
    assert not after.accepted
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
            asked, 0, attempt=1, offer=False, producer=peer_to_proto(peer)
        )
        assert response.accepted
        await asyncio.wait_for(reached.wait(), TIMEOUT_S)
        assert (await service.encoder.announce(asked, 0, attempt=2)).accepted
        answer = await call.finish()
    assert answer.landed == [(0, 2)]
    assert not answer.needed
    _check(call, asked)
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
    _check(call, asked)


# -- transfers that fail -------------------------------------------------------------------


async def test_a_lost_producer_is_reported_and_replaced(service: Service) -> None:
    asked = question("r", 1)
    call = service.call(asked)
    await call.until("admitted")
    dying = type(service.encoder)(service.replica.address)
    await dying.server.start()
    await dying.stop()
    assert (await dying.announce(asked, 0)).accepted
    await call.until("item_needed")
    assert (call.answer.needed[0].index, call.answer.needed[0].lost_attempt) == (0, 1)
    assert call.answer.needed[0].why == "peer lost"
    assert (await service.encoder.announce(asked, 0, attempt=2)).accepted
    await call.finish()
    _check(call, asked)
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
    _check(call, asked)
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
    _check(call, asked)
    await service.check_nothing_is_left()


# -- room ----------------------------------------------------------------------------------


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
        _check(call, asked)
        assert call.answer.needed, "nothing gave way to the first image"
        taken.free()
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
        _check(call, asked)
        taken.free()
        await service.check_nothing_is_left()


async def test_an_image_larger_than_the_arena_is_refused() -> None:
    async with running(arena_bytes=MIB, num_blocks=400, max_model_length=900) as service:
        big = question("big", 1, rows_per_image=MIB // ROW_BYTES + 1)
        error = await _error(service.call(big))
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


async def test_an_idle_replica_takes_no_cpu(service: Service) -> None:
    await service.call(question("r")).finish()
    parked = service.call(question("parked", 1, seed=2))  # its image does not come
    await parked.until("admitted")
    await asyncio.sleep(0.2)
    before, wall = time.process_time(), time.monotonic()
    await asyncio.sleep(1.0)  # measured, not waited for
    used_s = time.process_time() - before
    assert used_s < 0.05 * (time.monotonic() - wall)
    await parked.cancel()


# -- ends ----------------------------------------------------------------------------------


async def test_a_client_that_goes_away_frees_everything(service: Service) -> None:
    asked = question("r", 2)
    call = service.call(asked)
    await call.until("admitted")
    await service.encoder.announce(asked, 1)
    await call.until("item_landed")
    await call.cancel()
    await service.check_nothing_is_left()


async def test_a_client_that_goes_away_during_a_step(service: Service) -> None:
    gate = Gate(service.runner)
    asked = question("r", 1)
    call = service.call(asked)
    await call.until("admitted")
    gate.close()
    await service.encoder.announce(asked, 0)
    await asyncio.wait_for(gate.reached.wait(), TIMEOUT_S)
    await call.cancel()
    async with asyncio.timeout(TIMEOUT_S):
        while service.replica.hub.num_calls:
            await asyncio.to_thread(lambda: None)
    assert service.replica.pool.used_bytes, "rows were freed while a step reads them"
    gate.open()
    await service.check_nothing_is_left()


async def test_cancel_ends_the_stream(service: Service) -> None:
    asked = question("r", 1)
    call = service.call(asked)
    await call.until("admitted")
    await service.stub.Cancel(pb.LlmServiceCancelRequest(request_id="r"))
    answer = await call.finish()
    assert answer.finished is not None
    assert answer.finished.reason == types_pb2.FINISH_REASON_CANCELLED
    await service.stub.Cancel(pb.LlmServiceCancelRequest(request_id="unknown"))
    await service.check_nothing_is_left()


async def test_the_deadline_frees_everything(service: Service) -> None:
    asked = question("r", 1)  # its image never comes
    error = await _error(service.call(asked, timeout_s=0.3))
    assert isinstance(error, DeadlineExceeded)
    await service.check_nothing_is_left()


async def test_a_newer_generation_replaces_the_older(service: Service) -> None:
    older = service.call(question("r", 1, generation=1))
    await older.until("admitted")
    asked = question("r", 0, generation=2)
    newer = service.call(asked)
    await newer.finish()
    assert isinstance(await _error(older), Cancelled)
    _check(newer, asked)

    waiting = service.call(question("s", 1, generation=5))
    await waiting.until("admitted")
    late = await _error(service.call(question("s", 0, generation=5)))
    assert isinstance(late, InvalidArgument)
    assert late.field == "generation"
    await waiting.cancel()
    await service.check_nothing_is_left()


async def test_resumed_tokens_are_not_sent_again(service: Service) -> None:
    whole = question("r", 0, max_tokens=9)
    made = tuple(whole.answer[:4])
    call = service.call(question("again", 0, max_tokens=9, resume=made))
    answer = await call.finish()
    assert answer.token_ids == whole.answer[4:]
    assert answer.finished is not None
    assert answer.finished.usage.num_output_tokens == 9


async def test_resumed_when_it_was_complete(service: Service) -> None:
    whole = question("r", 0)
    call = service.call(question("again", 0, resume=tuple(whole.answer)))
    answer = await call.finish()
    assert not answer.token_ids
    assert answer.finished is not None
    assert answer.finished.reason == types_pb2.FINISH_REASON_LENGTH
    await service.check_nothing_is_left()


async def test_a_stop_text_ends_the_output(service: Service) -> None:
    whole = question("r", 0, max_tokens=40)
    stop = whole.text[10:13]
    call = service.call(question("r", 0, max_tokens=40, stop=(stop,)))
    answer = await call.finish()
    assert answer.text == whole.text[: whole.text.index(stop)]
    assert answer.finished is not None
    assert answer.finished.reason == types_pb2.FINISH_REASON_STOP


# -- refusals ------------------------------------------------------------------------------


async def test_too_long_a_prompt_names_the_numbers() -> None:
    async with running(num_blocks=16) as service:  # 64 tokens
        error = await _error(service.call(question("r", 16)))
        assert isinstance(error, ContextTooLong)
        assert "85" in error.message
        assert "64" in error.message
        await service.check_nothing_is_left()


async def test_max_tokens_end_at_the_context() -> None:
    async with running(num_blocks=16) as service:
        call = service.call(question("r", 0, max_tokens=1000))
        answer = await call.finish()
        assert answer.finished is not None
        assert answer.finished.usage.num_output_tokens == 64 - 5
        assert answer.finished.reason == types_pb2.FINISH_REASON_LENGTH
        await service.check_nothing_is_left()


async def test_a_full_queue_says_when_to_come_back() -> None:
    async with running(max_queued_requests=2, max_sequences=1) as service:
        calls = []
        for n in range(3):
            calls.append(service.call(question(f"r{n}", 1, seed=n)))
            await calls[-1].until("admitted")
            async with asyncio.timeout(TIMEOUT_S):
                while not service.runner.num_steps:  # the first one runs and waits for its image
                    await asyncio.to_thread(lambda: None)
        error = await _error(service.call(question("r3")))
        assert isinstance(error, Overloaded)
        assert error.retry_after_s is not None
        for call in calls:
            await call.cancel()
        await service.check_nothing_is_left()


# -- steps that fail -----------------------------------------------------------------------


async def test_a_failed_step_fails_its_requests_only(service: Service) -> None:
    def fail(batch: object) -> None:
        service.runner.before_step = None
        raise ValueError("a bug")

    waiting = service.call(question("w", 1, seed=3))
    await waiting.until("admitted")
    async with asyncio.timeout(TIMEOUT_S):
        while service.runner.num_steps == 0:  # its text is computed; it waits for its image
            await asyncio.to_thread(lambda: None)
    service.runner.before_step = fail
    assert isinstance(await _error(service.call(question("r"))), InternalError)
    await service.encoder.announce(question("w", 1, seed=3), 0)
    await waiting.finish()
    _check(waiting, question("w", 1, seed=3))
    await service.check_nothing_is_left()


async def test_memory_that_runs_out_is_overload(service: Service) -> None:
    def fail(batch: object) -> None:
        service.runner.before_step = None
        raise Overloaded("out of memory", retry_after_s=1.0)

    service.runner.before_step = fail
    assert isinstance(await _error(service.call(question("r"))), Overloaded)
    call = service.call(question("s"))
    await call.finish()
    await service.check_nothing_is_left()


async def test_a_broken_engine_says_so(service: Service) -> None:
    def fail(batch: object) -> None:
        raise RunnerDead("the device is gone")

    watch = service.stub.WatchLoad(pb.LlmServiceWatchLoadRequest())
    assert (await watch.read()).serving
    ended = asyncio.create_task(service.replica.run_until_signal())
    other = service.call(question("w", 1, seed=3))
    await other.until("admitted")
    async with asyncio.timeout(TIMEOUT_S):
        while service.runner.num_steps == 0:
            await asyncio.to_thread(lambda: None)
    service.runner.before_step = fail
    assert isinstance(await _error(service.call(question("r"))), InternalError)
    assert isinstance(await _error(other), Unavailable)
    assert isinstance(await _error(service.call(question("s"))), Unavailable)
    assert not await asyncio.wait_for(ended, TIMEOUT_S)
    async with asyncio.timeout(TIMEOUT_S):
        while (await watch.read()).serving:
            pass
    watch.cancel()
    assert service.replica.pool.used_bytes == 0


# -- what it says of itself ----------------------------------------------------------------


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
    assert info.max_item_bytes == service.replica.pool.num_bytes
    sampling = sampling_from_proto(info.default_sampling, question("x").request.sampling)
    assert sampling.max_tokens == 200


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
        while not isinstance(await _error(service.call(question("s"))), Unavailable):
            pass
    assert (await service.encoder.announce(asked, 0)).accepted
    await call.finish()
    _check(call, asked)
    await asyncio.wait_for(drain, TIMEOUT_S)
