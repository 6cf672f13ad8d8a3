"""Handing over: refusals, lost LLM replicas, cancellation, deadlines, late releases."""

from __future__ import annotations

import asyncio
import time

import grpc
import pytest
from prometheus_client import CollectorRegistry

from redserve.errors import TensorGone
from redserve.telemetry.clock import now_ns
from redserve.telemetry.metrics.encoder import EncoderMetrics
from redserve.v1 import encoder_pb2 as pb
from redserve_encoder import llm_clients
from redserve_encoder.delivery import Failed, GenerationTag
from redserve_encoder.fake import FakeVision
from redserve_encoder.intake import CallFacts, Intake, WantedItem
from tests.encoder.support import (
    TIMEOUT_S,
    Announcement,
    Bench,
    FakeLlm,
    Gate,
    bench,
    failures,
    item,
    picture,
    published,
    sha,
    until,
)


async def told(b: Bench, number: int = 1) -> list[Announcement]:
    """Until the LLM replica has been told of so many."""
    await until(lambda: len(b.llm.announced) >= number)
    return b.llm.announced


async def cancel(b: Bench, request_id: str, *indices: int) -> None:
    request = pb.EncoderServiceCancelRequest(request_id=request_id, item_indices=indices)
    await b.stub.Cancel(request, timeout=TIMEOUT_S)


async def prepare(b: Bench, announcement: Announcement) -> None:
    """Ask for what was announced, and let it go again."""
    table = b.replica.producer.lease_table
    table.release(table.prepare(announcement.request.tensor_key, "llm-0").lease_id, consumed=False)


async def test_what_the_llm_replica_refuses_is_not_held() -> None:
    async with bench() as b:
        b.llm.accept = False
        [event] = await b.encode("r", [item(0, picture())])
        # It was told; that it is late or doubled is between it and the router.
        assert event.HasField("published")
        assert [bar.detail for bar in event.published.bars if bar.name == "publish"] == [
            "refused: late"
        ]
        assert b.replica.publisher.num_held == 0
        with pytest.raises(TensorGone):
            await prepare(b, b.llm.announced[0])


async def test_an_llm_replica_that_is_gone_fails_the_item_soon(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(llm_clients, "RETRY_DELAYS_S", (0.01, 0.02))
    async with bench() as b:
        events = await b.encode("r", [item(0, picture())], destination="127.0.0.1:9")
        assert failures(events) == {0: "UNAVAILABLE"}
        assert "127.0.0.1:9" in events[0].failed.error.message
        # What was encoded for nothing is there for whoever asks next.
        assert published(await b.encode("s", [item(0, picture())])) == [0]
        assert len(b.fake.batches) == 1


async def test_an_llm_replica_that_comes_back_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llm_clients, "RETRY_DELAYS_S", (0.2,) * 50)
    second = FakeLlm()
    async with bench() as b:
        address = b.llm.address
        await b.llm.stop()
        call = asyncio.create_task(b.encode("r", [item(0, picture())], destination=address))
        await until(lambda: b.replica.publisher.num_held == 1)
        await second.start(int(address.rpartition(":")[2]))
        try:
            assert published(await call) == [0]
            await until(lambda: ("r", 0) in second.landed)
        finally:
            await b.replica.reception.ledger.wait_empty()
            await second.stop()
            await b.llm.start()


async def test_a_llm_replica_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llm_clients, "RETRY_DELAYS_S", ())
    monkeypatch.setattr(llm_clients, "ANSWER_TIMEOUT_S", 0.1)
    async with bench() as b:
        b.llm.pulls = False
        b.llm.answers.clear()
        assert failures(await b.encode("r", [item(0, picture())])) == {0: "UNAVAILABLE"}


