"""The report: one file, without network or scripts, the same bytes every time."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from redserve.bench.outcome import Outcome, Problem
from redserve.bench.report.axes import Axis, ticks
from redserve.bench.report.charts import MAX_POINTS, Limit, distribution, in_flight
from redserve.bench.report.page import page
from redserve.bench.report.svg import tag
from redserve.bench.summary import summarize
from redserve.slo import End, Objective
from tests.bench.outcomes import BUSY, outcome, outcomes
from tests.strategies import effort

OBJECTIVES = (
    Objective("first <token>", "TimeToFirstToken", 0.15, 0.9, 60.0),
    Objective("up", "Availability", None, 0.5, 60.0),
    Objective("encode", "EncodeLatency", 0.05, 0.9, 60.0),
)
FACTS = {"model": "demo", "target": "127.0.0.1:50051 (gRPC)", "seed": "0"}
GOLDEN = Path(__file__).parent / "golden" / "report.html"
VOID = {"meta"}


class Reader(HTMLParser):
    """Checks that elements close; `names` has all of them, `words` all text."""

    def __init__(self) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.names: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.words = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.stack.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data


def read(html: str) -> Reader:
    reader = Reader()
    reader.feed(html)
    reader.close()
    assert reader.stack == []
    return reader


def made_up() -> list[Outcome]:
    return [
        outcome(0, start_s=10.0, ttft_s=0.1),
        outcome(1, start_s=11.0, ttft_s=0.3, num_images=2),
        outcome(2, start_s=12.0, ttft_s=0.12, tpot_s=0.09, num_images=2),
        outcome(3, start_s=13.5, ttft_s=None, problem=BUSY),
    ]


@effort(40)
@given(outcomes(), st.booleans())
def test_any_run_has_a_page(run: list[Outcome], promised: bool) -> None:
    html = page(summarize(run, OBJECTIVES if promised else ()), run, FACTS)
    found = read(html)
    assert html == page(summarize(run[::-1], OBJECTIVES if promised else ()), run[::-1], FACTS)
    assert "script" not in found.names
    assert not {name for name, _ in found.attributes} & {"src", "href", "onclick", "onload"}
    numbers = " ".join(value or "" for name, value in found.attributes if name != "content")
    assert not re.search(r"\b(nan|inf)\b", numbers)


def test_the_page_of_a_small_run() -> None:
    html = page(summarize(made_up(), OBJECTIVES), made_up(), FACTS)
    assert html == GOLDEN.read_text(encoding="utf-8"), (
        "if the change is right, write the new page: python -m tests.bench.test_report"
    )
    words = read(html).words
    for expected in ("4 requests in", "1 OVERLOADED", "the queue is full", "goodput", "75 %"):
        assert expected in words


def test_what_a_service_wrote_is_only_text() -> None:
    evil = Problem(End.FAILED, "<img src=x>", '"><script>alert(1)</script>')
    run = [outcome(0), outcome(1, ttft_s=None, problem=evil)]
    html = page(summarize(run), run, {"model": "</title><script>"})
    assert "<script" not in html
    assert "<img" not in html
    assert "default-src 'none'" in html


@given(st.floats(1e-6, 1e6))
def test_ticks_are_round_and_reach_the_top(top: float) -> None:
    found = ticks(top)
    assert found[0] == 0
    assert found[-1] >= top * (1 - 1e-6)
    assert 3 <= len(found) <= 8
    step = f"{found[1]:.3e}"
    assert re.match(r"[125]\.000e", step), step


def test_an_axis_has_the_unit_that_reads_well() -> None:
    assert Axis.of_seconds("time", 0.2).label == "time, ms"
    assert Axis.of_seconds("time", 0.2).name(0.15) == "150"
    assert Axis.of_seconds("time", 20.0).label == "time, s"
    assert Axis.of_seconds("time", 0.0).top > 0
    assert Axis.of_counts("requests", 1).ticks == (0, 1)


def test_a_long_run_has_a_short_line() -> None:
    svg = distribution("time", [n / 1000 for n in range(1, 20_001)], [Limit("a", 5.0)])
    (points,) = re.findall(r'points="([^"]*)"', svg)
    assert len(points.split()) <= 2 * MAX_POINTS + 2


def test_requests_under_way() -> None:
    run = [outcome(n, start_s=n * 0.05, ttft_s=0.1, num_tokens=1) for n in range(6)]
    assert "2 at most" in in_flight(run)


def test_attributes_are_escaped() -> None:
    assert (
        tag("a", "b", class_='"<', x=1.0, y=0.333) == '<a class="&quot;&lt;" x="1" y="0.33">b</a>'
    )


if __name__ == "__main__":
    GOLDEN.parent.mkdir(exist_ok=True)
    GOLDEN.write_text(page(summarize(made_up(), OBJECTIVES), made_up(), FACTS), encoding="utf-8")
