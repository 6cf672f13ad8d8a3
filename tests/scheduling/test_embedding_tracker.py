"""The tracker against a model that remembers every single row."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redserve.domain import Item, Span
from redserve.domain.layout import MediaLayout
from redserve.errors import InvalidArgument
from redserve.scheduling import EmbeddingTracker
from tests.strategies import effort, prompts


class Model:
    """Sets of rows instead of counters."""

    def __init__(self, items: tuple[Item, ...], num_tokens: int, whole_spans: bool) -> None:
        self.items = items
        self.num_tokens = num_tokens
        self.whole_spans = whole_spans
        self.here: dict[int, set[int]] = {item.index: set() for item in items}
        self.released: dict[int, set[int]] = {item.index: set() for item in items}
        self.asked: set[int] = set()
        self.covered = 0
        self.place = {}
        self.span_of = {}
        for item in items:
            positions = [p for span in item.spans for p in range(span.start, span.end)]
            for row, position in enumerate(positions):
                self.place[position] = (item.index, row)
            for span in item.spans:
                for position in range(span.start, span.end):
                    self.span_of[position] = range(span.start, span.end)

    def has_row(self, position: int) -> bool:
        item, row = self.place[position]
        return row in self.here[item]

    def is_ready(self, position: int) -> bool:
        if position not in self.place or position < self.covered:
            return True
        needed = self.span_of[position] if self.whole_spans else [position]
        return all(self.has_row(p) for p in needed if p >= self.covered or self.whole_spans)

    def ready_prefix(self) -> int:
        return next((p for p in range(self.num_tokens) if not self.is_ready(p)), self.num_tokens)

    def num_held(self) -> int:
        return sum(len(self.here[i] - self.released[i]) for i in self.here)


@effort(300)
@given(prompt=prompts(), whole_spans=st.booleans(), data=st.data())
def test_tracker_agrees_with_a_model_of_single_rows(
    prompt: tuple[tuple[int, ...], tuple[Item, ...]], whole_spans: bool, data: st.DataObject
) -> None:
    token_ids, items = prompt
    layout = MediaLayout(items)
    tracker = EmbeddingTracker(layout, len(token_ids), whole_spans=whole_spans)
    model = Model(items, len(token_ids), whole_spans)
    num_computed = 0
    tracker.cover(0)
    model.asked.update(item.index for item in items)
    for _ in range(data.draw(st.integers(0, 25))):
        action = data.draw(st.sampled_from(["put", "put", "use", "use", "drop", "preempt"]))
        if action in ("put", "drop") and not items:
            continue
        if action == "put":
            item = data.draw(st.sampled_from(items))
            num_rows = data.draw(st.integers(1, item.num_rows))
            is_done = len(model.released[item.index]) == item.num_rows
            assert tracker.put(item.index, num_rows) == (not is_done)
            if not is_done:
                model.here[item.index] |= set(range(num_rows))
        elif action == "drop":
            item = data.draw(st.sampled_from(items))
            is_held = bool(model.here[item.index] - model.released[item.index])
            assert tracker.drop(item.index) == is_held
            if is_held:
                model.here[item.index] = set()
        elif action == "use":
            end = data.draw(st.integers(num_computed, tracker.ready_prefix()))
            if whole_spans and end in model.span_of:
                end = model.span_of[end].start
            if end <= num_computed:
                continue
            freed = dict(tracker.use(num_computed, end))
            for position in range(num_computed, end):
                if position in model.place:
                    index, row = model.place[position]
                    assert row < freed[index]
                    model.released[index].add(row)
            num_computed = model.covered = end
        else:
            num_computed = data.draw(st.integers(0, num_computed))
            if whole_spans and num_computed in model.span_of:
                num_computed = model.span_of[num_computed].start
            needed = tracker.cover(num_computed)
            model.covered = num_computed
            expected = []
            for item in items:
                lost = [
                    row
                    for position, (index, row) in model.place.items()
                    if index == item.index and position >= num_computed
                    if row in model.released[index]
                ]
                if lost:
                    expected.append(item.index)
                    model.here[item.index] = set()
                    model.released[item.index] = set()
            assert needed == tuple(expected)
            # A prefix hit is attached again: rows below it count as used.
            tracker.use(0, num_computed)
            for position in range(num_computed):
                if position in model.place:
                    index, row = model.place[position]
                    model.released[index].add(row)
        assert tracker.ready_prefix() == model.ready_prefix()
        assert tracker.num_held == model.num_held()
        assert tracker.num_held == sum(tracker.held(item.index) for item in items)


def make(*spans: tuple[int, int], num_tokens: int = 20) -> EmbeddingTracker:
    items = tuple(Item(n, b"", s[1], (Span(*s),)) for n, s in enumerate(spans))
    return EmbeddingTracker(MediaLayout(items), num_tokens)


def test_text_is_ready_at_once() -> None:
    assert make().ready_prefix() == 20
    assert make((5, 3)).ready_prefix() == 5


def test_rows_in_any_order_grow_the_prefix_from_the_left() -> None:
    tracker = make((2, 4), (8, 4))
    tracker.cover(0)
    assert tracker.put(1, 4)
    assert tracker.ready_prefix() == 2
    assert tracker.put(0, 3)
    assert tracker.ready_prefix() == 5
    assert tracker.missing_items() == (0,)
    assert tracker.put(0, 4)
    assert tracker.ready_prefix() == 20
    assert tracker.missing_items() == ()


def test_an_item_that_the_cache_covers_is_not_asked_for() -> None:
    tracker = make((2, 4), (8, 4))
    assert tracker.cover(7) == (1,)
    assert not tracker.put(0, 4)
    assert tracker.ready_prefix() == 8
    assert tracker.cover(4) == (0,)  # the cache lost it
    assert tracker.put(0, 4)


def test_rows_that_the_cache_makes_useless_are_shed() -> None:
    tracker = make((2, 4), (8, 4))
    tracker.cover(0)
    tracker.put(0, 3)
    tracker.put(1, 3)
    assert tracker.cover(9) == ()
    assert tracker.shed() == [(0, 3)]
    assert (tracker.num_held, tracker.ready_prefix()) == (3, 11)
    assert not tracker.put(0, 4)  # the rest of the delivery is of no use
    assert tracker.cover(5) == (0,)  # the cache lost it
    assert tracker.shed() == []
    assert tracker.put(0, 4)
    assert tracker.ready_prefix() == 11


def test_what_is_not_there_is_refused() -> None:
    tracker = make((2, 4))
    tracker.cover(0)
    with pytest.raises(InvalidArgument, match="no item 1"):
        tracker.put(1, 1)
    with pytest.raises(InvalidArgument, match="no item -1"):
        tracker.put(-1, 1)
    with pytest.raises(InvalidArgument, match="1 to 4"):
        tracker.put(0, 0)
    assert not tracker.drop(0)
    assert not tracker.drop(7)
