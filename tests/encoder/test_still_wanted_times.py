"""Who is asked when, and what comes of the answers: with the real pauses, in virtual time."""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import asynccontextmanager
from itertools import pairwise
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from redserve.errors import DeadlineExceeded, Unavailable
from redserve.transport.lease_table import LeaseTable
from redserve.transport.pool import Pool
from redserve_encoder import holds, still_wanted
from redserve_encoder.cache import EmbeddingCache
from redserve_encoder.delivery import Delivery, GenerationTag, Phase
from redserve_encoder.llm_clients import QUESTION_TIMEOUT_S, Answer
from redserve_encoder.publisher import Publisher
from tests.support.virtual_time import in_virtual_time, now_s, until_s

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from redserve_encoder.llm_clients import LlmClients

LONG_S = 24 * 3600.0
"""Of a request whose deadline ends nothing here."""


@pytest.fixture(autouse=True)
def virtual_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(monotonic=now_s)
    for module in (still_wanted, holds):
        monkeypatch.setattr(module, "time", clock)


async def wanted(_request_id: str) -> bool:
    return True


async def unwanted(_request_id: str) -> bool:
    return False


async def unreachable(_request_id: str) -> bool:
    raise Unavailable("nobody listens")


async def hanging(_request_id: str) -> bool:
    await asyncio.sleep(QUESTION_TIMEOUT_S)
    raise Unavailable("no answer")


class Replicas:
    """LLM replicas, as an encoder reaches them. Stands for `LlmClients`.

    Attributes:
        says: What a replica says to a question, by its address; the others want everything.
        hears: Unset while announcements are not answered.
        keys: What was announced, by request.
        asked: When which replica was asked for which request.
    """

    def __init__(self) -> None:
        self.says: dict[str, Callable[[str], Awaitable[bool]]] = {}
        self.hears = asyncio.Event()
        self.hears.set()
        self.keys: dict[str, str] = {}
        self.asked: list[tuple[float, str, str]] = []

    async def announce(self, _address: str, tag: GenerationTag, key: str, *_: object) -> Answer:
        self.keys[tag.request_id] = key
        await self.hears.wait()
        return Answer(accepted=True, why="")

    async def still_wants(self, address: str, tag: GenerationTag, *_: object) -> bool:
        self.asked.append((now_s(), address, tag.request_id))
        return await self.says.get(address, wanted)(tag.request_id)


class Encoder:
    """The part of an encoder that publishes, holds and asks."""

    def __init__(self) -> None:
        pool = Pool(1 << 20)
        self._cache = EmbeddingCache(pool)
        self._leases = LeaseTable(pool, "encoder-0", LONG_S, now_s)
        self.llm = Replicas()
        self.publisher = Publisher(
            self._leases,
            self._cache,
            cast("LlmClients", self.llm),
            lane="encoder-0",
            now_ns=lambda: round(now_s() * 1e9),
        )

    def publish(self, request_id: str, address: str = "llm") -> Delivery:
        delivery = Delivery(
            tag=GenerationTag(request_id, 1, 0, 1),
            content_hash=hashlib.sha256(request_id.encode()).digest(),
            num_rows=1,
            destination=address,
            destination_idle=False,
            received_ns=0,
            submitted_ns=0,
            deadline_s=now_s() + LONG_S,
            report=lambda _: None,
        )
        embedding = self._cache.try_reserve(delivery.content_hash, 1, 16)
        assert embedding is not None
        self._cache.commit(embedding)
        self.publisher.publish(delivery, embedding, (), cached=False)
        return delivery

    def fetch(self, request_id: str) -> None:
        lease = self._leases.prepare(self.llm.keys[request_id], "llm")
        assert self._leases.release(lease.lease_id, consumed=True)

    def asked_for(self, request_id: str) -> list[float]:
        return [at_s for at_s, _, name in self.llm.asked if name == request_id]

    def asked_at(self, address: str) -> list[float]:
        return [at_s for at_s, whom, _ in self.llm.asked if whom == address]


@asynccontextmanager
async def asking() -> AsyncIterator[Encoder]:
    """An encoder that holds nothing yet, at 0 s."""
    encoder = Encoder()
    task = asyncio.create_task(encoder.publisher.still_wanted.run())
    try:
        yield encoder
    finally:
        task.cancel()
        await asyncio.wait({task})


async def ended(delivery: Delivery) -> float:
    """When it is gone, seconds."""
    gone = asyncio.Event()
    delivery.on_gone = lambda _: gone.set()
    await gone.wait()
    return now_s()


@in_virtual_time
async def test_what_is_wanted_for_long_is_asked_for_less_and_less_often() -> None:
    async with asking() as encoder:
        encoder.publish("r")
        await until_s(130)
        assert encoder.asked_for("r") == [2, 6, 14, 30, 62, 94, 126]


@in_virtual_time
async def test_a_drain_asks_in_every_round_whatever_the_pauses_are() -> None:
    async with asking() as encoder:
        encoder.publish("r")
        await until_s(40.5)
        num_asked = len(encoder.llm.asked)
        encoder.publisher.still_wanted.hurry()
        await until_s(44.5)
        assert encoder.asked_for("r")[num_asked:] == [41, 42, 43, 44]


@pytest.mark.parametrize("drains", [False, True])
@in_virtual_time
async def test_nobody_is_asked_for_what_he_is_still_being_told_of(drains: bool) -> None:
    """He would say no, as he does not know of it yet, and lose it."""
    async with asking() as encoder:
        encoder.llm.says["llm"] = unwanted
        encoder.llm.hears.clear()
        delivery = encoder.publish("r")
        if drains:
            encoder.publisher.still_wanted.hurry()
        await until_s(20.5)
        assert not encoder.llm.asked
        assert delivery.phase is Phase.PUBLISHING
        assert encoder.publisher.num_held == 1
        encoder.llm.hears.set()
        await ended(delivery)
        assert encoder.asked_for("r") == [21]


