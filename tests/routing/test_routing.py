"""Who gets a request, and who gets which item of it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from redserve.domain import Item, Span
from redserve.routing import (
    EncoderSnapshot,
    ItemFacts,
    LlmSnapshot,
    RecentContents,
    RequestFacts,
    choose_llm,
    spread_items,
)
from redserve.routing.snapshots import PREFIX_STRIDE
from tests.strategies import effort

REQUEST = RequestFacts(num_prompt_tokens=1000, max_tokens=100)


def llm(address: str, **facts: object) -> LlmSnapshot:
    values = {"blocks_free": 1000, "blocks_total": 1000, **facts}
    return LlmSnapshot(address, **values)  # type: ignore[arg-type]


def test_the_llm_with_the_least_to_compute_first_wins() -> None:
    replicas = [
        llm("a", schedulable_tokens=500, waiting_tokens=100),
        llm("b", schedulable_tokens=100, waiting_tokens=400),
        llm("c", serving=False),
    ]
    assert choose_llm(REQUEST, replicas) == "b"
    assert choose_llm(REQUEST, replicas, exclude={"b"}) == "a"
    assert choose_llm(REQUEST, replicas, exclude={"a", "b"}) is None
    assert choose_llm(REQUEST, []) is None


def test_ties_go_to_the_emptier_then_to_the_first_address() -> None:
    assert choose_llm(REQUEST, [llm("b"), llm("a")]) == "a"
    assert choose_llm(REQUEST, [llm("b"), llm("a", num_running=3)]) == "b"


def test_a_known_prefix_counts_as_computed() -> None:
    tokens = tuple(range(1000))
    facts = RequestFacts.of(tokens, (), 100)
    assert len(facts.prefixes) == 1000 // PREFIX_STRIDE == 3
    warm = llm("b", recent_prefixes=frozenset(facts.prefixes[:2]), waiting_tokens=511)
    assert choose_llm(facts, [llm("a"), warm]) == "b"
    busy = llm("b", recent_prefixes=frozenset(facts.prefixes[:2]), waiting_tokens=513)
    assert choose_llm(facts, [llm("a"), busy]) == "a"
    # A later part without the earlier ones is of no use.
    torn = llm("b", recent_prefixes=frozenset(facts.prefixes[1:]))
    assert choose_llm(facts, [llm("a"), torn]) == "a"


def test_prefixes_know_their_pictures() -> None:
    def facts(content: bytes) -> RequestFacts:
        item = Item(0, content, 100, (Span(10, 100),))
        return RequestFacts.of((1,) * 600, (item,), 1)

    assert facts(b"cat") == facts(b"cat")
    assert facts(b"cat").prefixes[0] != facts(b"dog").prefixes[0]


def test_a_replica_without_room_is_the_last_resort() -> None:
    full = llm("a", blocks_free=10)
    assert choose_llm(REQUEST, [full, llm("b", waiting_tokens=5000)]) == "b"
    assert choose_llm(REQUEST, [full]) == "a"
    small = llm("c", blocks_total=20, blocks_free=20)
    assert choose_llm(REQUEST, [small, full]) == "a"
    assert choose_llm(REQUEST, [small]) == "c"  # whose refusal names the limit


def items(*rows: int) -> list[ItemFacts]:
    return [ItemFacts(n, b"item %d" % n, r) for n, r in enumerate(rows)]


def test_items_are_spread_the_first_ones_first() -> None:
    encoders = [EncoderSnapshot("a"), EncoderSnapshot("b"), EncoderSnapshot("c")]
    placed = spread_items(items(10, 10, 10, 10, 10), encoders)
    assert placed == {0: "a", 1: "b", 2: "c", 3: "a", 4: "b"}


def test_load_counts_in_rows() -> None:
    encoders = [
        EncoderSnapshot("a", queued_rows=10, in_flight_rows=15),
        EncoderSnapshot("b"),
        EncoderSnapshot("c", serving=False),
    ]
    assert spread_items(items(10, 10, 10, 10), encoders) == {0: "b", 1: "b", 2: "b", 3: "a"}
    assert spread_items(items(1), encoders, exclude={"b"}) == {0: "a"}
    assert spread_items(items(1), encoders, exclude={"a", "b"}) is None
    assert spread_items([], []) == {}


def test_who_has_the_content_wins_unless_waiting_there_takes_longer() -> None:
    def placed(load: int) -> dict[int, str] | None:
        has = EncoderSnapshot("b", queued_rows=load, cached=frozenset({b"item 0"}))
        return spread_items(items(10), [EncoderSnapshot("a"), has])

    assert placed(0) == {0: "b"}
    assert placed(10) == {0: "b"}
    assert placed(11) == {0: "a"}


def test_what_is_cached_costs_nothing() -> None:
    has = EncoderSnapshot("a", cached=frozenset({b"item 0", b"item 1"}))
    placed = spread_items(items(10, 10, 10, 10), [has, EncoderSnapshot("b")])
    assert placed == {0: "a", 1: "a", 2: "a", 3: "b"}


def test_equal_content_of_one_request_goes_to_one_encoder() -> None:
    same = [ItemFacts(n, b"logo", 10) for n in range(3)]
    assert spread_items(same, [EncoderSnapshot("a"), EncoderSnapshot("b")]) == {
        0: "a",
        1: "a",
        2: "a",
    }


@effort(200)
@given(
    rows=st.lists(st.integers(1, 50), max_size=12),
    loads=st.lists(st.integers(0, 100), min_size=1, max_size=5),
)
def test_no_encoder_is_left_idle_while_another_is_overloaded(
    rows: list[int], loads: list[int]
) -> None:
    encoders = [EncoderSnapshot(f"e{n}", queued_rows=load) for n, load in enumerate(loads)]
    placed = spread_items(items(*rows), encoders)
    assert placed is not None
    assert sorted(placed) == list(range(len(rows)))
    total = {e.address: e.load_rows for e in encoders}
    for index, address in placed.items():
        assert total[address] == min(total.values())
        total[address] += rows[index]
    assert placed == spread_items(items(*rows), list(reversed(encoders)))


def test_recent_contents_forget_the_oldest() -> None:
    recent = RecentContents(2)
    recent.note([b"a", b"b"])
    recent.note([b"a", b"c"])
    assert recent.contents() == {b"a", b"c"}
    recent.forget()
    assert recent.contents() == frozenset()
