"""A request's way through the router, over real gRPC, with fake replicas."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from PIL import Image

from redserve.v1 import router_pb2 as pb
from redserve_router.dispatch import dispatcher
from tests.router.cluster import COLOURS, MODEL, cluster, picture, question
from tests.router.fake_encoder import BreakCall, Fail, Hang, Publish
from tests.router.fake_llm import WORDS

TEXT = "".join(WORDS)


async def test_text_is_answered_without_encoders():
    async with cluster() as c:
        answer = await c.ask(question("what colour is it?", request_id="mine"))
        assert answer.text == TEXT
        assert answer.started.request_id == "mine"
        assert answer.started.model == MODEL
        assert answer.started.num_prompt_tokens == len(
            c.llms[0].journal.all("generate")[0].token_ids
        )
        assert answer.finished.usage.num_output_tokens == 5
        assert not answer.finished.HasField("timeline")
        assert c.encoders[0].journal.all("encode") == []


async def test_sampling_defaults_are_the_checkpoints_and_the_rest_is_resolved():
    async with cluster() as c:
        request = question("hello")
        request.sampling.temperature = 0.75
        await c.ask(request)
        sampling = c.llms[0].journal.all("generate")[0].sampling
        assert sampling.temperature == 0.75
        assert (sampling.top_k, sampling.top_p, sampling.repetition_penalty) == (7, 0.5, 1.5)
        prompt = c.llms[0].journal.all("generate")[0].token_ids
        assert sampling.max_tokens == 512 - len(prompt)
        assert sampling.seed > 0


async def test_pictures_are_spread_over_encoders_and_spans_fit():
    async with cluster(num_encoders=2) as c:
        answer = await c.ask(question("what", *(picture(name) for name in COLOURS)))
        assert answer.text == TEXT
        assert list(answer.started.num_item_tokens) == [4] * 8
        placed = [
            [item.index for request in e.journal.all("encode") for item in request.items]
            for e in c.encoders
        ]
        assert sorted(placed[0] + placed[1]) == list(range(8))
        assert len(placed[0]) == len(placed[1]) == 4
        assert all(indices == sorted(indices) for indices in placed)
        request = c.llms[0].journal.all("generate")[0]
        pad = request.token_ids[request.items[0].spans[0].start]
        for item in request.items:
            (span,) = item.spans
            assert list(request.token_ids[span.start : span.start + span.length]) == [pad] * 4
            assert list(item.grid) == [1, 2, 2]
        call = c.encoders[0].journal.all("encode")[0]
        assert call.destination == c.llms[0].address
        assert call.destination_idle
        assert {item.attempt for item in call.items} == {1}


async def test_describe_once_per_size_and_bytes_once_per_encoder():
    async with cluster() as c:
        await c.ask(question(picture("red"), picture("green")))
        await c.ask(question(picture("green"), picture("blue")))
        journal = c.encoders[0].journal
        assert len(journal.all("describe")) == 1  # one size
        sent = [
            bool(item.picture.data) for request in journal.all("encode") for item in request.items
        ]
        # red came with Describe, green was sent by the first request.
        assert sent == [False, True, False, True]


async def test_content_missing_is_sent_with_bytes():
    async with cluster() as c:
        red = picture("red")
        await c.ask(question(red))
        c.encoders[0].contents.clear()
        answer = await c.ask(question(red))
        assert answer.text == TEXT
        items = [i for request in c.encoders[0].journal.all("encode") for i in request.items]
        assert [bool(i.picture.data) for i in items] == [False, False, True]
        assert items[-1].attempt == 2


async def test_prefix_covered_items_are_not_dispatched():
    async with cluster() as c:
        c.llms[0].covered = frozenset({0, 2})
        answer = await c.ask(question(*(picture(name) for name in COLOURS[:4])))
        assert answer.text == TEXT
        encoded = [i.index for r in c.encoders[0].journal.all("encode") for i in r.items]
        assert encoded == [1, 3]


async def test_item_needed_again_is_dispatched_with_a_newer_attempt():
    async with cluster() as c:
        c.llms[0].ask_again = (1,)
        answer = await c.ask(question(picture("red"), picture("blue")))
        assert answer.text == TEXT
        assert c.encoders[0].journal.all("published") == [(0, 1), (1, 1), (1, 2)]


async def test_covered_item_whose_blocks_are_lost_is_dispatched_after_all():
    async with cluster() as c:
        c.llms[0].covered = frozenset({0, 1})
        c.llms[0].ask_covered = frozenset({1})
        answer = await c.ask(question(picture("red"), picture("blue")))
        assert answer.text == TEXT
        assert c.encoders[0].journal.all("published") == [(1, 1)]


async def test_late_call_for_an_item_is_answered_by_the_attempt_under_way():
    """The LLM replica reports the loss of attempt 1 while attempt 2 is on its way already."""
    async with cluster(num_encoders=2) as c:
        c.encoders[0].act = lambda _, item: BreakCall() if item.attempt == 1 else Publish()
        c.encoders[1].act = c.encoders[0].act
        c.llms[0].ask_stale = True
        answer = await c.ask(question(picture("red")))
        assert answer.text == TEXT
        published = [entry for e in c.encoders for entry in e.journal.all("published")]
        assert published == [(0, 2)]


async def test_tokens_are_relayed_as_they_come():
    async with cluster() as c:
        gates = [asyncio.Event() for _ in WORDS]

        async def before(n, _context):
            await gates[n].wait()

        c.llms[0].before_token = before
        stream = c.stub.Generate(question("hello"))
        assert (await stream.read()).HasField("started")
        for n, word in enumerate(WORDS):
            gates[n].set()
            assert (await asyncio.wait_for(stream.read(), 5)).tokens.text == word
        assert (await stream.read()).HasField("finished")


async def test_timeline_has_bars_of_every_process():
    async with cluster() as c:
        request = question(picture("red"), include_timeline=True, request_id="timed")
        answer = await c.ask(request)
        timeline = answer.finished.timeline
        lanes = {(bar.lane, bar.name) for bar in timeline.bars}
        assert {
            ("router", "preprocess"),
            ("router", "tokenize"),
            ("encoder-0", "encode"),
            ("llm-0", "prefill"),
        } <= lanes
        assert 0 < timeline.overlap_ratio <= 1
        assert timeline.received_unix_ns <= timeline.first_token_unix_ns
        assert timeline.first_token_unix_ns <= timeline.finished_unix_ns
        starts = [bar.start_unix_ns for bar in timeline.bars]
        assert starts == sorted(starts)
        by_id = await c.stub.GetTimeline(pb.GetTimelineRequest(request_id="timed"))
        last = await c.stub.GetTimeline(pb.GetTimelineRequest())
        assert by_id.timeline.bars == last.timeline.bars == timeline.bars


async def test_exif_orientation_is_part_of_the_size():
    async with cluster() as c:
        exif = Image.Exif()
        exif[0x0112] = 6
        upright = picture("red", (64, 32), "JPEG")
        sideways = picture("red", (64, 32), "JPEG", exif=exif)
        await c.ask(question(upright, sideways))
        items = c.llms[0].journal.all("generate")[0].items
        assert [list(item.grid) for item in items] == [[1, 2, 4], [1, 4, 2]]
        assert len(c.encoders[0].journal.all("describe")) == 2


async def test_encoder_that_breaks_its_call_hands_its_items_to_another():
    async with cluster(num_encoders=2) as c:
        c.encoders[0].act = lambda *_: BreakCall()
        answer = await c.ask(question(*(picture(name) for name in COLOURS)))
        assert answer.text == TEXT
        again = {
            (i.index, i.attempt)
            for r in c.encoders[1].journal.all("encode")
            for i in r.items
            if i.attempt > 1
        }
        lost = {i.index for r in c.encoders[0].journal.all("encode") for i in r.items}
        assert {index for index, _ in again} == lost


async def test_items_published_before_the_break_are_not_encoded_again():
    async with cluster(num_encoders=2) as c:
        for encoder in c.encoders:
            encoder.act = lambda _, item: (
                BreakCall() if item.index >= 4 and item.attempt == 1 else Publish()
            )
        answer = await c.ask(question(*(picture(name) for name in COLOURS)))
        assert answer.text == TEXT
        published = [entry for e in c.encoders for entry in e.journal.all("published")]
        assert sorted(index for index, _ in published) == list(range(8))


async def test_encoder_killed_with_items_in_hand():
    async with cluster(num_encoders=2) as c:
        never = asyncio.Event()
        c.encoders[0].gate = lambda _: never
        asked = asyncio.ensure_future(c.ask(question(*(picture(name) for name in COLOURS[:4]))))
        await c.encoders[0].journal.wait_count("encode", 1)
        await c.encoders[0].kill()
        answer = await asyncio.wait_for(asked, 10)
        assert answer.text == TEXT
        assert sorted(i for i, _ in c.encoders[1].journal.all("published")) == [0, 1, 2, 3]


async def test_only_encoder_restarts():
    async with cluster() as c:
        never = asyncio.Event()
        c.encoders[0].gate = lambda _: never
        asked = asyncio.ensure_future(c.ask(question(picture("red"))))
        await c.encoders[0].journal.wait_count("encode", 1)
        await c.encoders[0].kill()
        c.encoders[0].gate = lambda _: None
        await c.encoders[0].start()
        answer = await asyncio.wait_for(asked, 10)
        assert answer.text == TEXT
        # It came back empty: the bytes were sent again.
        assert c.encoders[0].journal.all("encode")[-1].items[0].picture.data


async def test_item_failures_move_on_and_overload_is_waited_out():
    async with cluster(num_encoders=2) as c:
        c.encoders[0].act = lambda *_: Fail("UNAVAILABLE")
        busy = iter([Fail("OVERLOADED"), Fail("OVERLOADED")])
        c.encoders[1].act = lambda *_: next(busy, Publish())
        answer = await c.ask(question(*(picture(name) for name in COLOURS[:2])))
        assert answer.text == TEXT


async def test_cancelled_client_cancels_everywhere():
    async with cluster() as c:
        c.encoders[0].act = lambda *_: Hang()
        stream = c.stub.Generate(question(picture("red"), request_id="gone"))
        assert (await stream.read()).HasField("started")
        await c.encoders[0].journal.wait_count("encode", 1)
        stream.cancel()
        await c.llms[0].journal.wait_count("generate_cancelled", 1)
        await c.encoders[0].journal.wait_count("encode_cancelled", 1)
        (told,) = await c.encoders[0].journal.wait_count("cancel", 1)
        assert told.startswith("gone.")
        assert c.router.dispatcher.num_inflight == 0


async def test_a_bug_after_its_client_has_gone_is_logged(monkeypatch, capfd):
    def broken(*_: object) -> None:
        raise KeyError("a bug")

    async with cluster() as c:
        c.encoders[0].act = lambda *_: Hang()
        monkeypatch.setattr(dispatcher, "close_accounts", broken)
        stream = c.stub.Generate(question(picture("red")))
        assert (await stream.read()).HasField("started")
        stream.cancel()
        await c.llms[0].journal.wait_count("generate_cancelled", 1)
        told = ""
        async with asyncio.timeout(10):
            while "a request ended by a bug" not in told:
                await asyncio.sleep(0.01)
                told += capfd.readouterr().err
        monkeypatch.undo()


async def test_a_bug_that_its_client_hears_of_is_logged_once(monkeypatch, capfd):
    def broken(*_: object) -> None:
        raise KeyError("a bug")

    async with cluster() as c:
        monkeypatch.setattr(dispatcher, "close_accounts", broken)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await c.ask(question("hello"))
        assert caught.value.code() is grpc.StatusCode.INTERNAL
        assert capfd.readouterr().err.count("Traceback") == 1
        monkeypatch.undo()


async def test_the_age_of_the_oldest_waiting_request_is_known():
    async with cluster() as c:
        name = "redserve_queue_oldest_seconds"
        assert c.router.registry.get_sample_value(name) == 0
        c.encoders[0].describe_gate = asyncio.Event()
        began = asyncio.get_running_loop().time()
        asked = asyncio.ensure_future(c.ask(question(picture("red"))))
        await c.encoders[0].journal.wait_count("describe", 1)
        age_s = c.router.registry.get_sample_value(name) or 0.0
        assert 0 < age_s <= asyncio.get_running_loop().time() - began
        c.encoders[0].describe_gate.set()
        await asked
        assert c.router.registry.get_sample_value(name) == 0


async def test_a_request_that_waits_in_an_engine_is_queued():
    async with cluster() as c:
        value = c.router.registry.get_sample_value
        c.encoders[0].act = lambda *_: Hang()  # the engine admits it, and cannot begin
        stream = c.stub.Generate(question(picture("red")))
        assert (await stream.read()).HasField("started")
        assert value("redserve_queue_requests") == 1
        assert (value("redserve_queue_oldest_seconds") or 0.0) > 0
        assert c.router.dispatcher.num_queued == 1
        assert value("redserve_queue_seconds_count") == 0
        stream.cancel()
        await c.llms[0].journal.wait_count("generate_cancelled", 1)
        assert (await c.ask(question("what"))).text == TEXT
        assert value("redserve_queue_requests") == 0
        assert value("redserve_queue_oldest_seconds") == 0
        assert value("redserve_queue_seconds_count") == 1


async def test_client_that_goes_while_images_are_described():
    async with cluster() as c:
        c.encoders[0].describe_gate = asyncio.Event()
        stream = c.stub.Generate(question(picture("red")))
        reading = asyncio.ensure_future(stream.read())
        await c.encoders[0].journal.wait_count("describe", 1)
        other = asyncio.ensure_future(c.ask(question(picture("blue"))))
        stream.cancel()
        await asyncio.wait({reading})
        c.encoders[0].describe_gate.set()
        # Who waited for the same size asks for itself.
        assert (await asyncio.wait_for(other, 10)).text == TEXT


async def test_two_hundred_concurrent_requests_none_lost():
    async with cluster(num_encoders=2, num_llms=2) as c:
        pictures = [picture(name) for name in COLOURS]

        async def one(n: int) -> tuple[str, str]:
            answer = await c.ask(question(f"what {n}", pictures[n % 8], request_id=f"r{n}"))
            return answer.text, answer.started.request_id

        answers = await asyncio.wait_for(asyncio.gather(*(one(n) for n in range(200))), 50)
        assert [text for text, _ in answers] == [TEXT] * 200
        assert [name for _, name in answers] == [f"r{n}" for n in range(200)]
        assert c.router.dispatcher.num_inflight == 0
        shares = [len(llm.journal.all("generate")) for llm in c.llms]
        assert sum(shares) == 200
        assert min(shares) > 40
