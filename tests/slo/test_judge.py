"""What counts: the table of docs/observability.md, case by case, and what holds for all of them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redserve.errors import ALL_ERRORS
from redserve.slo import (
    INDICATORS,
    End,
    Ended,
    EndedItem,
    Indicator,
    ItemEnd,
    Objective,
    Scoreboard,
    Tally,
    end_of,
    judge,
)

GOOD, BAD, NONE = Tally(good=1), Tally(bad=1), Tally()
THRESHOLD_S = 2.0


def objective(indicator: Indicator, threshold_s: float = THRESHOLD_S) -> Objective:
    needs_one = indicator != "Availability"
    return Objective("one", indicator, threshold_s if needs_one else None, 0.99, 3600.0)


def ended(end: End, duration_s: float = 1.0, **fields: object) -> Ended:
    return replace(Ended(end, duration_s), **fields)  # type: ignore[arg-type]


AVAILABILITY: list[tuple[Ended, Tally]] = [
    (ended(End.COMPLETE), GOOD),
    (ended(End.FAILED), BAD),
    (ended(End.REFUSED), NONE),
    (ended(End.LEFT, 100.0), NONE),
    (ended(End.EXPIRED, 0.9, deadline_s=0.9), NONE),
    (ended(End.EXPIRED, 1.0, deadline_s=1.0), BAD),
]
FIRST_TOKEN: list[tuple[Ended, Tally]] = [
    (ended(End.COMPLETE, 9.0, first_token_s=2.0), GOOD),
    (ended(End.COMPLETE, 9.0, first_token_s=2.1), BAD),
    (ended(End.COMPLETE, 0.1), NONE),
    (ended(End.FAILED, 0.1), BAD),
    (ended(End.FAILED, 9.0, first_token_s=1.0), GOOD),
    (ended(End.REFUSED), NONE),
    (ended(End.LEFT, 2.0), NONE),
    (ended(End.LEFT, 2.1), BAD),
    (ended(End.LEFT, 2.1, first_token_s=1.0), GOOD),
    (ended(End.EXPIRED, 2.1, deadline_s=1.9), NONE),  # noticed late
    (ended(End.EXPIRED, 2.0, deadline_s=2.0), BAD),
]
LATENCY: list[tuple[Ended, Tally]] = [
    (ended(End.COMPLETE, 2.0), GOOD),
    (ended(End.COMPLETE, 2.1), BAD),
    (ended(End.FAILED, 0.1, first_token_s=0.05), BAD),
    (ended(End.REFUSED, 9.0), NONE),
    (ended(End.LEFT, 2.0), NONE),
    (ended(End.LEFT, 2.1), BAD),
    (ended(End.EXPIRED, 1.9, deadline_s=1.9), NONE),
    (ended(End.EXPIRED, 2.0, deadline_s=2.0), BAD),
]


def tokens(end: End, num_tokens: int, last_s: float, duration_s: float) -> Ended:
    """The first one left after a second."""
    return Ended(end, duration_s, 99.0, 1.0, last_s, num_tokens)


PACE: list[tuple[Ended, Tally]] = [
    (tokens(End.COMPLETE, 1, 1.0, 1.0), NONE),
    (tokens(End.COMPLETE, 3, 5.0, 5.0), GOOD),
    (tokens(End.COMPLETE, 3, 5.1, 5.1), BAD),
    (tokens(End.FAILED, 3, 1.1, 1.2), BAD),
    (tokens(End.FAILED, 1, 1.0, 99.0), NONE),
    (tokens(End.LEFT, 3, 5.0, 6.0), GOOD),
    (tokens(End.LEFT, 3, 2.0, 7.1), BAD),  # stalled: the next token comes too late whenever it does
    (tokens(End.EXPIRED, 3, 2.0, 7.0), GOOD),
    (tokens(End.EXPIRED, 3, 2.0, 99.0), BAD),
    (ended(End.REFUSED), NONE),
]


def items(end: End, *found: tuple[ItemEnd, float]) -> Ended:
    return ended(end, items=tuple(EndedItem(*one) for one in found))


ENCODE: list[tuple[Ended, Tally]] = [
    (items(End.COMPLETE), NONE),
    (items(End.COMPLETE, (ItemEnd.PUBLISHED, 2.0), (ItemEnd.PUBLISHED, 2.1)), Tally(1, 1)),
    (items(End.COMPLETE, (ItemEnd.CACHED, 0.1), (ItemEnd.CACHED, 9.0)), Tally(2, 0)),
    (items(End.FAILED, (ItemEnd.FAILED, 0.1), (ItemEnd.WAITING, 0.1)), Tally(0, 2)),
    (items(End.LEFT, (ItemEnd.WAITING, 2.0), (ItemEnd.WAITING, 2.1)), BAD),
    (items(End.EXPIRED, (ItemEnd.WAITING, 2.0), (ItemEnd.WAITING, 2.1)), BAD),
    (items(End.REFUSED, (ItemEnd.FAILED, 0.1)), NONE),
]
CASES: list[tuple[Indicator, Ended, Tally]] = [
    *(("Availability", one, tally) for one, tally in AVAILABILITY),
    *(("TimeToFirstToken", one, tally) for one, tally in FIRST_TOKEN),
    *(("RequestLatency", one, tally) for one, tally in LATENCY),
    *(("TimePerOutputToken", one, tally) for one, tally in PACE),
    *(("EncodeLatency", one, tally) for one, tally in ENCODE),
]


@pytest.mark.parametrize(
    ("indicator", "end", "tally"), CASES, ids=[f"{c[0]}-{n}" for n, c in enumerate(CASES)]
)
def test_what_counts(indicator: Indicator, end: Ended, tally: Tally):
    assert judge(objective(indicator), end) == tally


def test_availability_takes_the_deadline_that_is_fair_for_it():
    patient = replace(objective("Availability"), fair_deadline_s=5.0)
    assert judge(patient, ended(End.EXPIRED, 4.0, deadline_s=4.0)) == NONE
    assert judge(patient, ended(End.EXPIRED, 5.0, deadline_s=5.0)) == BAD


REFUSALS = {"INVALID_ARGUMENT", "NOT_FOUND"}


@pytest.mark.parametrize("kind", ALL_ERRORS)
def test_every_error_of_the_tree_has_its_end(kind: type):
    code = kind.grpc_code  # type: ignore[attr-defined]
    if code == "DEADLINE_EXCEEDED":
        assert end_of(code, own_deadline=True) is End.EXPIRED
        assert end_of(code, own_deadline=False) is End.FAILED
    elif code == "CANCELLED":
        assert end_of(code, own_deadline=True) is End.LEFT
    else:
        expected = End.REFUSED if code in REFUSALS else End.FAILED
        assert end_of(code, own_deadline=True) is end_of(code, own_deadline=False) is expected


def test_other_codes():
    assert end_of("OK", own_deadline=True) is End.COMPLETE
    assert end_of("A_CODE_OF_THE_FUTURE", own_deadline=True) is End.FAILED


times = st.floats(0.0, 100.0)


@st.composite
def ends(draw: st.DrawFn) -> Ended:
    """Any request that can be: tokens leave in order, before the end."""
    end = draw(st.sampled_from(End))
    first_s, last_s, duration_s = sorted(draw(st.tuples(times, times, times)))
    num_tokens = draw(st.integers(0, 5))
    deadline_s = draw(times) if end is End.EXPIRED else draw(st.none() | times)
    found = draw(st.lists(st.builds(EndedItem, st.sampled_from(ItemEnd), times), max_size=4))
    return Ended(
        end=end,
        duration_s=duration_s,
        deadline_s=deadline_s,
        first_token_s=first_s if num_tokens else None,
        last_token_s=last_s if num_tokens else None,
        num_tokens=num_tokens,
        items=tuple(found),
    )


@given(st.sampled_from(INDICATORS), ends())
def test_a_request_is_one_event_at_most_and_an_item_too(indicator: Indicator, end: Ended):
    tally = judge(objective(indicator), end)
    most = len(end.items) if indicator == "EncodeLatency" else 1
    assert min(tally.good, tally.bad) >= 0
    assert tally.good + tally.bad <= most
    if end.end is End.REFUSED:
        assert tally == NONE


@given(ends())
def test_what_is_judged_as_it_happens_is_judged_once(end: Ended):
    """Books that are kept while a request runs are those of its end."""
    board = Scoreboard([objective(indicator) for indicator in INDICATORS])
    if end.first_token_s is not None:
        board.note_first_token(end.first_token_s, end.first_token_s)
    waiting = []
    for item in end.items:
        if item.end in (ItemEnd.PUBLISHED, ItemEnd.CACHED):
            board.note_item(end.duration_s, item)
        else:
            waiting.append(item)
    board.note(end.duration_s, replace(end, items=tuple(waiting)))
    # What a request brought before it turned out to be wrong is not taken back.
    seen = end if end.end is not End.REFUSED else replace(end, end=End.LEFT, duration_s=0.0)
    told = {verdict.objective: verdict.tally for verdict in board.judge(end)}
    assert NONE not in told.values()
    for standing in board.standings(end.duration_s):
        tally, indicator = standing.since_start, standing.objective.indicator
        if end.end is not End.REFUSED:
            assert tally == judge(standing.objective, end)
            assert tally == told.get(standing.objective, NONE)
        elif indicator == "TimeToFirstToken":
            assert tally == judge(standing.objective, seen)
        elif indicator == "EncodeLatency":
            assert tally.good + tally.bad == len(end.items) - len(waiting)
        else:
            assert tally == NONE


@given(st.sampled_from(INDICATORS), ends(), st.floats(0.1, 100.0), st.floats(0.1, 100.0))
def test_a_laxer_promise_is_never_broken_more_often(
    indicator: Indicator, end: Ended, one_s: float, other_s: float
):
    strict, lax = (judge(objective(indicator, s), end) for s in sorted((one_s, other_s)))
    assert lax.bad <= strict.bad
    assert lax.good >= strict.good


@pytest.mark.parametrize(
    "wrong",
    [
        {"indicator": "Speed"},
        {"threshold_s": None},
        {"threshold_s": 0.0},
        {"target": 1.0},
        {"target": 0.0},
        {"window_s": 0.0},
    ],
    ids=str,
)
def test_promises_that_mean_nothing_are_refused(wrong: dict[str, object]):
    with pytest.raises(ValueError, match=r"must be"):
        replace(objective("RequestLatency"), **wrong)  # type: ignore[arg-type]
