"""What histograms are told of an answer: the times of its timeline, each under its own name."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from redserve.errors import InternalError
from redserve.telemetry.clock import now_ns
from redserve.telemetry.first_token import first_token_parts
from redserve.telemetry.metrics.router import RouterMetrics
from redserve.telemetry.timeline import Bar, Timeline, overlap_ratio
from redserve.telemetry.tracing import NO_ORIGIN
from redserve.telemetry.transport_times import transport_times
from redserve.wire.types import timeline_from_proto
from redserve_router.dispatch import dispatcher
from redserve_router.dispatch.accounts import close_accounts, note_first_token
from redserve_router.dispatch.item_state import Outcome
from redserve_router.ledger import Ledger
from redserve_router.timelines import TimelineStore
from tests.router import fake_llm
from tests.router.cluster import cluster, picture, question
from tests.router.fake_encoder import Hang

RECEIVED_S = 1_000


def at_ns(after_s: float) -> int:
    return round((RECEIVED_S + after_s) * 1e9)


def bar(name: str, start_s: float, end_s: float, item_index: int | None = None) -> Bar:
    return Bar("lane", name, at_ns(start_s), at_ns(end_s), item_index)


BARS = (
    bar("preprocess", 0, 1.5),
    bar("lost", 1.5, 1.9),
    bar("encode", 2, 6, 0),
    bar("encode", 6, 9, 1),
    bar("transfer", 6, 8, 0),
    bar("prefill", 8, 10),
    bar("transfer", 10, 15, 1),
    bar("prefill", 15, 22),
    bar("decode", 22, 28),
)
"""No two parts take equally long."""
FIRST_TOKEN_S, LAST_TOKEN_S, FINISHED_S = 24.0, 28.8, 30.0
SECONDS: dict[str, float] = {
    "time_to_first_token_seconds": 24.0,
    "time_per_output_token_seconds": 1.2,
    "request_duration_seconds": 30.0,
    "overlap_ratio": 1 / 7,
    "transport_item_seconds exposed": 5.0,
    "transport_item_seconds hidden": 2.0,
    "time_to_first_token_part_seconds preprocess": 1.5,
    "time_to_first_token_part_seconds encode_exposed": 6.0,
    "time_to_first_token_part_seconds encode_hidden": 1.0,
    "time_to_first_token_part_seconds transport_exposed": 5.0,
    "time_to_first_token_part_seconds prefill": 8.0,
    "time_to_first_token_part_seconds lost": 0.4,
    "time_to_first_token_part_seconds queue": 2.1,
}
"""Sums of its histograms, read off the bars by hand."""
COUNTS = {name: 2 if "transport_item" in name else 1 for name in SECONDS}


def told(registry: CollectorRegistry, suffix: str) -> dict[str, float]:
    """What was added up (`_sum`) or counted (`_count`), by name and part."""

    def value(name: str) -> float:
        metric, _, part = name.partition(" ")
        found = registry.get_sample_value(
            f"redserve_{metric}{suffix}", {"part": part} if part else {}
        )
        assert found is not None, name
        return found

    return {name: value(name) for name in SECONDS}


class Books:
    """A router's books, and one request."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        metrics = RouterMetrics(self.registry)
        self._services: Any = SimpleNamespace(
            name="router",
            model_name="tiny",
            metrics=metrics,
            ledger=Ledger((), metrics),
            timelines=TimelineStore(1),
        )
        self._life: Any = SimpleNamespace(
            received_ns=at_ns(0),
            last_token_ns=at_ns(FIRST_TOKEN_S),
            deadline=SimpleNamespace(timeout_s=60.0, from_client=False, remaining_s=lambda: 30.0),
            made=[1, 2, 3, 4, 5],
            items=(),
            num_prompt_tokens=9,
            origin=NO_ORIGIN,
            sequence_id="s",
            span=SimpleNamespace(recording=False),
            finished=None,
        )

    def first_token(self) -> None:
        note_first_token(self._life, self._services)

    def close(self, error: InternalError | None = None) -> None:
        self._life.last_token_ns = at_ns(LAST_TOKEN_S)
        timeline = Timeline(
            "r",
            BARS,
            overlap_ratio(BARS),
            received_ns=at_ns(0),
            first_token_ns=at_ns(FIRST_TOKEN_S),
            finished_ns=at_ns(FINISHED_S),
        )
        close_accounts(self._life, self._services, timeline, error)