async def test_a_failed_pull_may_be_tried_again() -> None:
    async with bench() as b:
        b.llm.pulls = False
        await b.encode("r", [item(0, picture())])
        table = b.replica.producer.lease_table
        lease = table.prepare(b.llm.announced[0].request.tensor_key, "llm-0")
        table.release(lease.lease_id, consumed=False)
        await asyncio.sleep(0)
        assert b.replica.publisher.num_held == 1
        await b.llm.pull(b.llm.announced[0])
        assert ("r", 0) in b.llm.landed


async def test_a_release_before_the_answer_is_as_good_as_after_it() -> None:
    async with bench() as b:
        b.llm.answers.clear()
        call = asyncio.create_task(b.encode("r", [item(0, picture())]))
        await b.landed(("r", 0))
        await until(lambda: b.replica.publisher.num_held == 0)
        assert not call.done()
        b.llm.answers.set()
        assert published(await call) == [0]


async def test_cancel_drops_what_is_queued_and_what_is_held() -> None:
    gate = Gate(is_open=True)
    held, blocker, queued, other = (picture(shade=shade) for shade in range(4))
    async with bench(FakeVision(wait=gate), batch_rows=4) as b:
        b.llm.pulls = False
        await b.encode("held", [item(0, held)])
        gate.is_open = False
        calls = [asyncio.create_task(b.encode("held", [item(1, blocker)]))]
        await gate.batches_entered(2)
        calls.append(asyncio.create_task(b.encode("held", [item(2, queued)])))
        calls.append(asyncio.create_task(b.encode("other", [item(0, other)])))
        await b.waiting(3)
        await cancel(b, "held")
        assert [failures(await call) for call in calls[:2]] == [{1: "CANCELLED"}, {2: "CANCELLED"}]
        assert b.replica.publisher.num_held == 0
        with pytest.raises(TensorGone):
            await prepare(b, b.llm.announced[0])
        gate.open()
        assert published(await calls[2]) == [0]
        # The one on the device was finished, for the cache; the queued one was never begun.
        assert sum(len(batch) for batch in b.fake.batches) == 3
        await b.llm.pull(b.llm.announced[-1])


async def test_cancel_of_one_item_spares_the_others() -> None:
    async with bench() as b:
        b.llm.pulls = False
        await b.encode("r", [item(0, picture(shade=1)), item(1, picture(shade=2))])
        await cancel(b, "r", 1)
        assert b.replica.publisher.num_held == 1
        by_index = {a.request.tag.item_index: a for a in b.llm.announced}
        await b.llm.pull(by_index[0])
        with pytest.raises(TensorGone):
            await prepare(b, by_index[1])
        await cancel(b, "never heard of")


async def test_one_of_two_who_share_a_picture_may_leave() -> None:
    gate = Gate()
    blocker, shared = picture(shade=1), picture(shade=2)
    async with bench(FakeVision(wait=gate), batch_rows=4) as b:
        first = asyncio.create_task(b.encode("first", [item(0, blocker)]))
        await gate.batches_entered(1)
        leaving = asyncio.create_task(b.encode("leaving", [item(0, shared)]))
        await b.waiting(2)
        staying = asyncio.create_task(b.encode("staying", [item(0, shared, send=False)]))
        await b.waiting(3)
        await cancel(b, "leaving")
        gate.open()
        assert failures(await leaving) == {0: "CANCELLED"}
        assert published(await staying) == [0]
        assert published(await first) == [0]
        await b.landed(("staying", 0))
        assert ("leaving", 0) not in {a.name for a in b.llm.announced}


async def test_a_client_that_goes_away_takes_its_queue_with_it() -> None:
    gate = Gate()
    pictures = [picture(shade=shade) for shade in range(4)]
    async with bench(FakeVision(wait=gate), batch_rows=4) as b:
        call = b.call("r", [item(i, data) for i, data in enumerate(pictures)])
        await gate.batches_entered(1)
        gate.let()
        assert (await call.read()).published.index == 0
        await b.landed(("r", 0))
        call.cancel()
        await b.waiting(0)
        assert b.replica.reception.lineup.num_rows == 0
        gate.open()
        # What had been published stayed; the one on the device was not announced.
        assert {a.name for a in b.llm.announced} == {("r", 0)}


