"""What a request did until its first token: instant by instant."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from redserve.telemetry.first_token import PARTS, first_token_parts
from redserve.telemetry.timeline import Bar, Timeline
from tests.strategies import effort

NAMES = (
    "encode",
    "prefill",
    "transfer",
    "aborted",
    "preprocess",
    "tokenize",
    "room",
    "decode",
    "lost",
)
START, FIRST = 10, 60
bars_lists = st.lists(
    st.builds(
        lambda name, start, length: Bar("lane", name, start, start + length),
        st.sampled_from(NAMES),
        st.integers(0, 80),
        st.integers(0, 30),
    ),
    max_size=12,
)


def timeline(*bars: Bar, first_token_ns: int = FIRST) -> Timeline:
    return Timeline("r", bars, None, START, first_token_ns, 90)


def part_at(instant: int, bars: list[Bar]) -> str:
    """The definition."""
    running = {bar.name for bar in bars if bar.start_ns <= instant < bar.end_ns}
    if "prefill" in running:
        return "encode_hidden" if "encode" in running else "prefill"
    if "encode" in running:
        return "encode_exposed"
    if running & {"transfer", "aborted"}:
        return "transport_exposed"
    if running & {"preprocess", "tokenize"}:
        return "preprocess"
    return "lost" if "lost" in running else "queue"


@effort(200)
@given(bars_lists)
def test_it_is_what_counting_says(bars: list[Bar]) -> None:
    counted = dict.fromkeys(PARTS, 0)
    for instant in range(START, FIRST):
        counted[part_at(instant, bars)] += 1
    assert first_token_parts(timeline(*bars)) == counted


def test_parts_add_up_to_the_time_to_first_token() -> None:
    parts = first_token_parts(
        timeline(
            Bar("router", "preprocess", 10, 14),
            Bar("encoder-0", "encode", 16, 30),
            Bar("llm-0", "transfer", 30, 33),
            Bar("llm-0", "prefill", 20, 25),
            Bar("llm-0", "prefill", 33, 60),
            Bar("llm-0", "decode", 60, 90),
        )
    )
    assert parts == {
        "preprocess": 4,
        "queue": 2,
        "encode_exposed": 9,
        "encode_hidden": 5,
        "transport_exposed": 3,
        "prefill": 27,
        "lost": 0,
    }


def test_there_are_none_without_a_first_token() -> None:
    assert first_token_parts(timeline(Bar("a", "encode", 10, 20), first_token_ns=0)) == {}