def test_every_second_of_an_answer_is_added_where_it_was_spent() -> None:
    books = Books()
    books.first_token()
    books.close()
    assert told(books.registry, "_sum") == pytest.approx(SECONDS)
    assert told(books.registry, "_count") == COUNTS


def test_an_answer_that_broke_off_has_its_first_token_and_no_other_figure() -> None:
    books = Books()
    books.first_token()
    books.close(InternalError("as told by the test"))
    expected = {name: 24.0 if name == "time_to_first_token_seconds" else 0.0 for name in SECONDS}
    assert told(books.registry, "_sum") == pytest.approx(expected)


def figures_of(timeline: Timeline) -> dict[str, float]:
    """What a timeline says, in seconds, except for the ratio; it does not know its last token."""
    assert timeline.overlap_ratio is not None
    transports = transport_times(timeline.bars)
    spent_ns = {
        "time_to_first_token_seconds": timeline.first_token_ns - timeline.received_ns,
        "request_duration_seconds": timeline.finished_ns - timeline.received_ns,
        "transport_item_seconds exposed": sum(one.exposed_ns for one in transports),
        "transport_item_seconds hidden": sum(one.hidden_ns for one in transports),
        **{
            f"time_to_first_token_part_seconds {part}": part_ns
            for part, part_ns in first_token_parts(timeline).items()
        },
    }
    return {"overlap_ratio": timeline.overlap_ratio} | {
        name: ns / 1e9 for name, ns in spent_ns.items()
    }


QUEUED = "redserve_queue_seconds_sum"


async def test_histograms_say_what_timelines_of_answers_say() -> None:
    async with cluster() as c:
        figures: list[dict[str, float]] = []
        queued_ns = 0
        for colour in ("red", "blue"):
            asked = question(picture(colour), "what", picture("green"), include_timeline=True)
            timeline = timeline_from_proto((await c.ask(asked)).finished.timeline)
            figures.append(figures_of(timeline))
            begun_ns = min(one.start_ns for one in timeline.bars if one.name == "prefill")
            queued_ns += begun_ns - timeline.received_ns
        sums = told(c.router.registry, "_sum")
        for name in SECONDS.keys() - {"time_per_output_token_seconds"}:
            expected = sum(one[name] for one in figures)
            assert sums[name] == pytest.approx(expected, abs=2e-9), name
        assert c.router.registry.get_sample_value(QUEUED) == pytest.approx(queued_ns / 1e9)


@pytest.mark.parametrize("ahead_s", [-3600, 3600])
async def test_an_engine_with_another_clock_makes_no_queue_of_an_hour(
    ahead_s: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fake_llm, "now_ns", lambda: now_ns() + ahead_s * 1_000_000_000)
    async with cluster() as c:
        began_ns = now_ns()
        await c.ask(question("what"))
        took_s = (now_ns() - began_ns) / 1e9
        queued_s = c.router.registry.get_sample_value(QUEUED)
        assert queued_s is not None
        assert (queued_s == 0) if ahead_s < 0 else (0 < queued_s <= took_s)


async def test_of_those_that_wait_the_oldest_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    async with cluster() as c:
        c.encoders[0].act = lambda *_: Hang()  # no engine can begin
        calls, asked_ns = [], []
        for colour in ("red", "blue"):
            asked_ns.append(now_ns())
            call = c.stub.Generate(question(picture(colour)))
            assert (await call.read()).HasField("started")
            calls.append(call)
        looked_ns = now_ns()
        monkeypatch.setattr(dispatcher, "now_ns", lambda: looked_ns)
        age_s = c.router.registry.get_sample_value("redserve_queue_oldest_seconds")
        assert age_s is not None
        assert (looked_ns - asked_ns[1]) / 1e9 <= age_s <= (looked_ns - asked_ns[0]) / 1e9
        for call in calls:
            call.cancel()


async def test_an_image_whose_client_left_has_not_failed() -> None:
    async with cluster() as c:
        encoder = c.encoders[0]
        encoder.act = lambda *_: Hang()
        call = c.stub.Generate(question(picture()))
        assert (await call.read()).HasField("started")
        await encoder.journal.wait_count("encode", 1)
        call.cancel()
        await encoder.journal.wait_count("cancel", 1)  # the last that is done for it
        value = c.router.registry.get_sample_value
        assert value("redserve_requests_total", {"code": "CANCELLED"}) == 1
        outcomes = {
            one.value: value("redserve_items_total", {"outcome": one.value}) for one in Outcome
        }
        assert outcomes == dict.fromkeys(outcomes, 0)