@in_virtual_time
async def test_giving_up_a_replica_leaves_what_it_is_being_told_of() -> None:
    """Its announcement has tries and an end of its own."""
    async with asking() as encoder:
        encoder.llm.says["llm"] = unreachable
        old = encoder.publish("old")
        await until_s(0.5)
        encoder.llm.hears.clear()
        new = encoder.publish("new")
        await ended(old)
        assert new.phase is not Phase.GONE
        assert encoder.publisher.num_held == 1
        encoder.llm.says.clear()
        encoder.llm.hears.set()
        await until_s(now_s() + 10)
        assert new.phase is Phase.HELD
        assert encoder.asked_for("new")


@pytest.mark.parametrize(
    ("replica", "drains", "asked_at", "within_s"),
    [
        (unreachable, False, [2, 4, 8, 16], 30),
        (hanging, False, [2, 6, 12, 22], 30),
        (unreachable, True, [1, 2, 3, 4], 4),
        (hanging, True, [1, 4, 7, 10], 12),
    ],
)
@in_virtual_time
async def test_who_leaves_four_questions_unanswered_is_given_up(
    replica: Callable[[str], Awaitable[bool]],
    drains: bool,
    asked_at: list[float],
    within_s: float,
) -> None:
    """`within_s` is what the documentation says; pauses without a drain grow."""
    async with asking() as encoder:
        encoder.llm.says["llm"] = replica
        both = [encoder.publish("a"), encoder.publish("b")]
        other = encoder.publish("other", "another")
        if drains:
            encoder.publisher.still_wanted.hurry()
        assert await ended(both[0]) <= within_s
        assert both[1].phase is Phase.GONE
        await until_s(now_s() + 10)
        assert encoder.asked_at("llm") == asked_at
        assert other.phase is Phase.HELD


@in_virtual_time
async def test_an_answer_makes_up_for_the_questions_before_it() -> None:
    async with asking() as encoder:
        answers = iter([unreachable, unreachable, unreachable, wanted] * 5)

        async def by_turns(request_id: str) -> bool:
            return await next(answers)(request_id)

        encoder.llm.says["llm"] = by_turns
        encoder.publisher.still_wanted.hurry()
        delivery = encoder.publish("r")
        await until_s(19.5)
        assert len(encoder.llm.asked) == 19
        assert delivery.phase is Phase.HELD


@in_virtual_time
async def test_silence_is_forgotten_with_the_last_that_is_held() -> None:
    async with asking() as encoder:
        asker = encoder.publisher.still_wanted
        asker.hurry()
        encoder.llm.says["llm"] = unreachable
        encoder.publish("first")
        await until_s(3.5)
        assert len(encoder.llm.asked) == 3
        assert asker._silent.keys() == {"llm"}
        encoder.fetch("first")
        await until_s(4.5)
        assert not asker._silent, "addresses come and go for as long as an encoder lives"
        second = encoder.publish("second")
        assert await ended(second) == 8, "four questions of its own"


@in_virtual_time
async def test_what_is_fetched_while_others_are_asked_for_is_not_asked_for() -> None:
    async with asking() as encoder:

        async def slow(request_id: str) -> bool:
            await asyncio.sleep(0.5)
            if request_id == "a":
                encoder.fetch("b")
                await asyncio.sleep(0.5)
            return True

        encoder.llm.says["llm"] = slow
        held = [encoder.publish(name) for name in "abc"]
        await until_s(5.5)
        assert [name for _, _, name in encoder.llm.asked] == ["a", "c"]
        assert [one.phase for one in held] == [Phase.HELD, Phase.GONE, Phase.HELD]


@in_virtual_time
async def test_a_request_whose_time_is_up_keeps_no_other_from_its_turn() -> None:
    async with asking() as encoder:

        async def late(request_id: str) -> bool:
            if request_id == "late":
                raise DeadlineExceeded("the request's own")
            return False

        encoder.llm.says["llm"] = late
        first, other = encoder.publish("late"), encoder.publish("other")
        assert await ended(other) == 2
        await until_s(60.5)
        assert len(encoder.asked_for("late")) > 4
        assert first.phase is Phase.HELD, "it is no sign that nobody answers"


def slow_replica(encoder: Encoder) -> list[str]:
    """One that takes its time for each of many questions, while the encoder drains."""

    async def slow(_request_id: str) -> bool:
        await asyncio.sleep(0.5)
        return True

    encoder.llm.says["slow"] = slow
    encoder.publisher.still_wanted.hurry()
    names = [f"r{number}" for number in range(40)]
    for name in names:
        encoder.publish(name, "slow")
    return names


@in_virtual_time
async def test_a_replica_with_many_held_makes_no_other_wait_for_long() -> None:
    async with asking() as encoder:
        slow_replica(encoder)
        encoder.publish("one", "other")
        await until_s(60)
        asked = encoder.asked_at("other")
        longest_s = max(later - earlier for earlier, later in pairwise(asked))
        assert longest_s <= 3.5, "a pause, a round, and the question that ends it"


@in_virtual_time
async def test_each_of_many_has_its_turn() -> None:
    async with asking() as encoder:
        names = slow_replica(encoder)
        await until_s(60)
        first_turns = [name for _, _, name in encoder.llm.asked[: len(names)]]
        assert sorted(first_turns) == sorted(names), "nobody twice before all were once"
