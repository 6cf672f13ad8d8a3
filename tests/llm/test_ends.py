"""Every way in which a request may end over real gRPC; nothing is left behind."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from redserve.errors import (
    Cancelled,
    ContextTooLong,
    DeadlineExceeded,
    InternalError,
    InvalidArgument,
    Overloaded,
    Unavailable,
)
from redserve.v1 import llm_pb2 as pb
from redserve.v1 import types_pb2
from redserve_llm.runner.interface import RunnerDead
from tests.llm.service import (
    TIMEOUT_S,
    Gate,
    check,
    error_of,
    question,
    running,
)

if TYPE_CHECKING:
    from tests.llm.service import Service


# -- ends ---------------------------------------------------------------------------------


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
    error = await error_of(service.call(asked, timeout_s=0.3))
    assert isinstance(error, DeadlineExceeded)
    await service.check_nothing_is_left()


async def test_a_newer_generation_replaces_the_older(service: Service) -> None:
    older = service.call(question("r", 1, generation=1))
    await older.until("admitted")
    asked = question("r", 0, generation=2)
    newer = service.call(asked)
    await newer.finish()
    assert isinstance(await error_of(older), Cancelled)
    check(newer, asked)

    waiting = service.call(question("s", 1, generation=5))
    await waiting.until("admitted")
    late = await error_of(service.call(question("s", 0, generation=5)))
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


# -- refusals -----------------------------------------------------------------------------


async def test_too_long_a_prompt_names_the_numbers() -> None:
    async with running(num_blocks=16) as service:  # 64 tokens
        error = await error_of(service.call(question("r", 16)))
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
        error = await error_of(service.call(question("r3")))
        assert isinstance(error, Overloaded)
        assert error.retry_after_s is not None
        for call in calls:
            await call.cancel()
        await service.check_nothing_is_left()


# -- steps that fail ----------------------------------------------------------------------


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
    assert isinstance(await error_of(service.call(question("r"))), InternalError)
    await service.encoder.announce(question("w", 1, seed=3), 0)
    await waiting.finish()
    check(waiting, question("w", 1, seed=3))
    await service.check_nothing_is_left()


async def test_memory_that_runs_out_is_overload(service: Service) -> None:
    def fail(batch: object) -> None:
        service.runner.before_step = None
        raise Overloaded("out of memory", retry_after_s=1.0)

    service.runner.before_step = fail
    assert isinstance(await error_of(service.call(question("r"))), Overloaded)
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
    assert isinstance(await error_of(service.call(question("r"))), InternalError)
    assert isinstance(await error_of(other), Unavailable)
    assert isinstance(await error_of(service.call(question("s"))), Unavailable)
    assert not await asyncio.wait_for(ended, TIMEOUT_S)
    async with asyncio.timeout(TIMEOUT_S):
        while (await watch.read()).serving:
            pass
    watch.cancel()
    assert service.replica.pool.used_bytes == 0
