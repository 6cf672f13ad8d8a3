"""Where items lie, and which prefixes are the same."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redserve.domain import Item, Span
from redserve.domain.content_chain import ContentChain
from redserve.domain.layout import MediaLayout
from tests.strategies import effort, prompts

Prompt = tuple[tuple[int, ...], tuple[Item, ...]]


def rows_by_position(items: tuple[Item, ...]) -> dict[int, tuple[int, int]]:
    placed = {}
    for item in items:
        positions = [p for span in item.spans for p in range(span.start, span.end)]
        placed.update({p: (item.index, row) for row, p in enumerate(positions)})
    return placed


@effort(200)
@given(prompt=prompts(), data=st.data())
def test_layout_agrees_with_a_table_of_positions(prompt: Prompt, data: st.DataObject) -> None:
    token_ids, items = prompt
    layout, table = MediaLayout(items), rows_by_position(items)
    start = data.draw(st.integers(0, len(token_ids)))
    end = data.draw(st.integers(start, len(token_ids)))
    found = {}
    for segment in layout.overlapping(start, end):
        for position in range(max(start, segment.start), min(end, segment.end)):
            found[position] = (segment.item_index, segment.rows_below(position))
    assert found == {p: place for p, place in table.items() if start <= p < end}
    segment_at = layout.segment_at(start)
    assert (segment_at is not None) == (start in table)
    for item in items:
        expected = sum(i == item.index and p < start for p, (i, _) in table.items())
        assert layout.rows_before(item.index, start) == expected
        assert [s.start for s in layout.segments_of(item.index)] == [s.start for s in item.spans]


def digests(prompt: Prompt, stride: int, seed: bytes = b"") -> list[bytes]:
    token_ids, items = prompt
    chain = ContentChain(token_ids, MediaLayout(items), stride, seed)
    return [chain.digest(n) for n in range(len(token_ids) // stride)]


def content(prompt: Prompt) -> list[object]:
    token_ids, items = prompt
    what: list[object] = list(token_ids)
    for position, (index, row) in rows_by_position(items).items():
        item = items[index]
        span = next(s for s in item.spans if s.start <= position < s.end)
        what[position] = (item.content_hash, item.num_rows, item.grid, row, span.length)
    return what


@effort(300)
@given(one=prompts(), other=prompts(), stride=st.integers(1, 5))
def test_digests_are_equal_exactly_when_the_content_is(
    one: Prompt, other: Prompt, stride: int
) -> None:
    ours, theirs = digests(one, stride), digests(other, stride)
    for n, (a, b) in enumerate(zip(ours, theirs, strict=False)):
        end = (n + 1) * stride
        assert (a == b) == (content(one)[:end] == content(other)[:end])


@pytest.mark.parametrize(
    "change",
    [
        {"content_hash": b"dog"},
        {"grid": (1, 2, 4)},
        {"num_rows": 5, "spans": (Span(2, 5),)},
        {"spans": (Span(2, 2), Span(5, 2))},
        {"spans": (Span(1, 4),)},
    ],
)
def test_another_picture_size_or_place_is_another_prefix(change: dict[str, object]) -> None:
    item = Item(0, b"cat", 4, (Span(2, 4),), (1, 4, 2))
    token_ids = (1,) * 8
    changed = replace(item, **change)  # type: ignore[arg-type]
    assert digests((token_ids, (item,)), 4)[0] != digests((token_ids, (changed,)), 4)[0]


def test_placeholder_tokens_do_not_matter_but_tokens_of_text_do() -> None:
    item = Item(0, b"cat", 2, (Span(1, 2),))
    assert digests(((1, 9, 9, 1), (item,)), 4) == digests(((1, 8, 8, 1), (item,)), 4)
    assert digests(((1, 9, 9, 1), (item,)), 4) != digests(((1, 9, 9, 2), (item,)), 4)
    assert digests(((1, 9, 9, 1), ()), 4) != digests(((1, 9, 9, 1), (item,)), 4)


def test_seed_parts_replicas_with_other_weights() -> None:
    assert digests(((1, 2), ()), 2, b"a") != digests(((1, 2), ()), 2, b"b")


def test_the_chain_grows_with_the_outputs() -> None:
    token_ids = [1, 2, 3]
    chain = ContentChain(token_ids, MediaLayout(()), 2)
    first = chain.digest(0)
    with pytest.raises(ValueError, match="not known"):
        chain.digest(1)
    token_ids.append(4)
    assert chain.digest(1) == digests(((1, 2, 3, 4), ()), 2)[1]
    assert chain.digest(0) == first
