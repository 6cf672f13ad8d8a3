from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redserve.telemetry.clock import now_ns
from redserve.telemetry.timeline import ENCODE, FAILOVER, LOST, PREFILL, Bar, overlap_ratio
from tests.strategies import effort

intervals = st.tuples(st.integers(0, 60), st.integers(0, 20)).map(lambda p: (p[0], p[0] + p[1]))
names = st.sampled_from([ENCODE, PREFILL, "queue", "decode", "transfer"])
bars_lists = st.lists(st.builds(lambda n, i: Bar("lane", n, i[0], i[1]), names, intervals))


def by_counting(bars: list[Bar]) -> float | None:
    """The definition, instant by instant."""

    def instants(name: str) -> set[int]:
        return {t for b in bars if b.name == name for t in range(b.start_ns, b.end_ns)}

    encode = instants(ENCODE)
    return len(encode & instants(PREFILL)) / len(encode) if encode else None


@effort(100)
@given(bars_lists)
def test_overlap_ratio_is_what_counting_says(bars: list[Bar]):
    assert overlap_ratio(bars) == pytest.approx(by_counting(bars))


@effort(100)
@given(bars_lists, st.randoms())
def test_order_and_repetition_do_not_matter(bars: list[Bar], random):
    shuffled = [*bars, *bars]
    random.shuffle(shuffled)
    assert overlap_ratio(shuffled) == overlap_ratio(bars)


@effort(100)
@given(bars_lists, st.integers(-1000, 1000))
def test_only_distances_matter(bars: list[Bar], shift: int):
    moved = [Bar(b.lane, b.name, b.start_ns + shift, b.end_ns + shift) for b in bars]
    assert overlap_ratio(moved) == overlap_ratio(bars)


@effort(100)
@given(bars_lists, intervals)
def test_more_prefill_never_lowers_it(bars: list[Bar], extra: tuple[int, int]):
    before = overlap_ratio(bars)
    after = overlap_ratio([*bars, Bar("llm-0", PREFILL, *extra)])
    assert (before is None) == (after is None)
    if before is not None and after is not None:
        assert 0.0 <= before <= after <= 1.0


def test_sequential_work_has_none_and_full_cover_has_all():
    encode = Bar("encoder-0", ENCODE, 10, 20)
    assert overlap_ratio([encode, Bar("llm-0", PREFILL, 20, 40)]) == 0.0
    assert overlap_ratio([encode, Bar("llm-0", PREFILL, 5, 40)]) == 1.0
    assert overlap_ratio([Bar("llm-0", PREFILL, 5, 40)]) is None


def test_overlap_is_not_known_of_an_encode_beside_a_replica_that_was_lost():
    encode, prefill = Bar("encoder-0", ENCODE, 10, 20), Bar("llm-1", PREFILL, 15, 40)
    assert overlap_ratio([encode, prefill, Bar("router", LOST, 5, 11)]) is None
    assert overlap_ratio([encode, prefill, Bar("router", LOST, 5, 10)]) == 0.5
    assert overlap_ratio([encode, prefill, Bar("router", FAILOVER, 12, 12)]) == 0.5


def test_two_encoders_at_once_count_once():
    bars = [
        Bar("encoder-0", ENCODE, 0, 10),
        Bar("encoder-1", ENCODE, 0, 10),
        Bar("llm-0", PREFILL, 5, 10),
    ]
    assert overlap_ratio(bars) == 0.5


def test_clock_does_not_run_backwards():
    stamps = [now_ns() for _ in range(1000)]
    assert stamps == sorted(stamps)
