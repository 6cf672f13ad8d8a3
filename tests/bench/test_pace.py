"""The pace of an answer, however its tokens are put into pieces."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redserve.bench.outcome import Problem
from redserve.bench.pace import Pieces, tokens_of_first
from redserve.bench.summary import summarize
from redserve.bench.tables import notes
from redserve.slo import End, Objective, Tally
from tests.bench.outcomes import outcome

PACE = Objective("pace", "TimePerOutputToken", 0.05, 0.9, 60.0)
UP = Objective("up", "Availability", None, 0.5, 60.0)
EMPTY = Problem(End.FAILED, "NO_TOKEN", "the answer ended without a token")


@given(st.integers(0, 500), st.lists(st.integers(0, 40), min_size=1, max_size=30), st.data())
def test_some_tokens_are_left_if_something_came_later(
    total: int, lengths: list[int], data: st.DataObject
) -> None:
    num_first = data.draw(st.integers(1, len(lengths)))
    first = Pieces(num_first, sum(lengths[:num_first]))
    everything = Pieces(len(lengths), sum(lengths))
    found = tokens_of_first(total, first, everything)
    if first == everything:
        assert found == total
    else:
        assert 0 <= found < max(1, total)
        if total >= len(lengths):
            assert found >= num_first


def test_one_piece_for_each_token() -> None:
    assert tokens_of_first(50, Pieces(1, 3), Pieces(50, 200)) == 1
    assert tokens_of_first(50, Pieces(1, 3), Pieces(49, 200)) == 1, "the end token has no piece"


def test_pieces_of_ten_tokens() -> None:
    assert tokens_of_first(100, Pieces(1, 40), Pieces(10, 400)) == 10


def test_the_pace_is_that_of_the_tokens_after_the_first_piece() -> None:
    one = outcome(tpot_s=0.01, num_tokens=21, num_first=11)
    assert one.tpot_s == pytest.approx(0.02), "20 times 10 ms, and ten tokens in it"


def test_answers_in_one_piece_have_no_pace_and_say_so() -> None:
    run = [
        outcome(0),
        outcome(1, tpot_s=0.0, num_tokens=11, num_first=11),
        outcome(2, num_tokens=1),
    ]
    found = summarize(run, (PACE,))
    assert found.latencies.tpot is not None
    assert found.latencies.tpot.count == 1
    assert found.kept[0].tally == Tally(good=1)
    assert found.num_in_one_piece == 1
    assert any("1 of 3 answers came in one piece" in note for note in notes(found))


def test_answers_without_a_token_are_no_goodput_and_say_so() -> None:
    found = summarize([outcome(0), outcome(1, ttft_s=None, problem=EMPTY)], (UP,))
    assert (found.num_complete, found.num_good) == (1, 1)
    assert found.kept[0].tally == Tally(good=1, bad=1)
    assert any("1 of 2 answers ended well and held no token" in note for note in notes(found))
