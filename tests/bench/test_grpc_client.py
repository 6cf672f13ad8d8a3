"""The client of our router by gRPC."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from redserve.bench.clients.base import Manners
from redserve.bench.clients.router import GrpcClient
from redserve.bench.pictures import PictureSize, draw_png
from redserve.bench.questions import Question
from redserve.errors import Unavailable
from redserve.slo import End
from redserve.wire.router_client import RouterClient
from tests.router.cluster import MODEL, Cluster, cluster

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

QUESTION = Question((draw_png(PictureSize(32, 32), "a"),), "what is this ?", 7)


def client_of(c: Cluster, **manners: Any) -> GrpcClient:
    return GrpcClient(c.router.server.address, Manners(**manners))


async def test_a_whole_answer():
    async with cluster() as c, client_of(c, temperature=0.5, ignore_eos=True) as client:
        assert client.model == MODEL
        answer = await client.ask(QUESTION)
        assert answer.problem is None
        assert answer.num_tokens == 5
        assert answer.first_token_s is not None
        assert answer.last_token_s is not None
        assert answer.start_s < answer.first_token_s <= answer.last_token_s <= answer.end_s
        (request,) = c.llms[0].journal.all("generate")
        sampling = request.sampling
        assert (sampling.temperature, sampling.max_tokens, sampling.ignore_eos) == (0.5, 7, True)


async def test_an_answer_without_a_token_is_a_failure():
    async with cluster() as c, client_of(c) as client:
        c.llms[0].words = ()
        answer = await client.ask(QUESTION)
        assert answer.problem is not None
        assert (answer.problem.end, answer.problem.reason) == (End.FAILED, "NO_TOKEN")


async def test_a_failure_in_the_middle():
    async with cluster() as c, client_of(c) as client:

        async def fail(number: int, context: Any) -> None:
            if number == 2:
                await context.abort(grpc.StatusCode.INTERNAL, "broken")

        c.llms[0].before_token = fail
        answer = await client.ask(QUESTION)
        assert answer.problem is not None
        assert answer.problem.end is End.FAILED
        assert answer.first_token_s is not None


async def test_a_refusal():
    async with cluster() as c, client_of(c, model="other") as client:
        problem = (await client.ask(QUESTION)).problem
        assert problem is not None
        assert (problem.end, problem.reason) == (End.REFUSED, "MODEL_NOT_FOUND")


async def test_a_deadline():
    async with cluster() as c, client_of(c, timeout_s=0.5) as client:

        async def hang(number: int, _context: Any) -> None:
            if number == 1:
                await asyncio.Event().wait()

        c.llms[0].before_token = hang
        problem = (await client.ask(QUESTION)).problem
        assert problem is not None
        assert (problem.end, problem.reason) == (End.EXPIRED, "DEADLINE_EXCEEDED")


async def test_nobody_answers():
    with pytest.raises(Unavailable):
        await GrpcClient("127.0.0.1:1", Manners()).__aenter__()


async def test_words_of_a_router_can_be_shown(monkeypatch: pytest.MonkeyPatch):
    async def fail(*_arguments: object, **_options: object) -> AsyncIterator[None]:
        raise Unavailable("no \x1b[2J\nmore")
        yield

    monkeypatch.setattr(RouterClient, "generate", fail)
    client = GrpcClient("127.0.0.1:1", Manners(model="m\x1b"))
    assert client.model == "m\ufffd"
    problem = (await client.ask(QUESTION)).problem
    assert problem is not None
    assert problem.message == "no \ufffd[2J more"
