"""Pictures in, embeddings at the LLM replica: order, batches, sharing, failures of single items."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import grpc
import pytest

from redserve.v1 import encoder_pb2 as pb
from redserve.wire.errors import CONTENT_MISSING
from redserve_encoder.fake import FakeVision
from tests.encoder.support import (
    MIB,
    Gate,
    bench,
    failures,
    item,
    picture,
    published,
    rows_of,
    sha,
)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
async def test_the_rows_arrive_as_the_model_made_them(dtype: str) -> None:
    data = picture(48, 32, shade=5)
    vision = FakeVision(hidden_size=24, num_layers=3, dtype=dtype)
    async with bench(vision) as b:
        events = await b.encode("r", [item(0, data)])
        await b.landed(("r", 0))
        told = b.llm.announced[0].request
        assert list(told.shape) == [3, 6, 24]
        assert told.dtype == dtype
        assert (told.tag.request_id, told.tag.generation) == ("r", 1)
        assert (told.tag.item_index, told.tag.attempt) == (0, 1)
        assert b.llm.landed["r", 0] == vision.embedding(sha(data), 6)
        assert published(events) == [0]
        assert events[0].published.attempt == 1
        assert not events[0].published.cached


async def test_bars_tell_what_was_done_in_order() -> None:
    async with bench() as b:
        [event] = await b.encode("r", [item(3, picture())])
        bars = event.published.bars
        assert [bar.name for bar in bars if bar.name != "queue"] == [
            "preprocess",
            "encode",
            "publish",
        ]
        assert {bar.lane for bar in bars} == {"encoder-0"}
        assert {bar.item_index for bar in bars} == {3}
        assert {bar.num_tokens for bar in bars} == {4}
        for earlier, later in itertools.pairwise(bars):
            assert earlier.start_unix_ns <= earlier.end_unix_ns <= later.start_unix_ns


async def test_every_item_is_published_when_it_is_done() -> None:
    gate = Gate()
    pictures = [picture(shade=shade) for shade in range(3)]
    async with bench(FakeVision(wait=gate)) as b:
        call = b.call("r", [item(i, data) for i, data in enumerate(pictures)], idle=True)
        for index in range(3):
            await gate.batches_entered(index + 1)
            gate.let()
            event = await call.read()
            assert event.published.index == index
            # Only this one has left the device; the next one is on it or about to be.
            assert len(b.llm.announced) == index + 1
        assert await call.read() == grpc.aio.EOF
        assert [len(batch) for batch in b.fake.batches] == [1, 1, 1]


async def test_batches_reach_across_requests_up_to_c_rows() -> None:
    gate = Gate()
    first, *rest = [picture(shade=shade) for shade in range(6)]  # 4 rows each
    async with bench(FakeVision(wait=gate), batch_rows=16) as b:
        calls = [asyncio.create_task(b.encode("first", [item(0, first)]))]
        await gate.batches_entered(1)
        for number, data in enumerate(rest):
            calls.append(asyncio.create_task(b.encode(f"r{number}", [item(0, data)])))
            await b.waiting(number + 2)
        await b.prepared(*rest[:4])
        assert b.metric("redserve_encode_queue_oldest_seconds") > 0
        gate.open()
        await asyncio.gather(*calls)
        assert [len(batch) for batch in b.fake.batches] == [1, 4, 1]
        assert b.fake.batches[1] == tuple(sha(data) for data in rest[:4])
        assert b.metric("redserve_encode_queue_oldest_seconds") == 0
        assert b.metric("redserve_encode_batch_rows_sum") == 24
        assert b.metric("redserve_encode_images_total") == 6


async def test_what_does_not_fit_a_batch_any_more_goes_into_the_next() -> None:
    gate = Gate()
    first, *rest = [picture(48, 64, shade) for shade in range(4)]  # 12 rows each
    async with bench(FakeVision(wait=gate), batch_rows=25) as b:
        calls = [asyncio.create_task(b.encode("first", [item(0, first)]))]
        await gate.batches_entered(1)
        items = [item(i, data) for i, data in enumerate(rest)]
        calls.append(asyncio.create_task(b.encode("r", items)))
        await b.waiting(4)
        await b.prepared(*rest)
        gate.open()
        await asyncio.gather(*calls)
        assert [len(batch) for batch in b.fake.batches] == [1, 2, 1]


async def test_batches_are_small_while_the_destination_is_idle() -> None:
    gate = Gate()
    first, *rest = [picture(shade=shade) for shade in range(4)]
    async with bench(FakeVision(wait=gate), batch_rows=1000, batch_rows_idle=8) as b:
        calls = [asyncio.create_task(b.encode("first", [item(0, first)]))]
        await gate.batches_entered(1)
        items = [item(i, data) for i, data in enumerate(rest)]
        calls.append(asyncio.create_task(b.encode("r", items, idle=True)))
        await b.waiting(4)
        await b.prepared(*rest[:2])
        gate.open()
        await asyncio.gather(*calls)
        assert [len(batch) for batch in b.fake.batches] == [1, 2, 1]


async def test_the_oldest_request_goes_first_and_its_items_in_prompt_order() -> None:
    gate = Gate()
    blocker, ahead, *rest = [picture(shade=shade) for shade in range(6)]
    async with bench(FakeVision(wait=gate), batch_rows=4) as b:
        calls = [
            asyncio.create_task(b.encode("blocker", [item(0, blocker)], received_ns=1)),
        ]
        await gate.batches_entered(1)
        # One batch is lined up already and is not overtaken; behind it age decides.
        calls.append(asyncio.create_task(b.encode("ahead", [item(0, ahead)], received_ns=50)))
        await b.waiting(2)
        young = [item(0, rest[0]), item(1, rest[1])]
        calls.append(asyncio.create_task(b.encode("young", young, received_ns=30)))
        await b.waiting(4)
        old = [item(0, rest[2]), item(1, rest[3])]
        calls.append(asyncio.create_task(b.encode("old", old, received_ns=20)))
        await b.waiting(6)
        gate.open()
        await asyncio.gather(*calls)
        order = [content for batch in b.fake.batches for content in batch]
        expected = [blocker, ahead, rest[2], rest[3], rest[0], rest[1]]
        assert order == [sha(data) for data in expected]


async def test_an_idle_encoder_does_not_wait_for_a_batch_to_fill() -> None:
    async with bench(batch_rows=100_000) as b:
        assert published(await b.encode("r", [item(0, picture())])) == [0]


async def test_a_second_request_is_answered_from_the_cache() -> None:
    data = picture()
    async with bench() as b:
        await b.encode("one", [item(0, data)])
        [event] = await b.encode("two", [item(0, data, send=False)])
        await b.landed(("one", 0), ("two", 0))
        assert len(b.fake.batches) == 1
        assert event.published.cached
        assert "encode" not in {bar.name for bar in event.published.bars}
        assert "cache hit" in {bar.detail for bar in event.published.bars}
        assert b.llm.landed["one", 0] == b.llm.landed["two", 0]
        assert b.metric("redserve_encoder_cache_hits_total") == 1
        assert b.metric("redserve_encoder_cache_misses_total") == 1
        keys = {told.request.tensor_key for told in b.llm.announced}
        assert len(keys) == 2


async def test_equal_items_are_encoded_once_wherever_the_work_stands() -> None:
    gate = Gate()
    blocker, data = picture(shade=1), picture(shade=2)
    async with bench(FakeVision(wait=gate), batch_rows=4) as b:
        calls = [asyncio.create_task(b.encode("blocker", [item(0, blocker)]))]
        await gate.batches_entered(1)
        # Twice in the queue or lined up, the same picture twice in one request ...
        calls.append(asyncio.create_task(b.encode("a", [item(0, data), item(1, data)])))
        await b.waiting(3)
        calls.append(asyncio.create_task(b.encode("b", [item(0, data)])))
        await b.waiting(4)
        gate.let()
        await gate.batches_entered(2)
        # ... and once while it is being encoded.
        calls.append(asyncio.create_task(b.encode("c", [item(0, data, send=False)])))
        await b.waiting(4)
        gate.open()
        events = await asyncio.gather(*calls)
        await b.landed(("a", 0), ("a", 1), ("b", 0), ("c", 0))
        assert len(b.fake.batches) == 2
        expected = b.fake.embedding(sha(data), rows_of(data))
        assert {b.llm.landed[name] for name in [("a", 0), ("a", 1), ("b", 0), ("c", 0)]} == {
            expected
        }
        cached = [event.published.cached for request in events[1:] for event in request]
        assert sorted(cached) == [False, True, True, True]
        [late] = events[3]
        assert {bar.detail for bar in late.published.bars if bar.name == "encode"} == {"joined"}
        assert b.metric("redserve_encoder_joined_total") == 3


async def test_bad_pictures_fail_alone() -> None:
    good = [picture(shade=1), picture(shade=2)]
    whole = picture(64, 64, shade=3, form="JPEG")
    truncated = whole[: len(whole) // 2]
    large = picture(64, 64, shade=4)
    forged = item(4, good[0])
    forged.picture.content_hash = sha(b"something else")
    async with bench(FakeVision(max_image_pixels=1024)) as b:
        events = await b.encode(
            "r",
            [
                item(0, good[0]),
                item(1, b"no picture at all", rows=4),
                item(2, large),
                item(3, good[1]),
                forged,
            ],
        )
        assert sorted(published(events)) == [0, 3]
        assert failures(events) == {
            1: "INVALID_ARGUMENT",
            2: "POLICY_VIOLATION",
            4: "INVALID_ARGUMENT",
        }
        messages = {e.failed.index: e.failed.error.message for e in events if e.HasField("failed")}
        assert "sha256" in messages[4]
        assert "1024" in messages[2]
        assert b.metric("redserve_encode_errors_total", reason="INVALID_ARGUMENT") == 2
    async with bench() as b:
        events = await b.encode("r", [item(0, truncated, rows=16), item(1, good[0])])
        assert published(events) == [1]
        assert failures(events) == {0: "INVALID_ARGUMENT"}


async def test_another_number_of_rows_than_reserved_is_refused() -> None:
    data, cached = picture(shade=1), picture(shade=2)
    async with bench() as b:
        events = await b.encode("a", [item(0, data, rows=5), item(1, cached)])
        assert failures(events) == {0: "INTERNAL"}
        assert published(events) == [1]
        assert failures(await b.encode("b", [item(0, cached, rows=3)])) == {0: "INTERNAL"}
        assert list(b.fake.batches) == [(sha(cached),)]
        assert len(b.llm.announced) == 1


async def test_a_joining_item_with_another_number_of_rows_is_refused() -> None:
    gate = Gate()
    data = picture()
    async with bench(FakeVision(wait=gate)) as b:
        right = asyncio.create_task(b.encode("right", [item(0, data)]))
        await gate.batches_entered(1)
        wrong = asyncio.create_task(b.encode("wrong", [item(0, data, rows=9)]))
        await b.waiting(2)
        gate.open()
        assert failures(await wrong) == {0: "INTERNAL"}
        assert published(await right) == [0]


async def test_a_model_that_makes_other_rows_than_announced_fails_the_item() -> None:
    class Liar(FakeVision):
        async def encode(self, batch, destinations):
            await super().encode(batch, destinations)
            return [prepared.metadata.num_rows + 1 for prepared in batch]

    async with bench(Liar()) as b:
        assert failures(await b.encode("r", [item(0, picture())])) == {0: "INTERNAL"}
        assert not b.llm.announced


async def test_a_batch_that_fails_is_tried_picture_by_picture() -> None:
    gate = Gate()
    blocker, poison, good = (picture(shade=shade) for shade in range(3))

    class Fragile(FakeVision):
        async def encode(self, batch, destinations):
            rows = await super().encode(batch, destinations)
            if any(prepared.pixels == sha(poison) for prepared in batch):
                raise RuntimeError("no kernel image is available")
            return rows

    async with bench(Fragile(wait=gate)) as b:
        calls = [asyncio.create_task(b.encode("blocker", [item(0, blocker)]))]
        await gate.batches_entered(1)
        calls.append(asyncio.create_task(b.encode("r", [item(0, poison), item(1, good)])))
        await b.waiting(3)
        await b.prepared(poison, good)
        gate.open()
        _, events = await asyncio.gather(*calls)
        assert [len(batch) for batch in b.fake.batches] == [1, 2, 1, 1]
        assert failures(events) == {0: "INTERNAL"}
        assert published(events) == [1]
        [failed] = [event.failed for event in events if event.HasField("failed")]
        assert "kernel" not in failed.error.message


async def test_missing_content_is_asked_for_and_then_taken() -> None:
    data = picture()
    async with bench() as b:
        events = await b.encode("r", [item(0, data, send=False)])
        assert failures(events) == {0: CONTENT_MISSING}
        events = await b.encode("r", [item(0, data, attempt=2)])
        assert published(events) == [0]
        assert b.llm.announced[0].request.tag.attempt == 2


async def test_what_describe_brought_need_not_be_sent_again() -> None:
    pictures = [picture(shade=shade) for shade in range(3)]
    async with bench() as b:
        described = await b.describe(*pictures)
        assert [result.metadata.num_rows for result in described] == [4, 4, 4]
        items = [item(i, data, send=False) for i, data in enumerate(pictures)]
        assert sorted(published(await b.encode("r", items))) == [0, 1, 2]
        assert b.metric("redserve_encode_preprocess_seconds_count") == 3


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"request_id": ""}, "request_id"),
        ({"destination": "nowhere"}, "destination"),
        ({"items": [item(0, b"x", rows=0)]}, "items[0].num_rows"),
        ({"items": [item(0, b"x", rows=1), item(0, b"x", rows=1)]}, "items[1].index"),
        (
            {"items": [pb.EncodeItem(num_rows=1, picture=pb.Picture(content_hash=b"short"))]},
            "items[0].picture.content_hash",
        ),
    ],
)
async def test_calls_that_no_router_makes_are_refused(change: dict[str, Any], field: str) -> None:
    request = pb.EncodeRequest(request_id="r", destination="127.0.0.1:1", items=[])
    values = {name: getattr(request, name) for name in ("request_id", "destination")} | change
    async with bench() as b:
        with pytest.raises(grpc.aio.AioRpcError, match=field.replace("[", r"\[")) as caught:
            await b.stub.Encode(pb.EncodeRequest(**values)).read()
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_an_embedding_larger_than_the_pool_is_refused_by_name() -> None:
    large = picture(16 * 300, 16)  # 300 rows of 4 KiB
    async with bench(FakeVision(hidden_size=1024), pool_bytes=MIB) as b:
        events = await b.encode("r", [item(0, large), item(1, picture())])
        assert failures(events) == {0: "POLICY_VIOLATION"}
        assert published(events) == [1]
        [failed] = [event.failed for event in events if event.HasField("failed")]
        assert "poolBytes" in failed.error.message


async def test_an_unexpected_failure_while_pictures_come_in_is_a_typed_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    good, cursed = picture(shade=1), picture(shade=2)
    async with bench() as b:
        admit = b.replica.pictures.admit

        async def admit_or_break(content_hash: bytes, data: bytes) -> None:
            if content_hash == sha(cursed):
                raise ZeroDivisionError
            await admit(content_hash, data)

        monkeypatch.setattr(b.replica.pictures, "admit", admit_or_break)
        events = await b.encode("r", [item(0, cursed), item(1, good)])
        assert failures(events) == {0: "INTERNAL"}
        await b.landed(("r", 1))


async def test_an_unexpected_failure_to_describe_harms_no_other_picture(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    good, cursed = picture(shade=1), picture(shade=2)
    async with bench() as b:
        describe = b.replica.pictures.describe

        async def describe_or_break(content_hash: bytes, data: bytes) -> Any:
            if content_hash == sha(cursed):
                raise ZeroDivisionError
            return await describe(content_hash, data)

        monkeypatch.setattr(b.replica.pictures, "describe", describe_or_break)
        first, second = await b.describe(cursed, good)
        assert first.error.reason == "INTERNAL"
        assert second.metadata.num_rows == rows_of(good)
