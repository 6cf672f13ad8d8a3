"""An answer tells whoever asks for its timeline what it was judged by: what the router counted."""

from __future__ import annotations

import asyncio
import base64
from time import perf_counter
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from redserve.wire.judged import judged_from_proto
from tests.router.cluster import picture, question
from tests.router.fake_encoder import BreakCall, Publish
from tests.router.test_promises import (
    ALWAYS_LATE_S,
    BAD,
    GOOD,
    NAMES,
    NEVER_LATE_S,
    events,
    until_ended,
    with_promises,
)

if TYPE_CHECKING:
    from redserve.v1 import encoder_pb2 as pb
    from tests.router.cluster import Cluster


async def ask(c: Cluster, *pictures: bytes) -> dict[str, Any]:
    """What an answer has beside that of anybody else."""
    urls = [f"data:image/png;base64,{base64.b64encode(data).decode()}" for data in pictures]
    parts: list[dict[str, Any]] = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    content = [*parts, {"type": "text", "text": "what"}]
    body = {
        "messages": [{"role": "user", "content": content}],
        "redserve": {"timeline": True},
    }
    async with httpx.AsyncClient(base_url=c.http) as client:
        reply = await client.post("/v1/chat/completions", json=body, timeout=20)
    told: dict[str, Any] = reply.json()["redserve"]
    return told


def told_events(judged: dict[str, Any]) -> dict[str, tuple[int, int]]:
    return {one["slo"]: (one["good"], one["bad"]) for one in judged["events"]}


def observed_s(c: Cluster, latency: str) -> float | None:
    return c.router.registry.get_sample_value(f"redserve_{latency}_seconds_sum")


@pytest.mark.parametrize("threshold_s", [NEVER_LATE_S, ALWAYS_LATE_S], ids=["good", "bad"])
async def test_what_is_told_is_what_is_counted(threshold_s: float) -> None:
    async with with_promises(threshold_s) as c:
        # One is lost and comes again, which is no second event; one is answered from a cache.
        c.llms[0].ask_again = (0,)
        c.encoders[0].act = lambda _, item: Publish(cached=item.index == 1)
        told = await ask(c, picture("red"), picture("blue"))
        await until_ended(c)
        judged, timeline = told["judged"], told["timeline"]
        assert told_events(judged) == events(c)
        late = 0 if threshold_s == NEVER_LATE_S else 1
        assert events(c)["encodelatency"] == (2 - late, late)
        for latency in ("time_to_first_token", "time_per_output_token", "request_duration"):
            assert judged[f"{latency}_s"] == observed_s(c, latency)
        lasted_ns = timeline["finished_ns"] - timeline["received_ns"]
        assert judged["request_duration_s"] == lasted_ns / 1e9


async def test_an_image_is_judged_from_its_first_dispatch() -> None:
    async with with_promises(num_encoders=2) as c:
        called, go_on = asyncio.Event(), asyncio.Event()
        first = [True]

        def gate(_item: pb.EncodeItem) -> asyncio.Event | None:
            if first:
                called.set()
                return go_on
            return None

        def once(*_: Any) -> Any:
            return BreakCall() if first and first.pop() else Publish()

        for encoder in c.encoders:
            encoder.gate, encoder.act = gate, once
        asking = asyncio.create_task(ask(c, picture("red")))
        async with asyncio.timeout(20):
            await called.wait()
        begin_s = perf_counter()
        await c.ask(question("something else meanwhile"))
        waited_s = perf_counter() - begin_s
        go_on.set()
        told = await asking
        # No bar says how long the first encoder was waited for.
        assert told["judged"]["encode_latency_s"] >= waited_s
        assert told["judged"]["encode_latency_s"] <= told["judged"]["request_duration_s"]


async def test_a_cached_image_is_good_and_has_no_time() -> None:
    async with with_promises(ALWAYS_LATE_S) as c:
        c.encoders[0].act = lambda *_: Publish(cached=True)
        judged = (await ask(c, picture("red")))["judged"]
        assert judged["encode_latency_s"] is None
        assert told_events(judged) == {
            **dict.fromkeys(NAMES, BAD), "availability": GOOD, "encodelatency": GOOD,
        }  # fmt: skip


async def test_text_of_one_token_is_no_event_of_pace_and_images() -> None:
    async with with_promises() as c:
        c.llms[0].words = ("one",)
        judged = (await ask(c))["judged"]
        assert judged["time_per_output_token_s"] is judged["encode_latency_s"] is None
        assert told_events(judged) == dict.fromkeys(
            ("availability", "timetofirsttoken", "requestlatency"), GOOD
        )


async def test_the_grpc_door_tells_the_same() -> None:
    async with with_promises() as c:
        c.encoders[0].act = lambda _, item: Publish(cached=item.index == 1)
        asked = question(picture("red"), picture("blue"), "what", include_timeline=True)
        judged = judged_from_proto((await c.ask(asked)).finished.judged)
        await until_ended(c)
        told = {slo: (tally.good, tally.bad) for slo, tally in judged.events}
        assert told == events(c)
        assert told["encodelatency"] == (2, 0)
        assert judged.time_to_first_token_s == observed_s(c, "time_to_first_token")
        assert judged.time_per_output_token_s == observed_s(c, "time_per_output_token")
        assert judged.request_duration_s == observed_s(c, "request_duration")
        assert judged.encode_latency_s is not None
        assert 0 < judged.encode_latency_s < judged.request_duration_s


async def test_who_did_not_ask_for_the_timeline_hears_of_no_promises() -> None:
    async with with_promises() as c:
        finished = (await c.ask(question("what"))).finished
        assert not finished.HasField("judged")
