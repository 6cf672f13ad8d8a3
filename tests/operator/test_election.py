from __future__ import annotations

import asyncio
from typing import Any

import pytest

from redserve.errors import ConfigError
from redserve_operator.election import LEASE_NAME, Election
from redserve_operator.kube.errors import Retryable
from tests.kubernetes.waiting import eventually_async
from tests.operator.fake_kube import FakeKube

AWAY = Retryable("the API server is away", status=503)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def kube() -> FakeKube:
    return FakeKube()


@pytest.fixture
def clock() -> Clock:
    return Clock()


def candidate(kube: FakeKube, clock: Clock, name: str) -> Election:
    return Election(kube, "ns", name, duration_s=10.0, renew_s=2.0, clock=clock)


def holder(kube: FakeKube) -> str:
    return str(kube.stored("Lease", LEASE_NAME)["spec"]["holderIdentity"])


async def calls(kube: FakeKube, count: int) -> None:
    async def enough() -> bool:
        return len(kube.calls) >= count

    await eventually_async(enough, poll_s=0.005)


async def test_the_first_leads_and_the_second_waits_for_the_lease_to_expire(
    kube: FakeKube, clock: Clock
) -> None:
    first, second = candidate(kube, clock, "a"), candidate(kube, clock, "b")
    assert await first.attempt()
    assert first.leads
    assert not await second.attempt()
    clock.now += 9.9
    assert not await second.attempt()
    clock.now += 0.2
    assert await second.attempt()
    spec = kube.stored("Lease", LEASE_NAME)["spec"]
    assert (spec["holderIdentity"], spec["leaseTransitions"]) == ("b", 1)
    assert not await first.attempt()
    assert not first.leads


async def test_a_renewed_lease_does_not_expire(kube: FakeKube, clock: Clock) -> None:
    first, second = candidate(kube, clock, "a"), candidate(kube, clock, "b")
    await first.attempt()
    for _ in range(10):
        assert not await second.attempt()
        clock.now += 5.0
        assert await first.attempt()
    assert kube.stored("Lease", LEASE_NAME)["spec"]["leaseTransitions"] == 0


async def test_a_leader_stops_before_another_may_begin(kube: FakeKube, clock: Clock) -> None:
    first, second = candidate(kube, clock, "a"), candidate(kube, clock, "b")
    await first.attempt()
    await second.attempt()
    kube.refuse["get", "Lease"] = AWAY
    while first.leads:
        clock.now += 0.1
    kube.refuse.clear()
    assert not await second.attempt()


async def test_an_operator_that_comes_back_under_its_name_leads_at_once(
    kube: FakeKube, clock: Clock
) -> None:
    await candidate(kube, clock, "a").attempt()
    assert await candidate(kube, clock, "a").attempt()


async def test_two_that_write_at_once_do_not_both_win(kube: FakeKube, clock: Clock) -> None:
    first, second = candidate(kube, clock, "a"), candidate(kube, clock, "b")
    results = await asyncio.gather(first.attempt(), second.attempt())
    assert sorted(results) == [False, True]
    assert holder(kube) == ("a" if results[0] else "b")


async def test_a_renewal_whose_answer_was_lost_is_still_its_own(
    kube: FakeKube, clock: Clock
) -> None:
    first = candidate(kube, clock, "a")
    await first.attempt()
    replace, lost = kube.replace, [True]

    async def stored_but_not_told(manifest: dict[str, Any]) -> dict[str, Any]:
        answer = await replace(manifest)
        if lost.pop() if lost else False:
            return await replace(manifest)  # the client tries again, and conflicts with itself
        return answer

    kube.replace = stored_but_not_told  # type: ignore[method-assign]
    assert await first.attempt()
    assert first.leads
    assert not lost


async def test_a_clean_stop_hands_over_at_once(kube: FakeKube, clock: Clock) -> None:
    first, second = candidate(kube, clock, "a"), candidate(kube, clock, "b")
    await first.attempt()
    await first.release()
    assert not first.leads
    assert await second.attempt()
    # What is another's is not released.
    await first.release()
    assert holder(kube) == "b"


async def test_a_release_that_fails_is_left_to_expire(kube: FakeKube, clock: Clock) -> None:
    first = candidate(kube, clock, "a")
    await first.attempt()
    kube.refuse["replace", "Lease"] = AWAY
    await first.release()
    assert holder(kube) == "a"


async def test_win_outlasts_an_api_server_that_is_away(kube: FakeKube) -> None:
    election = Election(kube, "ns", "a", duration_s=1.0, renew_s=0.01)
    kube.refuse["get", "Lease"] = AWAY
    winning = asyncio.create_task(election.win())
    await calls(kube, 3)
    kube.refuse.clear()
    await winning
    assert election.leads


async def test_keep_ends_when_the_lease_is_anothers(kube: FakeKube) -> None:
    election = Election(kube, "ns", "a", duration_s=5.0, renew_s=0.01)
    await election.win()
    keeping = asyncio.create_task(election.keep())
    await calls(kube, 8)
    assert not keeping.done()
    lease = kube.stored("Lease", LEASE_NAME)
    lease["spec"]["holderIdentity"] = "b"
    kube.put(lease)
    await keeping
    assert not election.leads


async def test_keep_ends_when_it_cannot_renew_in_time(kube: FakeKube) -> None:
    election = Election(kube, "ns", "a", duration_s=0.2, renew_s=0.02)
    await election.win()
    kube.refuse["get", "Lease"] = AWAY
    await asyncio.wait_for(election.keep(), 5.0)
    assert not election.leads


async def test_standing_by_is_told_once_for_each_leader(kube: FakeKube, clock: Clock) -> None:
    told: list[int] = []
    await candidate(kube, clock, "a").attempt()
    follower = Election(
        kube, "ns", "b", duration_s=10.0, renew_s=2.0,
        when_waiting=lambda: told.append(1), clock=clock,
    )  # fmt: skip
    await follower.attempt()
    await follower.attempt()
    assert told == [1]


def test_a_lease_that_would_be_renewed_too_seldom_is_refused(kube: FakeKube) -> None:
    with pytest.raises(ConfigError, match="LEASE_RENEW_S: 15 s is too seldom"):
        Election(kube, "ns", "a", duration_s=15.0, renew_s=15.0)
