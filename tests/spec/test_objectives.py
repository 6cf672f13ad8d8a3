from __future__ import annotations

from typing import Any

from redserve.slo import Objective
from redserve.spec.objectives import objectives_of
from tests.spec.manifests import service

DAY_S = 86_400.0


def objectives(*slos: dict[str, Any]) -> tuple[Objective, ...]:
    return objectives_of(service(slos=list(slos)).spec.slos)


def test_numbers_of_a_promise() -> None:
    assert objectives() == ()
    assert objectives(
        {"name": "up", "indicator": "Availability", "objectivePercent": "99.9"},
        {"name": "first", "indicator": "TimeToFirstToken", "thresholdMilliseconds": 800,
         "objectivePercent": 95, "windowDays": 7},
    ) == (
        Objective("up", "Availability", None, 0.999, 28 * DAY_S, 0.8),
        Objective("first", "TimeToFirstToken", 0.8, 0.95, 7 * DAY_S, 0.8),
    )  # fmt: skip


def test_a_window_of_minutes_takes_the_place_of_days() -> None:
    up = {"name": "up", "indicator": "Availability", "windowDays": 7, "windowMinutes": 30}
    assert objectives(up)[0].window_s == 1800


def test_a_deadline_is_fair_that_leaves_time_for_the_shortest_promise_of_a_request() -> None:
    up = {"name": "up", "indicator": "Availability"}
    pace = {"name": "pace", "indicator": "TimePerOutputToken", "thresholdMilliseconds": 50}
    encode = {"name": "encode", "indicator": "EncodeLatency", "thresholdMilliseconds": 300}
    slow = {"name": "slow", "indicator": "RequestLatency", "thresholdMilliseconds": 9000}
    assert objectives(up, pace, encode)[0] == Objective(
        "up", "Availability", None, 0.99, 28 * DAY_S
    )
    assert objectives(up, pace, encode, slow)[0].fair_deadline_s == 9.0
