"""Sums, percentiles and standings over time; the clock is a number."""

from __future__ import annotations

import statistics
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redserve.slo import (
    WINDOWS_S,
    End,
    Ended,
    Objective,
    Percentiles,
    RecentValues,
    Scoreboard,
    SlidingSums,
    Tally,
    Traffic,
)

steps = st.lists(st.tuples(st.floats(0.0, 40.0), st.integers(1, 5)), max_size=60)


@given(steps, st.floats(1.0, 100.0))
def test_a_window_holds_what_fell_into_it_and_at_most_one_bucket_more(
    events: list[tuple[float, int]], window_s: float
):
    sums, now_s, seen = SlidingSums(2, 5.0, 100.0), 1000.0, []
    for pause_s, count in events:
        now_s += pause_s
        sums.add(now_s, count, 2 * count)
        seen.append((now_s, count))
    total, doubled = sums.over(now_s, window_s)
    assert doubled == 2 * total
    assert total >= sum(count for at_s, count in seen if at_s > now_s - window_s)
    assert total <= sum(count for at_s, count in seen if at_s > now_s - window_s - 5.0)


def test_memory_is_bounded():
    sums = SlidingSums(1, 1.0, 60.0)
    for second in range(10_000):
        sums.add(float(second), 1)
    assert len(sums._buckets) <= 61
    assert sums.over(9_999.0, 60.0) == (61,)
    assert sums.over(20_000.0, 60.0) == (0,)


def test_counts_must_be_complete():
    with pytest.raises(ValueError, match="2 counts are needed"):
        SlidingSums(2, 1.0, 60.0).add(0.0, 1)


@given(st.lists(st.floats(0.0, 10.0), min_size=1, max_size=200))
def test_percentiles_are_values_that_were_measured(values: list[float]):
    recent = RecentValues(300.0, 1000)
    for value in values:
        recent.add(1.0, value)
    found = recent.percentiles(1.0)
    assert {found.p50, found.p95, found.p99} <= set(values)
    assert found.p50 <= found.p95 <= found.p99 <= max(values)
    assert found.p50 == statistics.median_low(values)
    assert found.count == len(values)


def test_old_values_and_too_many_are_forgotten():
    recent = RecentValues(10.0, 3)
    for second, value in enumerate((9.0, 1.0, 2.0, 3.0)):
        recent.add(float(second), value)
    assert recent.percentiles(3.0) == Percentiles(2.0, 3.0, 3.0, 3)
    assert recent.percentiles(12.5) == Percentiles(3.0, 3.0, 3.0, 1)
    assert recent.percentiles(14.0) == Percentiles()


UP = Objective("up", "Availability", None, 0.9, 86400.0)
FAST = Objective("fast", "TimeToFirstToken", 1.0, 0.5, 86400.0)


def test_standings_over_every_window():
    board = Scoreboard([UP, FAST])
    assert board.objectives == (UP, FAST)
    for at_s, end in (
        (0.0, Ended(End.COMPLETE, 2.0, first_token_s=0.5, num_tokens=1)),
        (3000.0, Ended(End.COMPLETE, 2.0, first_token_s=1.5, num_tokens=1)),
        (3700.0, Ended(End.FAILED, 0.1)),
        (3980.0, Ended(End.LEFT, 0.1)),
    ):
        if end.first_token_s is not None:
            assert board.note_first_token(at_s, end.first_token_s)
        verdicts = board.note(at_s, end)
        assert bool(verdicts) == (end.end is not End.LEFT)
    up, fast = board.standings(4000.0)
    assert up.recent == (Tally(), Tally(0, 1), Tally(1, 1))
    assert len(up.recent) == len(WINDOWS_S)
    assert up.window == up.since_start == Tally(2, 1)
    assert up.attainment == pytest.approx(2 / 3)
    assert up.budget_left == pytest.approx(1 - (1 / 3) / 0.1)
    assert fast.window == Tally(1, 2)
    assert [s.window for s in board.standings(4000.0 + 87000.0)] == [Tally(), Tally()]


def test_nothing_is_attained_before_the_first_event():
    (standing,) = Scoreboard([UP]).standings(0.0)
    assert standing.attainment is None
    assert standing.budget_left is None
    assert Tally(5, 0).budget_left(0.9) == 1.0


def test_a_long_window_is_kept_in_few_pieces():
    board = Scoreboard([replace(UP, window_s=28 * 86400.0)])
    for hour in range(24 * 40):
        board.note(hour * 3600.0, Ended(End.COMPLETE, 1.0))
    (standing,) = board.standings(40 * 86400.0)
    assert 24 * 28 - 2 <= standing.window.good <= 24 * 28 + 2
    (record,) = board._records
    assert len(record._coarse._buckets) <= 514


def test_traffic_is_a_rate_over_what_was_seen():
    traffic = Traffic(100.0)
    for second in range(100, 110):
        traffic.note_tokens(second + 0.5, 30)
        traffic.note_first_token(second + 0.5, 0.5)
        traffic.note(second + 0.5, Ended(End.COMPLETE, 2.0, None, 0.5, 1.5, 11))
    traffic.note(110.0, Ended(End.FAILED, 9.0))
    traffic.note_first_token(110.0, 0.25)
    traffic.note(110.0, Ended(End.LEFT, 9.0, None, 0.25, 0.25, 1))
    figures = traffic.figures(110.0)
    assert figures.requests_per_s == pytest.approx(1.2)
    assert figures.failures_per_s == pytest.approx(0.1)
    assert figures.output_tokens_per_s == pytest.approx(30.0)
    assert figures.ttft == Percentiles(0.5, 0.5, 0.5, 11)
    assert figures.tpot == Percentiles(0.1, 0.1, 0.1, 10)
    assert figures.duration == Percentiles(2.0, 2.0, 2.0, 10)
    assert traffic.figures(1000.0).requests_per_s == 0.0


@pytest.mark.parametrize("phase_s", [0.0, 0.25, 0.999])
def test_a_steady_rate_is_told_whatever_the_phase_of_the_clock(phase_s: float):
    traffic = Traffic(0.0)
    for tenth in range(3000):
        traffic.note(tenth / 10 + phase_s, Ended(End.COMPLETE, 1.0))
    assert traffic.figures(300.0 + phase_s).requests_per_s == pytest.approx(10.0, rel=0.02)
