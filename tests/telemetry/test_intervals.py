from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from redserve.telemetry.intervals import Interval, intersection, length, union
from tests.strategies import effort

intervals = st.lists(st.tuples(st.integers(-30, 30), st.integers(-30, 30)), max_size=8)


def points(pairs: list[Interval]) -> set[int]:
    return {point for start, end in pairs for point in range(start, end)}


@effort(200)
@given(intervals)
def test_a_union_has_the_same_points_in_order_and_apart(pairs: list[Interval]) -> None:
    whole = union(pairs)
    assert points(whole) == points(pairs)
    ends = [end for pair in whole for end in pair]
    assert ends == sorted(set(ends))
    assert length(whole) == len(points(pairs))
    assert union(whole) == whole


@effort(200)
@given(intervals, intervals)
def test_an_intersection_has_the_common_points(left: list[Interval], right: list[Interval]) -> None:
    common = intersection(union(left), union(right))
    assert points(common) == points(left) & points(right)
    assert length(common) == len(points(common))
