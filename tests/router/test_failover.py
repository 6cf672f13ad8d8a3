"""LLM replicas that die, refuse or leave; deadlines; limits."""

from __future__ import annotations

import asyncio
import time

import grpc
import pytest

from redserve.errors import DeadlineExceeded, Overloaded, Unavailable
from redserve.spec.router import RouterSpec
from redserve.spec.settings import RouterSettings
from redserve.v1 import router_pb2 as pb
from redserve.v1 import types_pb2
from redserve.wire.channel import CHANNEL_OPTIONS
from redserve.wire.errors import from_rpc_error
from redserve.wire.types import timeline_from_proto
from redserve_router.limits import Limits
from redserve_router.replicas.replica import LONGEST_BACKOFF_S
from tests.router.cluster import COLOURS, Cluster, cluster, picture, question
from tests.router.fake_encoder import Hang, Publish
from tests.router.fake_llm import FIRST_TOKEN_ID, WORDS, FakeLlm

TEXT = "".join(WORDS)


def chosen(c: Cluster) -> FakeLlm:
    return next(llm for llm in c.llms if llm.journal.all("generate"))


async def test_llm_killed_in_mid_stream_is_one_unbroken_answer():
    async with cluster(num_llms=2) as c:
        reached = asyncio.Event()

        async def stop_at_third(n, _context):
            if n == 2:
                reached.set()
                await asyncio.Event().wait()

        for llm in c.llms:
            llm.before_token = stop_at_third
        asked = asyncio.ensure_future(c.ask(question(*(picture(name) for name in COLOURS[:2]))))
        await asyncio.wait_for(reached.wait(), 10)
        first = chosen(c)
        (other,) = [llm for llm in c.llms if llm is not first]
        other.before_token = None
        await first.kill()
        answer = await asyncio.wait_for(asked, 10)
        assert answer.text == TEXT
        assert answer.token_ids == [FIRST_TOKEN_ID + n for n in range(5)]
        (request,) = other.journal.all("generate")
        assert list(request.resume_token_ids) == [FIRST_TOKEN_ID, FIRST_TOKEN_ID + 1]
        assert request.generation == 1
        # The items went to the new replica under its own generation, with newer attempts.
        assert sorted(other.journal.all("ready")) == [(0, 2, 1), (1, 2, 1)]


async def test_what_a_lost_replica_did_is_not_known_and_not_called_waiting():
    async with cluster(num_llms=2) as c:
        pictures = [picture(name) for name in COLOURS[:2]]
        has_all = asyncio.Event()

        async def die(_n, _context):
            has_all.set()
            await asyncio.Event().wait()

        for llm in c.llms:
            llm.before_token = die
        c.encoders[0].act = lambda _, item: Publish(cached=item.attempt > 1)
        asked = asyncio.ensure_future(c.ask(question(*pictures, include_timeline=True)))
        await asyncio.wait_for(has_all.wait(), 10)
        first = chosen(c)
        for llm in c.llms:
            llm.before_token = None
        await first.kill()
        timeline = timeline_from_proto((await asyncio.wait_for(asked, 10)).finished.timeline)
        (lost,) = [bar for bar in timeline.bars if bar.name == "lost"]
        assert lost.detail.endswith("lost")
        assert timeline.received_ns < lost.start_ns < lost.end_ns < timeline.first_token_ns
        assert timeline.overlap_ratio is None
        value = c.router.registry.get_sample_value
        assert value("redserve_overlap_ratio_count") == 0
        part = "redserve_time_to_first_token_part_seconds_sum"
        assert (value(part, {"part": "lost"}) or 0) > 0
        # Encoded once and then in the encoder's cache is no hit of the cache.
        counted = {
            outcome: value("redserve_items_total", {"outcome": outcome})
            for outcome in ("encoded", "encoder_cached", "prefix_covered")
        }
        assert counted == {"encoded": 2, "encoder_cached": 0, "prefix_covered": 0}


async def test_resumed_items_that_the_new_replica_has_are_not_encoded_again():
    async with cluster(num_llms=2) as c:
        died: list[int] = []

        async def die_once(n, context):
            if n == 1 and not died:
                died.append(n)
                for llm in c.llms:
                    llm.covered = frozenset({0})
                await context.abort(grpc.StatusCode.UNAVAILABLE, "crash")

        for llm in c.llms:
            llm.before_token = die_once
        answer = await c.ask(question(picture("red")))
        assert answer.text == TEXT
        assert [len(llm.journal.all("generate")) for llm in c.llms] == [1, 1]
        assert len(c.encoders[0].journal.all("encode")) == 1


