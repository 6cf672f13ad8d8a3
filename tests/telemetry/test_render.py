from __future__ import annotations

import json
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from redserve.telemetry.render import chrome_trace, render_text
from redserve.telemetry.timeline import Bar, Timeline, overlap_ratio
from tests.strategies import effort

START = 1_700_000_000_000_000_000


def at(ms: float) -> int:
    return START + round(ms * 1e6)


BARS = (
    Bar("router", "preprocess", at(0), at(3)),
    Bar("encoder-0", "queue", at(3), at(4), 0),
    Bar("encoder-0", "encode", at(4), at(40), 0, 256),
    Bar("encoder-0", "encode", at(40), at(80), 1, 256, "cache miss"),
    Bar("llm-0", "prefill", at(45), at(70), None, 300),
    Bar("llm-0", "prefill", at(82), at(95), None, 270),
    Bar("llm-0", "decode", at(95), at(150), None, 12),
    Bar("llm-0", "detokenize", at(150), at(151)),
)

TIMELINE = Timeline("req-1", BARS, overlap_ratio(BARS), at(0), at(96), at(151))

GOLDEN = """\
request req-1
                       0                                             151.0 ms
router     preprocess |░░                                                    | 3.0 ms
encoder-0  queue      | ·                                                    | 1.0 ms
           encode     | ████████████████████████████                         | 76.0 ms in 2, 512 tok
llm-0      prefill    |                ▓▓▓▓▓▓▓▓▓▓   ▓▓▓▓▓                    | 38.0 ms in 2, 570 tok
           decode     |                                 =====================| 55.0 ms, 12 tok
           detokenize |                                                     -| 1.0 ms
legend: ░ preprocess  · queue  █ encode  ▓ prefill  = decode  - other
TTFT 96.0 ms, total 151.0 ms, overlap 33% of encode time hidden behind prefill"""


def test_text_golden():
    assert render_text(TIMELINE, width=100) == GOLDEN


TRANSFERS = (
    Bar("llm-0", "transfer", at(40), at(44.5), 0, 256),
    Bar("llm-0", "aborted", at(80), at(81), 1, 256, "peer lost"),
    Bar("llm-0", "room", at(81), at(81.5), 1, 256),
    Bar("llm-0", "transfer", at(81.5), at(83), 1, 256),
)
TABLE = """\
transport      exposed       hidden
item 0         0.00 ms      4.50 ms
item 1         1.50 ms      1.00 ms  in 2 attempts
all            1.50 ms      5.50 ms"""


def test_transport_is_told_item_by_item():
    text = render_text(replace(TIMELINE, bars=(*BARS, *TRANSFERS)))
    assert text.endswith("\n" + TABLE)
    assert ": room  ▒ transfer  x aborted" in text


def test_an_unfinished_timeline_can_be_drawn():
    text = render_text(Timeline("req-2", BARS[:2], None, at(0)))
    assert "not finished" in text
    assert "preprocess" in text


def test_without_bars_it_says_so():
    text = render_text(Timeline("req-3", (), None, at(0), at(5), at(9)))
    assert text.splitlines() == ["request req-3", "  (no bars)", "TTFT 5.0 ms, total 9.0 ms"]


many_bars = st.lists(
    st.builds(
        lambda lane, name, start, length: Bar(lane, name, start, start + length, num_tokens=1),
        st.sampled_from(["router", "encoder-0", "llm-0"]),
        st.sampled_from(["encode", "prefill", "decode", "other work"]),
        st.integers(0, 10**10),
        st.integers(0, 10**9),
    ),
    min_size=1,
    max_size=30,
).map(tuple)


@effort(100)
@given(many_bars, st.integers(1, 200))
def test_rows_line_up_and_every_group_has_a_mark(bars: tuple[Bar, ...], width: int):
    lines = render_text(Timeline("r", bars), width).splitlines()
    rows = [line for line in lines if line.count("|") == 2]
    assert len(rows) == len({(bar.lane, bar.name) for bar in bars})
    assert len({(row.index("|"), row.rindex("|")) for row in rows}) == 1
    assert all(row[row.index("|") + 1 : row.rindex("|")].strip() for row in rows)


@effort(100)
@given(many_bars)
def test_chrome_trace_is_json_with_every_bar(bars: tuple[Bar, ...]):
    trace = json.loads(json.dumps(chrome_trace(Timeline("r", bars, overlap_ratio(bars)))))
    events = trace["traceEvents"]
    complete = [event for event in events if event["ph"] == "X"]
    assert len(complete) == len(bars)
    assert all(event["ts"] >= 0 and event["dur"] >= 0 for event in complete)
    labelled = {event["pid"] for event in events if event["name"] == "process_name"}
    assert {event["pid"] for event in complete} == labelled
    total_us = sum(event["dur"] for event in complete)
    assert abs(total_us - sum(bar.end_ns - bar.start_ns for bar in bars) / 1e3) < 1


def test_chrome_trace_has_the_transport_times():
    trace = chrome_trace(replace(TIMELINE, bars=(*BARS, *TRANSFERS)))
    assert trace["otherData"]["transport"] == [
        {"item_index": 0, "exposed_ms": 0.0, "hidden_ms": 4.5},
        {"item_index": 1, "exposed_ms": 1.5, "hidden_ms": 1.0},
    ]


def test_chrome_trace_marks_the_first_token():
    instants = [e for e in chrome_trace(TIMELINE)["traceEvents"] if e["ph"] == "i"]
    assert [(e["name"], e["ts"]) for e in instants] == [("first token", 96_000.0)]
    before = replace(TIMELINE, first_token_ns=0)
    assert not [e for e in chrome_trace(before)["traceEvents"] if e["ph"] == "i"]
