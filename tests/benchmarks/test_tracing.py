from __future__ import annotations

import pytest

from benchmarks.tracing.figures import interval, page_of, ratios, summarize

ROUNDS = {
    "off": [[0.010, 0.011, 0.030], [0.020, 0.022, 0.021]],
    "again": [[0.011, 0.011, 0.011], [0.021, 0.021, 0.021]],
    "5": [[0.011, 0.011, 0.012], [0.0210, 0.0210, 0.0210]],
    "100": [[0.022, 0.022, 0.022], [0.042, 0.042, 0.042]],
    "left out": [[0.010, 0.010, 0.010], [0.020, 0.020, 0.020]],
    "recorded": [[0.011, 0.011, 0.011], [0.022, 0.022, 0.022]],
}
TITLES = {
    "off": "off",
    "again": "noise",
    "5": "5 %",
    "100": "100 %",
    "left out": "no",
    "recorded": "yes",
}


def test_costs_are_taken_within_rounds():
    assert ratios(ROUNDS, "5") == pytest.approx([1.0, 1.0])
    made = summarize(ROUNDS)
    assert made["100"]["cost_percent"] == 100
    assert made["5"]["cost_percent"] == 0
    assert made["recorded"]["cost_percent"] == 10
    assert made["off"]["requests"] == 6
    assert made["off"]["ttft_median_ms"] == pytest.approx(20.5)


def test_an_interval_holds_the_median_and_is_the_same_again():
    values = [1 + number / 100 for number in range(40)]
    low, high = interval(values)
    assert low < 1.195 < high
    assert interval(values) == (low, high)
    assert interval([1.0] * 5) == (1.0, 1.0)


def test_the_page_says_what_was_wanted():
    figures = {
        "clients": {"1": summarize(ROUNDS), "4": summarize(ROUNDS)}, "otlp_bytes": 7,
        "cpu_us": {"off": 1.0, "not_recorded": 2.0, "recorded": 300.4}, "images": 2,
        "max_tokens": 4, "rounds": 2, "per_round": 3, "busy_rounds": 1, "commit": "abc",
        "hardware": "2 cores", "date": "2026-01-01",
    }  # fmt: skip
    page = page_of(figures, TITLES, 2.0)
    assert "At 5 % tracing costs **+0.00 %** and **+0.00 %** (wanted: under 2 %)" in page
    assert "| 100 % | 6 |" in page
    assert "by +10.00 % and +10.00 %; of one in twenty that is **+0.50 %**" in page
    assert "300 µs if it is recorded, 2 µs if not, 1 µs without a receiver" in page
    assert "1 rounds began on a busy machine" in page