async def test_only_llm_dies_and_the_client_hears_at_once():
    async with cluster(llm_grace_s=0) as c:

        async def die(n, context):
            if n == 2:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "crash")

        c.llms[0].before_token = die
        start = time.monotonic()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await c.ask(question("hello"), timeout=60)
        error = from_rpc_error(caught.value)
        assert isinstance(error, Unavailable)
        assert "after 2 tokens" in error.message
        assert error.retry_after_s == 1.0
        assert time.monotonic() - start < 5


async def test_only_llm_restarts_within_its_grace():
    async with cluster(llm_grace_s=20) as c:
        reached = asyncio.Event()

        async def stop_at_third(n, _context):
            if n == 2:
                reached.set()
                await asyncio.Event().wait()

        c.llms[0].before_token = stop_at_third
        asked = asyncio.ensure_future(c.ask(question("hello")))
        await asyncio.wait_for(reached.wait(), 10)
        await c.llms[0].kill()
        c.llms[0].before_token = None
        await c.llms[0].start()
        answer = await asyncio.wait_for(asked, 20)
        assert answer.text == TEXT


def test_the_default_grace_outlasts_a_reconnect():
    """Ready is told of an engine that is back as soon as its pod is: it may be ahead of us."""
    jitter = 1.2
    between_s = jitter * dict(CHANNEL_OPTIONS)["grpc.max_reconnect_backoff_ms"] / 1000
    assert Limits().llm_grace_s > between_s + LONGEST_BACKOFF_S
    default_s = Limits().llm_grace_s
    assert RouterSettings.model_validate({}).llm_grace_s == default_s
    assert RouterSpec.model_validate({}).llm_grace_seconds == default_s


async def test_llm_that_dies_after_its_last_token_needs_no_other():
    async with cluster() as c:

        async def die(context):
            await context.abort(grpc.StatusCode.UNAVAILABLE, "crash")

        c.llms[0].before_finish = die
        answer = await c.ask(question("hello", max_tokens=2))
        assert answer.text == "".join(WORDS[:2])
        assert answer.finished.reason == types_pb2.FINISH_REASON_LENGTH
        assert answer.finished.usage.num_output_tokens == 2
        assert answer.finished.usage.num_prompt_tokens == answer.started.num_prompt_tokens


async def test_bug_of_an_engine_is_told_and_not_carried_to_the_next():
    async with cluster(num_llms=2) as c:

        async def break_down(n, _context):
            raise RuntimeError("out of luck")

        for llm in c.llms:
            llm.before_token = break_down
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await c.ask(question("hello"))
        assert caught.value.code() is grpc.StatusCode.INTERNAL
        assert sum(len(llm.journal.all("generate")) for llm in c.llms) == 1


async def test_killer_requests_do_not_kill_every_replica():
    async with cluster(num_llms=6) as c:

        async def die(n, context):
            await context.abort(grpc.StatusCode.UNAVAILABLE, "crash")

        for llm in c.llms:
            llm.before_token = die
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await c.ask(question("hello"))
        assert isinstance(from_rpc_error(caught.value), Unavailable)
        assert sum(len(llm.journal.all("generate")) for llm in c.llms) == 4


async def test_full_llm_is_left_for_another_and_all_full_is_overloaded():
    async with cluster(num_llms=2) as c:

        async def full(context):
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "queue is full")

        c.llms[0].admit = full
        for _ in range(3):
            assert (await c.ask(question("hello"))).text == TEXT
        c.llms[1].admit = full
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await c.ask(question("hello"))
        assert isinstance(from_rpc_error(caught.value), Overloaded)
        assert c.router.pools.why_not_ready is None, "a full replica is not a broken one"


async def test_many_full_llms_are_overloaded_and_not_lost():
    async with cluster(num_llms=5) as c:

        async def full(context):
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "queue is full")

        for llm in c.llms:
            llm.admit = full
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await c.ask(question("hello"))
        assert isinstance(from_rpc_error(caught.value), Overloaded)


