"""Figures of a run."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redserve.bench.outcome import Problem
from redserve.bench.quantiles import nearest_rank, quantiles
from redserve.bench.summary import is_good, summarize
from redserve.bench.tables import grids, notes
from redserve.slo import End, Objective, Tally
from tests.bench.outcomes import BUSY, outcome, outcomes
from tests.strategies import effort

if TYPE_CHECKING:
    import random

    from redserve.bench.outcome import Outcome

FIRST = Objective("first", "TimeToFirstToken", 0.2, 0.9, 60.0)
PACE = Objective("pace", "TimePerOutputToken", 0.05, 0.9, 60.0)
UP = Objective("up", "Availability", None, 0.5, 60.0)
ENCODE = Objective("encode", "EncodeLatency", 0.05, 0.9, 60.0)
ALL = (FIRST, PACE, UP, ENCODE)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=300))
def test_quantiles_are_measured_values_in_order(values: list[float]) -> None:
    found = quantiles(values)
    assert found is not None
    assert found.count == len(values)
    assert found.p50 <= found.p90 <= found.p95 <= found.p99 <= found.max == max(values)
    assert {found.p50, found.p90, found.p95, found.p99} <= set(values)
    assert min(values) - 1e-6 <= found.mean <= max(values) + 1e-6


@given(st.lists(st.integers(0, 50), min_size=1, max_size=150), st.integers(1, 100))
def test_nearest_rank_is_the_smallest_value_with_enough_below(
    values: list[int], percent: int
) -> None:
    ranked = sorted(values)
    found = nearest_rank(ranked, percent)
    needed = percent * len(values)
    assert 100 * sum(value <= found for value in values) >= needed
    assert 100 * sum(value < found for value in values) < needed


def test_no_values_have_no_quantiles() -> None:
    assert quantiles([]) is None


@effort(60)
@given(outcomes(), st.randoms(use_true_random=False))
def test_what_always_holds(run: list[Outcome], rng: random.Random) -> None:
    found = summarize(run, ALL)
    shuffled = rng.sample(run, len(run))
    assert summarize(shuffled, ALL) == found, "the order in which requests ended does not matter"
    assert found.num_complete + sum(count for _, count in found.reasons) == found.num_requests
    assert found.num_good is not None
    assert found.num_requests + found.num_unsent == len(run)
    assert 0 <= found.num_good <= found.num_complete
    assert found.goodput_per_s is not None
    assert found.goodput_per_s <= found.requests_per_s
    assert summarize(run).goodput_per_s is None
    with_fewer = summarize(run, (FIRST,))
    assert with_fewer.num_good is not None
    assert with_fewer.num_good >= found.num_good, "more promises, less goodput"
    if found.by_images:
        counted = [of.ttft.count for _, of in found.by_images if of.ttft is not None]
        assert sum(counted) == (found.latencies.ttft.count if found.latencies.ttft else 0)
    for kept in found.kept[:3]:
        assert kept.tally is not None
        assert kept.tally.good + kept.tally.bad <= found.num_requests
    json.dumps(found.to_dict(), allow_nan=False)
    from_due = summarize(run, ALL, open_loop=True).from_due
    assert from_due is not None
    for sent, due in (
        (found.latencies.ttft, from_due.ttft),
        (found.latencies.duration, from_due.duration),
    ):
        assert (sent is None) == (due is None)
        if sent is not None and due is not None:
            assert sent.count == due.count
            assert sent.p99 <= due.p99


def test_figures_of_a_small_run() -> None:
    run = [
        outcome(0, start_s=10.0, ttft_s=0.1),
        outcome(1, start_s=11.0, ttft_s=0.3, num_images=2),
        outcome(2, start_s=12.0, ttft_s=0.1, tpot_s=0.09, num_images=2),
        outcome(3, start_s=13.5, ttft_s=None, problem=BUSY),
    ]
    found = summarize(run, ALL)
    assert found.span_s == pytest.approx(4.0)
    assert (found.num_requests, found.num_complete) == (4, 3)
    assert found.reasons == (("OVERLOADED", 1),)
    assert found.first_message == "the queue is full"
    assert found.requests_per_s == pytest.approx(0.75)
    assert found.num_output_tokens == 33
    assert found.num_good == 1
    assert found.goodput_per_s == pytest.approx(0.25)
    assert [one.tally for one in found.kept] == [Tally(2, 2), Tally(2, 1), Tally(3, 1), None]
    assert [one.is_broken for one in found.kept] == [True, True, False, False]
    assert [count for count, _ in found.by_images] == [1, 2]
    assert found.latencies.ttft is not None
    assert found.latencies.ttft.p50 == pytest.approx(0.1)
    assert found.latencies.ttft.max == pytest.approx(0.3)


def test_rates_are_of_all_that_was_sent_and_made_while_it_was() -> None:
    run = [
        # Due a second before the client sent it: that second put no load on the service.
        outcome(0, start_s=10.0, lag_s=1.0),
        # Its tokens were made, whatever became of it then.
        outcome(1, start_s=11.8, num_tokens=9, problem=BUSY),
    ]
    found = summarize(run)
    assert found.span_s == pytest.approx(1.98)
    assert found.num_output_tokens == 11 + 9
    assert found.requests_per_s == pytest.approx(1 / 1.98)
    assert found.tokens_per_s == pytest.approx(20 / 1.98)


def test_goodput_needs_the_whole_answer_even_without_a_promise_of_it() -> None:
    late = Problem(End.EXPIRED, "TIMEOUT", "no answer within 60 s")
    assert is_good(outcome(), (FIRST,))
    assert not is_good(outcome(problem=late), (FIRST,))


def test_a_request_without_an_event_breaks_nothing() -> None:
    assert is_good(outcome(num_tokens=1), (PACE,))


def test_an_open_loop_counts_from_when_requests_were_due() -> None:
    run = [outcome(n, ttft_s=0.1, lag_s=0.3 if n % 10 == 0 else 0.0) for n in range(100)]
    assert summarize(run).from_due is None
    found = summarize(run, open_loop=True)
    assert found.latencies.ttft is not None
    assert found.latencies.ttft.max == pytest.approx(0.1)
    assert found.from_due is not None
    assert found.from_due.ttft is not None
    assert found.from_due.duration is not None
    assert found.from_due.ttft.p90 == pytest.approx(0.1)
    assert found.from_due.ttft.p95 == pytest.approx(0.4)
    assert found.from_due.duration.p95 == pytest.approx(0.5)
    table = next(grids(found))
    assert [row[0].strip() for row in table.rows] == [
        "time to first token", "from when it was due", "time per output token", "whole answer",
        "from when it was due",
    ]  # fmt: skip
    assert any("sent late, by up to 300 ms (p99; 5 ms is fine)" in note for note in notes(found))


def test_from_due_is_never_less() -> None:
    early = outcome(0, lag_s=-1e-6)
    assert early.ttft_from_due_s == early.ttft_s
    assert early.duration_from_due_s == early.duration_s


def test_a_late_client_is_told() -> None:
    assert not summarize([outcome(n) for n in range(200)]).client_was_late
    late = [outcome(n, lag_s=0.006 if n < 3 else 0.0) for n in range(200)]
    assert summarize(late).client_was_late
