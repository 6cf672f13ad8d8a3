"""Requests of a real router, and what they count for its promises."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
import httpx
import pytest

from redserve.slo import INDICATORS, Objective
from redserve.wire.router_client import RouterClient
from tests.router.cluster import Cluster, cluster, picture, question
from tests.router.fake_encoder import BreakCall, Fail, Hang, Publish

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

NEVER_LATE_S, ALWAYS_LATE_S = 3600.0, 1e-9


def promises(threshold_s: float, fair_deadline_s: float = 1.0) -> tuple[Objective, ...]:
    """One of each kind; its name is the indicator in lower case."""
    return tuple(
        Objective(
            indicator.lower(),
            indicator,
            None if indicator == "Availability" else threshold_s,
            0.9,
            86_400.0,
            fair_deadline_s,
        )
        for indicator in INDICATORS
    )


def with_promises(
    threshold_s: float = NEVER_LATE_S, fair_deadline_s: float = 1.0, **settings: Any
) -> AbstractAsyncContextManager[Cluster]:
    return cluster(slos=promises(threshold_s, fair_deadline_s), **settings)


def events(c: Cluster) -> dict[str, tuple[int, int]]:
    """Good and bad events of the promises that have any."""
    found = {
        promise.name: tuple(
            int(
                c.router.registry.get_sample_value(
                    "redserve_slo_events_total", {"slo": promise.name, "outcome": outcome}
                )
                or 0
            )
            for outcome in ("good", "bad")
        )
        for promise in promises(1.0)
    }
    return {name: (both[0], both[1]) for name, both in found.items() if any(both)}


async def until_ended(c: Cluster, num_requests: int = 1) -> None:
    """Requests that are given up end a little later than their clients."""
    async with asyncio.timeout(20):
        while c.router.dispatcher.num_inflight or ended(c) < num_requests:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def ended(c: Cluster) -> float:
    return sum(
        sample.value
        for metric in c.router.registry.collect()
        if metric.name == "redserve_requests"
        for sample in metric.samples
        if sample.name.endswith("_total")
    )


GOOD, BAD = (1, 0), (0, 1)
NAMES = [indicator.lower() for indicator in INDICATORS]


async def test_all_events_of_a_promise_are_there_before_the_first():
    async with with_promises(0.25) as c:
        async with httpx.AsyncClient() as client:
            page = (await client.get(f"{c.http}/metrics")).text
        for name in NAMES:
            for outcome in ("bad", "good"):
                line = f'redserve_slo_events_total{{outcome="{outcome}",slo="{name}"}} 0.0'
                assert line in page
            assert f'redserve_slo_objective_ratio{{slo="{name}"}} 0.9' in page
            threshold = f'redserve_slo_threshold_seconds{{slo="{name}"}} 0.25'
            assert (threshold in page) == (name != "availability")


async def test_a_complete_answer_in_time_keeps_every_promise():
    async with with_promises() as c:
        await c.ask(question("what", picture("red"), picture("blue")))
        assert events(c) == {**dict.fromkeys(NAMES, GOOD), "encodelatency": (2, 0)}


async def test_a_late_one_breaks_those_of_latency():
    async with with_promises(ALWAYS_LATE_S) as c:
        await c.ask(question("what", picture("red")))
        assert events(c) == {**dict.fromkeys(NAMES, BAD), "availability": GOOD}


async def test_text_encodes_nothing_and_one_token_has_no_pace():
    async with with_promises() as c:
        c.llms[0].words = ("one",)
        await c.ask(question("hello"))
        assert events(c) == dict.fromkeys(
            ("availability", "timetofirsttoken", "requestlatency"), GOOD
        )


async def test_cached_items_are_good_and_covered_ones_no_events():
    async with with_promises(ALWAYS_LATE_S) as c:
        c.encoders[0].act = lambda *_: Publish(cached=True)
        c.llms[0].covered = frozenset({1})
        await c.ask(question(picture("red"), picture("blue")))
        assert events(c)["encodelatency"] == (1, 0)


@pytest.mark.parametrize(
    "wrong",
    [question("hello", model="other"), question(), question(b"no picture")],
    ids=["model", "empty", "picture"],
)
async def test_a_wrong_request_counts_nowhere(wrong: Any):
    async with with_promises() as c:
        with pytest.raises(grpc.aio.AioRpcError):
            await c.ask(wrong)
        await until_ended(c)
        assert events(c) == {}


async def test_a_picture_that_an_encoder_refuses_counts_nowhere():
    async with with_promises() as c:
        c.encoders[0].act = lambda *_: Fail("INVALID_ARGUMENT")
        with pytest.raises(grpc.aio.AioRpcError):
            await c.ask(question(picture("red")))
        assert events(c) == {}


BROKEN = dict.fromkeys(("availability", "timetofirsttoken", "requestlatency"), BAD)


async def test_errors_of_the_service_break_what_they_keep_from_the_client():
    async with with_promises() as c:
        c.encoders[0].act = lambda *_: Fail("INTERNAL")
        with pytest.raises(grpc.aio.AioRpcError):
            await c.ask(question(picture("red")))
        assert events(c) == {**BROKEN, "encodelatency": BAD}


async def test_an_item_that_needs_a_second_encoder_is_one_event():
    async with with_promises(num_encoders=2) as c:
        first = [True]

        def once(*_: Any) -> Any:
            return BreakCall() if first and first.pop() else Publish()

        for encoder in c.encoders:
            encoder.act = once
        await c.ask(question(picture("red")))
        assert events(c)["encodelatency"] == GOOD


async def test_a_full_router_is_not_available():
    async with with_promises(max_inflight_requests=1) as c, waiting(c):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await c.ask(question("second"))
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert events(c) == BROKEN


class waiting:  # noqa: N801  # reads as a phrase
    """A request whose picture is never encoded, while the block lasts."""

    def __init__(self, c: Cluster, **options: Any) -> None:
        self._c = c
        self._options = options

    async def __aenter__(self) -> asyncio.Task[Any]:
        c = self._c
        journal = c.encoders[0].journal
        num_calls = len(journal.all("encode"))
        c.encoders[0].act = lambda *_: Hang()
        self._task = asyncio.create_task(c.ask(question(picture("red")), **self._options))
        await journal.wait_count("encode", num_calls + 1, 20.0)
        return self._task

    async def __aexit__(self, *_exc: object) -> None:
        self._task.cancel()
        await asyncio.wait({self._task})


async def test_a_client_that_leaves_in_time_counts_nowhere():
    async with with_promises() as c:
        async with waiting(c):
            pass
        await until_ended(c)
        assert events(c) == {}


async def test_a_client_that_leaves_late_has_waited_too_long():
    async with with_promises(ALWAYS_LATE_S) as c:
        async with waiting(c):
            pass
        await until_ended(c)
        late = ("timetofirsttoken", "requestlatency", "encodelatency")
        assert events(c) == dict.fromkeys(late, BAD)


async def ask_until_its_deadline(c: Cluster) -> None:
    async with waiting(c, timeout=2.0) as asking:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await asking
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await until_ended(c)


async def test_a_deadline_that_leaves_too_little_time_counts_nowhere():
    async with with_promises(fair_deadline_s=10.0) as c:
        await ask_until_its_deadline(c)
        assert events(c) == {}


async def test_a_deadline_that_leaves_enough_is_missed_by_the_service():
    async with with_promises(ALWAYS_LATE_S, fair_deadline_s=0.1) as c:
        await ask_until_its_deadline(c)
        assert events(c) == {**BROKEN, "encodelatency": BAD}


async def test_the_deadline_of_the_service_is_always_its_own_fault():
    async with with_promises(fair_deadline_s=100.0, request_timeout_s=2.0) as c:
        async with waiting(c) as asking:
            with pytest.raises(grpc.aio.AioRpcError):
                await asking
        assert events(c) == {**BROKEN, "encodelatency": BAD}


async def until_events(c: Cluster, expected: dict[str, tuple[int, int]]) -> None:
    async with asyncio.timeout(20):
        while events(c) != expected:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("threshold_s", "verdict"), [(NEVER_LATE_S, GOOD), (ALWAYS_LATE_S, BAD)], ids=["good", "bad"]
)
async def test_what_is_known_is_told_while_the_request_goes_on(
    threshold_s: float, verdict: tuple[int, int]
):
    async with with_promises(threshold_s) as c:
        go_on = {0: asyncio.Event(), 1: asyncio.Event()}

        async def wait(n: int, _context: Any) -> None:
            if n in go_on:
                await go_on[n].wait()

        c.llms[0].before_token = wait
        asking = asyncio.create_task(c.ask(question("what", picture("red"))))
        await until_events(c, {"encodelatency": verdict})
        go_on[0].set()
        await until_events(c, {"encodelatency": verdict, "timetofirsttoken": verdict})
        first = "redserve_time_to_first_token_seconds_count"
        assert c.router.registry.get_sample_value(first) == 1
        assert ended(c) == 0
        go_on[1].set()
        await asking
        assert events(c) == {**dict.fromkeys(NAMES, verdict), "availability": GOOD}
        assert c.router.registry.get_sample_value(first) == 1


async def test_an_item_that_is_needed_again_is_one_event():
    async with with_promises() as c:
        c.llms[0].ask_again = (0,)
        await c.ask(question("what", picture("red"), picture("blue")))
        assert events(c) == {**dict.fromkeys(NAMES, GOOD), "encodelatency": (2, 0)}


async def test_a_request_that_goes_on_elsewhere_has_one_first_token():
    async with with_promises(num_llms=2) as c:
        lost: list[int] = []

        async def once(n: int, context: Any) -> None:
            if n == 2 and not lost:
                lost.append(n)
                await context.abort(grpc.StatusCode.UNAVAILABLE, "as told by the test")

        for llm in c.llms:
            llm.before_token = once
        await c.ask(question("what", picture("red")))
        assert lost
        assert events(c) == dict.fromkeys(NAMES, GOOD)


async def test_latencies_are_those_of_complete_answers():
    async with with_promises() as c:
        await c.ask(question("what", picture("red")))
        for _ in range(3):
            with pytest.raises(grpc.aio.AioRpcError):
                await c.ask(question("hello", model="other"))
        async with waiting(c):
            pass
        await until_ended(c, 5)
        for latency in ("request_duration", "time_per_output_token", "time_to_first_token"):
            assert c.router.registry.get_sample_value(f"redserve_{latency}_seconds_count") == 1


async def test_the_overview_says_how_it_goes():
    slos = (*promises(NEVER_LATE_S)[:1], *promises(ALWAYS_LATE_S)[3:])
    async with cluster(slos=slos) as c, RouterClient(c.router.server.address) as client:
        before = await client.overview()
        assert [slo.attainment for slo in before.slos] == [None, None, None]
        for _ in range(3):
            await c.ask(question("what", picture("red")))
        async with waiting(c):
            after = await client.overview()
        assert after.model == "tiny"
        assert after.uptime_s > before.uptime_s
        first, latency, up = after.slos
        assert [slo.name for slo in after.slos] == [
            "timetofirsttoken", "requestlatency", "availability",
        ]  # fmt: skip
        assert (first.attainment, first.budget_left) == (1.0, 1.0)
        assert (up.attainment, up.threshold_s) == (1.0, None)
        assert (latency.attainment, latency.threshold_s) == (0.0, ALWAYS_LATE_S)
        assert latency.budget_left == pytest.approx(-9.0)
        assert [(t.window_s, t.good, t.bad) for t in latency.tallies] == [
            (window_s, 0, 3) for window_s in (60.0, 300.0, 3600.0, 0.0)
        ]
        assert after.time_to_first_token.count == after.request_duration.count == 3
        assert 0 < after.time_to_first_token.p50_s <= after.request_duration.p99_s
        assert after.requests_per_s > 0
        assert after.output_tokens_per_s == pytest.approx(5 * after.requests_per_s)
        assert after.num_inflight == 1
        assert [(one.pool, one.address, one.serving) for one in after.replicas] == [
            ("encoder", c.encoders[0].address, True),
            ("llm", c.llms[0].address, True),
        ]
        assert all(one.load for one in after.replicas)