async def test_deadline_is_passed_on_and_ends_everything():
    async with cluster() as c:
        c.encoders[0].act = lambda *_: Hang()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await c.ask(question(picture("red")), timeout=1.0)
        assert isinstance(from_rpc_error(caught.value), DeadlineExceeded)
        await c.llms[0].journal.wait_count("generate_cancelled", 1)
        await c.encoders[0].journal.wait_count("encode_cancelled", 1)
        (left,) = c.llms[0].journal.all("time_remaining")
        assert 0 < left < 1.1  # gRPC rounds what it passes on


async def test_default_deadline_tells_where_the_time_went():
    async with cluster(request_timeout_s=2) as c:
        c.encoders[0].act = lambda *_: Hang()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await c.ask(question(picture("red"), picture("blue")))
        error = from_rpc_error(caught.value)
        assert isinstance(error, DeadlineExceeded)
        assert "2 of 2 images missing" in error.message
        assert "within 2 s" in error.message


async def test_limit_of_requests_in_flight():
    async with cluster(max_inflight_requests=2) as c:
        go = asyncio.Event()

        async def hold(_n, _context):
            await go.wait()

        c.llms[0].before_token = hold
        running = [asyncio.ensure_future(c.ask(question("hello"))) for _ in range(2)]
        await c.llms[0].journal.wait_count("generate", 2)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await c.ask(question("hello"))
        error = from_rpc_error(caught.value)
        assert isinstance(error, Overloaded)
        assert error.retry_after_s == 1.0
        go.set()
        assert [a.text for a in await asyncio.gather(*running)] == [TEXT, TEXT]
        c.llms[0].before_token = None
        assert (await c.ask(question("hello"))).text == TEXT


async def test_no_encoder_is_unavailable_after_its_grace():
    async with cluster(encoder_grace_s=0.3) as c:
        await c.encoders[0].kill()
        pools = c.router.pools
        await pools.find(lambda: pools.why_not_ready, 10)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await c.ask(question(picture("red")))
        error = from_rpc_error(caught.value)
        assert isinstance(error, Unavailable)
        assert "no encoder serves" in error.message
        assert (await c.ask(question("text goes on"))).text == TEXT


async def test_replicas_of_another_checkpoint_are_not_paired():
    async with cluster(num_encoders=2) as c:
        odd = c.encoders[1]
        await odd.kill()
        odd.fingerprint = "other"
        await odd.start()
        pools = c.router.pools
        await pools.find(lambda: True if all(e.serving for e in pools.encoders) else None, 10)
        await pools.find(lambda: True if pools.encoders[1].fingerprint == "other" else None, 10)
        answer = await c.ask(question(*(picture(name) for name in COLOURS)))
        assert answer.text == TEXT
        assert odd.journal.all("encode") == []
        listed = (await c.stub.ListReplicas(pb.ListReplicasRequest())).replicas
        mismatch = {r.address: r.load["fingerprint_mismatch"] for r in listed}
        assert mismatch == {c.encoders[0].address: 0, odd.address: 1, c.llms[0].address: 0}
        assert [r.pool for r in listed] == ["encoder", "encoder", "llm"]


async def test_draining_llm_finishes_its_streams_and_gets_no_new_ones():
    async with cluster(num_llms=2) as c:
        go = asyncio.Event()

        async def hold(_n, _context):
            await go.wait()

        for llm in c.llms:
            llm.before_token = hold
        running = asyncio.ensure_future(c.ask(question("hello")))
        await asyncio.wait(
            [asyncio.ensure_future(llm.journal.wait_count("generate", 1)) for llm in c.llms],
            return_when=asyncio.FIRST_COMPLETED,
        )
        first = chosen(c)
        (other,) = [llm for llm in c.llms if llm is not first]
        draining = asyncio.ensure_future(first.drain(10))
        pools = c.router.pools
        gone = next(r for r in pools.llms if r.address == first.address)
        await pools.find(lambda: None if gone.serving else True, 10)
        go.set()
        assert (await asyncio.wait_for(running, 10)).text == TEXT
        assert len(first.journal.all("generate")) == 1
        assert (await c.ask(question("hello"))).text == TEXT
        assert len(other.journal.all("generate")) == 1
        await draining
