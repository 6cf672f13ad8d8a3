"""Exposed and hidden transport time: the definition, instant by instant, and what follows."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from redserve.telemetry.timeline import ABORTED, ENCODE, PREFILL, ROOM, TRANSFER, Bar
from redserve.telemetry.transport_times import ItemTransport, transport_times
from tests.strategies import effort

if TYPE_CHECKING:
    from random import Random

NUM_ITEMS = 4
PER_ITEM = (ENCODE, TRANSFER, ABORTED, ROOM, "queue")
spans = st.tuples(st.integers(0, 60), st.integers(0, 20)).map(lambda p: (p[0], p[0] + p[1]))
item_bars = st.builds(
    lambda name, index, span: Bar("lane", name, span[0], span[1], index),
    st.sampled_from(PER_ITEM),
    st.integers(0, NUM_ITEMS - 1),
    spans,
)
request_bars = st.builds(
    lambda name, span: Bar("llm-0", name, span[0], span[1]),
    st.sampled_from([PREFILL, "queue"]),
    spans,
)
bars_lists = st.lists(st.one_of(item_bars, item_bars, request_bars), max_size=14)


def moving(bars: list[Bar], index: int, instant: int) -> bool:
    return any(
        bar.start_ns <= instant < bar.end_ns
        for bar in bars
        if bar.name in (TRANSFER, ABORTED) and bar.item_index == index
    )


def exposed(bars: list[Bar], index: int, instant: int) -> bool:
    """The definition: nothing goes on that the request would wait for anyway."""
    running = [bar for bar in bars if bar.start_ns <= instant < bar.end_ns]
    if any(bar.name == PREFILL for bar in running):
        return False
    if any(bar.name == ENCODE and bar.item_index != index for bar in running):
        return False
    for earlier in range(index):
        arrivals = [b.end_ns for b in bars if b.name == TRANSFER and b.item_index == earlier]
        if moving(bars, earlier, instant) or (arrivals and instant < min(arrivals)):
            return False
    return moving(bars, index, instant)


@effort(200)
@given(bars_lists)
def test_it_is_what_counting_says(bars: list[Bar]) -> None:
    found = {item.item_index: item for item in transport_times(bars)}
    pulled = {b.item_index for b in bars if b.name in (TRANSFER, ABORTED)}
    assert found.keys() == pulled
    assert list(found) == sorted(found)
    for index, item in found.items():
        assert item.exposed_ns == sum(exposed(bars, index, t) for t in range(90))
        assert item.total_ns == sum(moving(bars, index, t) for t in range(90))
        assert item.exposed_ns >= 0
        assert item.hidden_ns >= 0


@effort(200)
@given(bars_lists)
def test_an_instant_is_exposed_for_one_item_only(bars: list[Bar]) -> None:
    """So the exposed times add up to time in which the request did nothing but wait for bytes."""
    alone = [
        t
        for t in range(90)
        if any(moving(bars, index, t) for index in range(NUM_ITEMS))
        and not any(b.name == PREFILL and b.start_ns <= t < b.end_ns for b in bars)
    ]
    assert sum(item.exposed_ns for item in transport_times(bars)) <= len(alone)


@effort(100)
@given(bars_lists, st.randoms(use_true_random=False), st.integers(-1000, 1000))
def test_neither_order_nor_the_origin_of_time_matters(
    bars: list[Bar], random: Random, shift: int
) -> None:
    moved = [replace(b, start_ns=b.start_ns + shift, end_ns=b.end_ns + shift) for b in bars]
    random.shuffle(moved)
    assert transport_times(moved) == transport_times(bars)


@effort(100)
@given(bars_lists, spans)
def test_more_prefill_never_exposes_more(bars: list[Bar], extra: tuple[int, int]) -> None:
    before = transport_times(bars)
    after = transport_times([*bars, Bar("llm-0", PREFILL, *extra)])
    for old, new in zip(before, after, strict=True):
        assert new.exposed_ns <= old.exposed_ns
        assert new.total_ns == old.total_ns


def test_one_image_with_nothing_beside_it_is_exposed() -> None:
    bars = [Bar("encoder-0", ENCODE, 0, 10, 0), Bar("llm-0", TRANSFER, 12, 15, 0)]
    assert transport_times(bars) == (ItemTransport(0, 3, 0, 1),)


def test_a_second_encode_hides_the_first_transfer_and_prefill_hides_the_second() -> None:
    bars = [
        Bar("encoder-0", ENCODE, 0, 10, 0),
        Bar("encoder-0", ENCODE, 10, 20, 1),
        Bar("llm-0", TRANSFER, 10, 14, 0),
        Bar("llm-0", PREFILL, 14, 24),
        Bar("llm-0", TRANSFER, 20, 26, 1),
    ]
    assert transport_times(bars) == (ItemTransport(0, 0, 4, 1), ItemTransport(1, 2, 4, 1))


def test_an_item_that_overtakes_waits_for_the_earlier_one_anyway() -> None:
    bars = [
        Bar("llm-0", TRANSFER, 5, 9, 1),  # item 0 queues at its encoder all the while
        Bar("llm-0", TRANSFER, 30, 33, 0),
    ]
    assert transport_times(bars) == (ItemTransport(0, 3, 0, 1), ItemTransport(1, 0, 4, 1))


def test_attempts_add_up_and_waiting_for_room_is_no_transport() -> None:
    bars = [
        Bar("llm-0", ABORTED, 0, 4, 0, detail="peer lost"),
        Bar("llm-0", ROOM, 4, 9, 0),
        Bar("llm-0", TRANSFER, 9, 12, 0),
    ]
    assert transport_times(bars) == (ItemTransport(0, 7, 0, 2),)


def test_the_own_encode_hides_nothing() -> None:
    """Clocks of two machines differ a little; a transfer never precedes the encode's end."""
    bars = [Bar("encoder-0", ENCODE, 0, 10, 0), Bar("llm-0", TRANSFER, 9, 11, 0)]
    assert transport_times(bars) == (ItemTransport(0, 2, 0, 1),)


def test_what_was_not_transferred_does_not_count() -> None:
    bars = [Bar("llm-0", PREFILL, 0, 9), Bar("encoder-0", "queue", 0, 1, 0, detail="cache hit")]
    assert transport_times(bars) == ()
