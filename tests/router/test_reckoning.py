"""Deadlines of clients, when their requests are reckoned: the last moments of them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from redserve.slo import End, Ended, Objective, judge
from redserve.slo.tally import Tally
from redserve.telemetry.timeline import Timeline
from redserve_router.dispatch.reckoning import reckon

FAIR_S = 1.0
UP = Objective("up", "Availability", None, 0.9, 3600.0, FAIR_S)
SECOND_NS = 1_000_000_000
GOOD, BAD, NO_EVENT = Tally(good=1), Tally(bad=1), Tally()


def ended_with(
    code: str, *, timeout_s: float = 10.0, remaining_s: float = 0.0, own: bool = True
) -> Ended:
    """A request without pictures and without a token, `remaining_s` before its deadline."""
    deadline = SimpleNamespace(
        timeout_s=timeout_s, from_client=own, remaining_s=lambda: remaining_s
    )
    life: Any = SimpleNamespace(deadline=deadline, last_token_ns=0, made=[], items=())
    finished_ns = SECOND_NS + round((timeout_s - remaining_s) * SECOND_NS)
    timeline = Timeline("r", (), received_ns=SECOND_NS, finished_ns=finished_ns)
    return reckon(life, timeline, code)


@pytest.mark.parametrize(
    ("remaining_s", "end"), [(0.0, End.EXPIRED), (0.04, End.EXPIRED), (0.06, End.LEFT)]
)
def test_a_call_that_is_cancelled_in_the_last_moment_was_ended_by_its_deadline(
    remaining_s: float, end: End
) -> None:
    ended = ended_with("CANCELLED", remaining_s=remaining_s)
    assert ended.end is end
    assert judge(UP, ended) == (BAD if end is End.EXPIRED else NO_EVENT)


def test_a_client_that_set_no_deadline_has_left_whenever_it_leaves() -> None:
    ended = ended_with("CANCELLED", remaining_s=0.01, own=False)
    assert ended.end is End.LEFT
    assert ended.deadline_s is None


@pytest.mark.parametrize("code", ["OK", "INVALID_ARGUMENT", "UNAVAILABLE"])
def test_what_else_ends_a_request_in_the_last_moment_is_what_it_is(code: str) -> None:
    early, late = (ended_with(code, remaining_s=left_s) for left_s in (5.0, 0.01))
    assert early.end is late.end
    assert late.end is not End.EXPIRED


@pytest.mark.parametrize(
    ("arrived_s", "verdict"),
    [(FAIR_S, BAD), (FAIR_S - 0.04, BAD), (FAIR_S - 0.06, NO_EVENT)],
    ids=["all of it", "nearly all", "less was set"],
)
def test_a_deadline_of_which_some_passed_on_the_way_gave_the_time_that_was_set(
    arrived_s: float, verdict: Tally
) -> None:
    assert judge(UP, ended_with("DEADLINE_EXCEEDED", timeout_s=arrived_s)) == verdict
