"""Embeddings that nobody fetches: LLM replicas are asked, and no drain waits for a no.

Rounds are short here, and pauses are multiples of them.
"""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

from redserve_encoder import llm_clients, still_wanted
from redserve_encoder.still_wanted import Turn
from tests.encoder.support import TIMEOUT_S, Bench, bench, item, picture, published, until

LONG_S = 3600.0
"""Of a request whose deadline ends nothing here."""


@pytest.fixture(autouse=True)
def short_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(still_wanted, "ROUND_S", 0.01)
    monkeypatch.setattr(still_wanted, "FIRST_S", 0.01)
    monkeypatch.setattr(still_wanted, "LONGEST_S", 0.02)


async def hold(b: Bench, request_id: str = "r") -> None:
    """Have an embedding announced and not pulled."""
    b.llm.pulls = False
    call = b.encode(request_id, [item(0, picture())], timeout_s=LONG_S)
    assert published(await call) == [0]


def test_pauses_double_up_to_the_longest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(still_wanted, "FIRST_S", 2.0)
    monkeypatch.setattr(still_wanted, "LONGEST_S", 32.0)
    turn = Turn(100.0)
    asked_at = [turn.next_s]
    for _ in range(6):
        turn.put_off(turn.next_s)
        asked_at.append(turn.next_s)
    assert asked_at[0] == 102.0
    assert [later - earlier for earlier, later in pairwise(asked_at)] == [4, 8, 16, 32, 32, 32]


async def test_what_is_wanted_no_more_is_held_no_more() -> None:
    async with bench() as b:
        await hold(b)
        await until(lambda: len(b.llm.asked) > 5)
        assert b.replica.publisher.num_held == 1, "it is in line over there"
        b.llm.unwanted = {("r", 0)}
        await until(lambda: b.replica.publisher.num_held == 0)
        assert len(b.replica.reception.ledger) == 0
        assert b.replica.cache.num_pinned == 0


async def test_what_is_fetched_is_not_asked_for() -> None:
    async with bench() as b:
        assert published(await b.encode("r", [item(0, picture())])) == [0]
        await b.landed(("r", 0))
        await b.everything_is_back()
        num_asked = len(b.llm.asked)
        await hold(b, "other")
        await until(lambda: ("other", 0) in b.llm.asked)
        b.llm.unwanted = {("other", 0)}
        assert b.llm.asked[num_asked:].count(("r", 0)) == 0


async def test_a_drain_waits_for_what_is_wanted_and_for_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(still_wanted, "FIRST_S", LONG_S)  # no turn comes but by the drain
    async with bench() as b:
        b.llm.unwanted = {("over", 0)}
        await hold(b, "wanted")
        await hold(b, "over")
        draining = asyncio.create_task(b.replica.drain(LONG_S))
        await until(lambda: b.replica.publisher.num_held == 1)
        num_asked = len(b.llm.asked)
        await until(lambda: len(b.llm.asked) > num_asked + 3)
        assert not draining.done()
        await b.llm.pull(b.llm.announced[0])
        async with asyncio.timeout(TIMEOUT_S):
            assert await draining
        assert b.llm.landed.keys() == {("wanted", 0)}


async def test_a_drain_does_not_wait_for_an_llm_replica_that_is_gone() -> None:
    async with bench(all_back=False) as b:
        await hold(b)
        await b.llm.stop()
        async with asyncio.timeout(TIMEOUT_S):
            assert await b.replica.drain(LONG_S)
        assert b.replica.cache.num_pinned == 0


async def test_a_replica_that_hangs_for_a_moment_loses_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(still_wanted, "MAX_UNANSWERED", 1000)
    monkeypatch.setattr(llm_clients, "QUESTION_TIMEOUT_S", 0.1)
    async with bench() as b:
        await hold(b)
        b.llm.questions.clear()
        silent = b.replica.publisher.still_wanted._silent
        await until(lambda: bool(silent) and next(iter(silent.values())).times > 1)
        assert b.replica.publisher.num_held == 1
        b.llm.questions.set()
        await until(lambda: not silent)
        assert b.replica.publisher.num_held == 1
        await b.llm.pull(b.llm.announced[0])
        assert ("r", 0) in b.llm.landed


async def test_a_replica_that_hangs_is_given_up_after_so_many_questions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(llm_clients, "QUESTION_TIMEOUT_S", 0.1)
    async with bench() as b:
        await hold(b, "a")
        await hold(b, "b")
        assert b.replica.publisher.num_held == 2
        b.llm.questions.clear()
        await until(lambda: b.replica.publisher.num_held == 0)
        assert not b.replica.publisher.still_wanted._silent, "nothing is remembered of it"


async def test_a_round_that_fails_is_not_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    async with bench() as b:
        fail = asyncio.Event()

        async def broken(*_: object) -> bool:
            fail.set()
            raise RuntimeError("a bug")

        clients = b.replica.publisher._clients
        with monkeypatch.context() as patch:
            patch.setattr(clients, "still_wants", broken)
            await hold(b)
            await fail.wait()
        b.llm.unwanted = {("r", 0)}
        await until(lambda: b.replica.publisher.num_held == 0)
