"""Which pair is measured when."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redserve_router.clients.llm import TransportSpeed
from redserve_router.pair_book import (
    BUSY_BACKOFF_S,
    FIRST_BACKOFF_S,
    LONGEST_BACKOFF_S,
    PairBook,
    PairReport,
)

FAST = TransportSpeed("rdma", num_bytes=32_000_000, seconds=0.001)
PAIR = (1, 2)
NEXT = (3, 2)


@pytest.fixture
def book() -> PairBook:
    book = PairBook("llm:1")
    book.set_partners({"b:1": PAIR, "a:1": PAIR}, now=0.0)
    return book


def only(book: PairBook, encoder: str) -> PairReport:
    (found,) = (pair for pair in book.report() if pair.encoder == encoder)
    return found


def test_new_pairs_are_due_at_once_and_not_measured_yet(book: PairBook) -> None:
    assert sorted(book.due(0.0)) == ["a:1", "b:1"]
    assert list(book.report()) == [PairReport("a:1", "llm:1"), PairReport("b:1", "llm:1")]


def test_a_measured_pair_is_left_alone(book: PairBook) -> None:
    book.measured("a:1", PAIR, FAST)
    assert book.due(1e9) == ["b:1"]
    assert only(book, "a:1") == PairReport("a:1", "llm:1", "rdma", FAST.gb_per_s)
    assert FAST.gb_per_s == pytest.approx(32.0)
    book.measured("b:1", PAIR, FAST)
    assert book.next_due_at() is None
    book.set_partners({"b:1": PAIR, "a:1": PAIR}, now=5.0)
    assert book.due(1e9) == []


def test_who_comes_back_is_measured_again(book: PairBook) -> None:
    book.measured("a:1", PAIR, FAST)
    book.set_partners({"a:1": NEXT}, now=7.0)
    assert book.due(7.0) == ["a:1"]
    assert list(book.report()) == [PairReport("a:1", "llm:1")]


def test_what_comes_late_is_of_another_pair(book: PairBook) -> None:
    book.set_partners({"a:1": NEXT}, now=7.0)
    book.measured("a:1", PAIR, FAST)
    book.measured("b:1", PAIR, FAST)
    assert not book.failed("a:1", PAIR, "PEER_LOST", 8.0)
    assert list(book.report()) == [PairReport("a:1", "llm:1")]
    assert book.next_due_at() == 7.0


def test_a_failure_is_told_once_and_tried_again_later_and_later(book: PairBook) -> None:
    book.measured("b:1", PAIR, FAST)
    now, waits, news = 0.0, [], []
    for _ in range(9):
        news.append(book.failed("a:1", PAIR, "PEER_LOST", now))
        assert only(book, "a:1") == PairReport("a:1", "llm:1", error="PEER_LOST")
        due_at = book.next_due_at()
        assert due_at is not None
        assert book.due(due_at - 0.001) == []
        assert book.due(due_at) == ["a:1"]
        waits.append(due_at - now)
        now = due_at
    assert news == [True] + [False] * 8
    assert waits[:3] == [FIRST_BACKOFF_S, 2 * FIRST_BACKOFF_S, 4 * FIRST_BACKOFF_S]
    assert waits[-1] == LONGEST_BACKOFF_S
    assert book.failed("a:1", PAIR, "DEADLINE_EXCEEDED", now), "another reason is news"
    book.measured("a:1", PAIR, FAST)
    assert only(book, "a:1").error == ""


def test_a_busy_replica_is_left_alone_and_what_was_known_stays(book: PairBook) -> None:
    book.measured("b:1", PAIR, FAST)
    book.failed("a:1", PAIR, "PEER_LOST", 0.0)
    before = list(book.report())
    book.busy(100.0)
    assert book.due(100.0 + BUSY_BACKOFF_S - 0.001) == []
    assert book.next_due_at() == 100.0 + BUSY_BACKOFF_S
    assert book.due(100.0 + BUSY_BACKOFF_S) == ["a:1"]
    assert list(book.report()) == before


@given(st.lists(st.sampled_from(["fail", "busy", "measured", "gone", "new"]), max_size=40))
def test_whoever_waits_until_something_is_due_finds_it(events: list[str]) -> None:
    """`due` and `next_due_at` never disagree: no spinning, and nothing is forgotten."""
    book, now = PairBook("llm:1"), 0.0
    partners = {"a:1": PAIR}
    for number, event in enumerate(events):
        match event:
            case "gone":
                partners = {}
            case "new":
                partners = {"a:1": (number, 2), "b:1": PAIR}
            case "busy":
                book.busy(now)
            case "fail":
                book.failed("a:1", partners.get("a:1", PAIR), "PEER_LOST", now)
            case "measured":
                book.measured("b:1", PAIR, FAST)
        book.set_partners(partners, now)
        next_at = book.next_due_at()
        if next_at is None:
            assert book.due(1e12) == []
            continue
        assert book.due(max(now, next_at))
        if next_at > now:
            assert book.due(now) == []
            now = next_at
