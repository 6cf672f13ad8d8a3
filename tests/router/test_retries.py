"""How long the router believes in an item, and what it does about an encoder that lies."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from redserve.errors import (
    Cancelled,
    ContextTooLong,
    DeadlineExceeded,
    InternalError,
    InvalidArgument,
    ModelNotFound,
    Overloaded,
    PeerLost,
    PolicyViolation,
    Unavailable,
    UnsupportedModel,
)
from redserve.wire.errors import from_rpc_error
from redserve_router.dispatch.retry_policy import (
    LONGEST_BACKOFF_S,
    MAX_INTERNAL,
    MAX_REPORTED,
    backoff_s,
    may_try_again,
)
from tests.router.cluster import COLOURS, cluster, picture, question
from tests.router.fake_encoder import BreakCall, Fail, Publish
from tests.router.fake_llm import WORDS

TEXT = "".join(WORDS)


@pytest.mark.parametrize(
    "kind", [InvalidArgument, PolicyViolation, ContextTooLong, ModelNotFound, UnsupportedModel]
)
def test_what_is_wrong_stays_wrong(kind):
    assert not may_try_again(kind("no"), 1)


@pytest.mark.parametrize(
    ("kind", "limit"),
    [
        (Unavailable, MAX_REPORTED),
        (PeerLost, MAX_REPORTED),
        (Cancelled, MAX_REPORTED),
        (InternalError, MAX_INTERNAL),
        (DeadlineExceeded, MAX_INTERNAL),
    ],
)
def test_patience_ends(kind, limit):
    assert may_try_again(kind("no"), limit - 1)
    assert not may_try_again(kind("no"), limit)


def test_overload_passes():
    assert may_try_again(Overloaded("full"), 1000)


def test_backoff_grows_to_a_limit_and_first_goes_to_another_at_once():
    assert backoff_s(1, num_encoders=2) == 0
    waits = [backoff_s(n, num_encoders=1) for n in range(1, 12)]
    assert waits == sorted(waits)
    assert waits[0] > 0
    assert waits[-1] == LONGEST_BACKOFF_S


async def test_picture_that_breaks_encoders_is_given_up():
    async with cluster(num_encoders=3) as c:
        for encoder in c.encoders:
            encoder.act = lambda _, item: (
                Fail("INTERNAL", "crash") if item.index == 1 else Publish()
            )
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await c.ask(question(picture("red"), picture("blue")), timeout=20)
        error = from_rpc_error(caught.value)
        assert isinstance(error, InternalError)
        assert error.field == "messages[0].parts[1]"
        tries = [
            i.attempt
            for e in c.encoders
            for r in e.journal.all("encode")
            for i in r.items
            if i.index == 1
        ]
        assert sorted(tries) == [1, 2]


async def test_encoder_that_ends_its_call_early_is_left():
    async with cluster(num_encoders=2) as c:
        c.encoders[0].act = lambda *_: BreakCall(grpc.StatusCode.INTERNAL)
        c.encoders[1].act = lambda *_: Publish()
        answer = await c.ask(question(*(picture(name) for name in COLOURS[:4])))
        assert answer.text == TEXT


async def test_encoder_that_says_it_misses_bytes_it_was_sent():
    async with cluster() as c:
        c.encoders[0].act = lambda *_: Fail("CONTENT_MISSING")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await c.ask(question(picture()), timeout=20)
        assert caught.value.code() is grpc.StatusCode.INTERNAL


async def test_encoder_that_breaks_again_and_again_ends_with_the_deadline():
    async with cluster() as c:
        c.encoders[0].act = lambda *_: BreakCall()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await c.ask(question(picture()), timeout=1.5)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        tries = len(c.encoders[0].journal.all("encode"))
        assert 2 <= tries <= 8, "it backs off"
        await c.llms[0].journal.wait_count("generate_cancelled", 1)


async def test_describe_moves_on_to_a_living_encoder():
    async with cluster(num_encoders=2) as c:
        c.encoders[0].describe_breaks = True
        answer = await c.ask(question(picture("red", (48, 32)), picture("blue", (64, 32))))
        assert answer.text == TEXT
        described = [len(encoder.journal.all("describe")) for encoder in c.encoders]
        assert described[0] >= 1
        assert described[1] == 2


async def test_same_new_size_is_asked_once_for_many_requests():
    async with cluster() as c:
        c.encoders[0].describe_gate = asyncio.Event()
        asked = [asyncio.ensure_future(c.ask(question(picture(name)))) for name in COLOURS]
        await c.encoders[0].journal.wait_count("describe", 1)
        c.encoders[0].describe_gate.set()
        answers = await asyncio.gather(*asked)
        assert [a.text for a in answers] == [TEXT] * 8
        assert len(c.encoders[0].journal.all("describe")) == 1