async def test_what_was_published_before_the_client_went_away_stays() -> None:
    async with bench() as b:
        b.llm.pulls = False
        call = b.call("r", [item(0, picture())])
        assert (await call.read()).HasField("published")
        call.cancel()
        await b.llm.pull(b.llm.announced[0])
        assert ("r", 0) in b.llm.landed


async def test_leaving_while_the_llm_replica_is_being_told_drops_the_hold() -> None:
    async with bench() as b:
        b.llm.pulls = False
        b.llm.answers.clear()
        call = b.call("r", [item(0, picture())])
        await told(b)
        call.cancel()
        await b.replica.reception.ledger.wait_empty()
        assert b.replica.publisher.num_held == 0
        async with asyncio.timeout(5):
            await until(lambda: not b.replica.publisher._tasks)


async def test_nothing_is_encoded_past_its_deadline() -> None:
    gate = Gate()
    blocker, late = picture(shade=1), picture(shade=2)
    async with bench(FakeVision(wait=gate), batch_rows=4) as b:
        first = asyncio.create_task(b.encode("first", [item(0, blocker)]))
        await gate.batches_entered(1)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await b.encode("late", [item(0, late)], timeout_s=1.0)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await b.waiting(1)
        gate.open()
        await first
        assert sum(len(batch) for batch in b.fake.batches) == 1


async def test_a_deadline_counts_even_where_nobody_hangs_up() -> None:
    gate = Gate()
    blocker, late = picture(shade=1), picture(shade=2)
    async with bench(FakeVision(wait=gate), batch_rows=4) as b:
        first = asyncio.create_task(b.encode("first", [item(0, blocker)]))
        await gate.batches_entered(1)
        deadline_s = time.monotonic() + 0.1
        tag = GenerationTag("late", 1, 0, 1)
        wanted = WantedItem(tag, sha(late), late, num_rows=4)
        facts = CallFacts(b.llm.address, False, now_ns(), now_ns(), deadline_s)
        metrics = EncoderMetrics(CollectorRegistry())
        intake = Intake(b.replica.reception, b.replica.pictures, metrics)
        outcomes = intake.encode(facts, [wanted])
        waiting = asyncio.ensure_future(anext(outcomes))
        await b.waiting(2)
        await until(lambda: time.monotonic() > deadline_s)
        gate.open()
        outcome = await waiting
        assert isinstance(outcome, Failed)
        assert outcome.reason == "DEADLINE_EXCEEDED"
        await first
        assert sum(len(batch) for batch in b.fake.batches) == 1


async def test_a_hold_ends_with_the_deadline_of_its_request() -> None:
    async with bench() as b:
        b.llm.pulls = False
        await b.encode("r", [item(0, picture())], timeout_s=1.0)
        assert b.replica.publisher.num_held == 1
        await b.replica.reception.ledger.wait_empty()
        assert b.replica.publisher.num_held == 0
        with pytest.raises(TensorGone):
            await prepare(b, b.llm.announced[0])


async def test_a_key_is_never_used_twice() -> None:
    data = picture()
    async with bench() as b:
        for attempt in (1, 1, 2):
            await b.encode("r", [item(0, data, attempt=attempt)])
        keys = [a.request.tensor_key for a in b.llm.announced]
        assert len(set(keys)) == 3


async def test_connections_to_replicas_of_the_past_are_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(llm_clients, "MAX_CHANNELS", 2)
    monkeypatch.setattr(llm_clients, "RETRY_DELAYS_S", ())
    async with bench() as b:
        for port in (1, 2, 3):
            await b.encode("r", [item(0, picture())], destination=f"127.0.0.1:{port}")
        assert published(await b.encode("r", [item(0, picture())])) == [0]
        kept = b.replica._clients._channels
        assert list(kept) == ["127.0.0.1:3", b.llm.address]
