"""What a router tells of itself: each figure in its own place."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, Final

import pytest
from prometheus_client import CollectorRegistry

from redserve.slo import End, Ended, Objective
from redserve.telemetry.metrics.router import RouterMetrics
from redserve.wire.overview import Latency, Overview, WindowTally
from redserve_router.ledger import Ledger
from redserve_router.overview import overview

HALF_AN_HOUR: Final = Objective("up", "Availability", None, 0.5, 1800.0)
COMPLETE: Final = Ended(End.COMPLETE, duration_s=1.0)
FAILED: Final = Ended(End.FAILED, duration_s=1.0)
STARTED_S: Final = 1000.0


class Clock:
    """Shows what it is set to."""

    def __init__(self, now_s: float) -> None:
        self.now_s = now_s

    def __call__(self) -> int:
        return round(self.now_s * 1e9)


def told(ledger: Ledger) -> Overview:
    """By a router that has these books and nobody to send work to."""
    dispatcher: Any = SimpleNamespace(num_inflight=5, num_queued=4)
    pools = SimpleNamespace(report=tuple)
    services: Any = SimpleNamespace(ledger=ledger, model_name="tiny", pools=pools)
    return overview(dispatcher, services)


def books(clock: Clock) -> Ledger:
    return Ledger([HALF_AN_HOUR], RouterMetrics(CollectorRegistry()), clock)


def test_percentiles_of_a_hundred_different_answers() -> None:
    clock = Clock(STARTED_S)
    ledger = books(clock)
    for n in range(1, 101):
        ledger.note_first_token(n / 100)
        # Three tokens: two pauses of n ms.
        ledger.note(
            Ended(
                End.COMPLETE,
                duration_s=float(n),
                first_token_s=n / 100,
                last_token_s=n / 100 + 2 * n / 1000,
                num_tokens=3,
            )
        )
    found = told(ledger)
    assert found.time_to_first_token == Latency(0.5, 0.95, 0.99, 100)
    pace = found.time_per_output_token
    assert (pace.p50_s, pace.p95_s, pace.p99_s) == pytest.approx((0.05, 0.095, 0.099))
    assert found.request_duration == Latency(50.0, 95.0, 99.0, 100)


def test_every_window_has_its_own_events() -> None:
    clock = Clock(STARTED_S)
    ledger = books(clock)
    happened = [(7200, 7, 0), (3000, 4, 0), (1000, 3, 2), (200, 2, 0), (30, 1, 0)]
    for ago_s, num_good, num_failed in happened:
        clock.now_s = STARTED_S + 10_000 - ago_s
        for ended in [COMPLETE] * num_good + [FAILED] * num_failed:
            ledger.note(ended)
    clock.now_s = STARTED_S + 10_000
    found = told(ledger)
    (up,) = found.slos
    assert up.tallies == (
        WindowTally(60.0, 1, 0),
        WindowTally(300.0, 3, 0),
        WindowTally(3600.0, 10, 2),
        WindowTally(0.0, 17, 2),
    )
    # Of its own half an hour.
    assert up.attainment == pytest.approx(6 / 8)
    assert up.budget_left == pytest.approx(0.5)
    assert found.uptime_s == pytest.approx(10_000)


def test_rates_and_numbers() -> None:
    clock = Clock(STARTED_S)
    ledger = books(clock)
    clock.now_s += 10
    for ended in [COMPLETE] * 4 + [FAILED]:
        ledger.note(ended)
    ledger.note_tokens(60)
    found = told(ledger)
    rates = (found.requests_per_s, found.failures_per_s, found.output_tokens_per_s)
    assert rates == pytest.approx((0.5, 0.1, 6.0))
    assert (found.model, found.num_inflight, found.num_queued) == ("tiny", 5, 4)
