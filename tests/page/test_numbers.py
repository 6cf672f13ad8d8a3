"""Every number and every length that the page shows is the one that the router told.

The page is fed answers and facts in the router's own shapes. No two figures are alike, so that each
can stand in one place only; what must stand where was read off the bars below by hand.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import pytest

from redserve.slo import Judged, Tally
from redserve.telemetry.timeline import Bar, Timeline, overlap_ratio
from redserve.wire.overview import Latency, SloStatus, WindowTally
from redserve_router.http.page.facts import PageFacts, PoolFacts
from redserve_router.http.replies import judged_object, timeline_object
from tests.page.asking import DIGIT, QUESTION, STAR, ask, new
from tests.page.chromium import open_tab

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Route

    from tests.page.chromium import Tab

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

RECEIVED_MS: Final = 1_700_000_000_000
LEFT, RIGHT, TOP, ROW, BAR = 84, 10, 24, 24, 14
"""Of the drawing, pixels: margins, and heights of a row and of a bar in it."""


def at_ns(after_ms: int) -> int:
    return (RECEIVED_MS + after_ms) * 1_000_000


def bar(lane: str, name: str, start_ms: int, end_ms: int, *more: Any) -> Bar:
    return Bar(lane, name, at_ns(start_ms), at_ns(end_ms), *more)


BARS: Final = (
    bar("router", "preprocess", 0, 37),
    bar("llm-b", "lost", 37, 66, None, 0, "gone"),
    bar("encoder-a", "encode", 80, 290, 0, 11),
    bar("encoder-b", "encode", 290, 640, 1, 13),
    bar("llm-a", "transfer", 290, 303, 0),
    bar("llm-a", "prefill", 410, 530, None, 17),
    bar("llm-a", "transfer", 640, 698, 1),
    bar("llm-a", "prefill", 698, 777, None, 19),
    bar("llm-a", "decode", 820, 1450, None, 23),
)
FIRST_TOKEN_MS, FINISHED_MS = 813, 1476
SHORT_BARS: Final = (bar("llm-a", "prefill", 0, 266), bar("llm-a", "decode", 271, 348))
SHORT_FIRST_TOKEN_MS, SHORT_FINISHED_MS = 271, 355

FACTS: Final = PageFacts(
    model="told-model",
    why_not_ready=None,
    max_images=9,
    max_image_bytes=10_000_000,
    max_request_bytes=20_000_000,
    uptime_s=86_400.0,
    slos=tuple(
        SloStatus(
            name,
            indicator,
            threshold_s,
            target,
            2_419_200.0,
            tuple(
                WindowTally(length_s, good, bad)
                for length_s, (good, bad) in zip((60, 300, 3600, 0), tallies, strict=True)
            ),
            attainment,
            budget_left,
        )
        for name, indicator, threshold_s, target, tallies, attainment, budget_left in (
            ("first-token", "TimeToFirstToken", 0.9, 0.95,
             [(8, 2), (49, 1), (485, 15), (1, 99)], 0.962, 0.24),
            ("token-gap", "TimePerOutputToken", 0.02, 0.9,
             [(7, 1), (30, 10), (91, 9), (2, 98)], 0.893, -0.07),
            ("whole-answer", "RequestLatency", 1.25, 0.99,
             [(0, 0), (3, 5), (64, 36), (4, 96)], 0.993, 0.3),
            ("in-the-end", "RequestLatency", 4.0, 0.7,
             [(17, 3), (43, 7), (88, 12), (6, 94)], 0.71, 0.033),
            ("image", "EncodeLatency", 0.3, 0.77,
             [(1, 3), (62, 38), (83, 17), (9, 91)], 0.82, 0.05),
            ("available", "Availability", None, 0.999,
             [(1, 0), (3999, 1), (1999, 1), (10, 90)], 0.99992, 0.92),
        )
    ),
    requests_per_s=12.5,
    failures_per_s=1.5,
    output_tokens_per_s=345.0,
    latencies={
        "time_to_first_token": Latency(0.611, 0.722, 0.833, 71),
        "time_per_output_token": Latency(0.0185, 0.0286, 0.0387, 67),
        "request_duration": Latency(1.812, 2.923, 3.134, 61),
    },
    num_inflight=7,
    num_queued=6,
    pools=(PoolFacts("encoder", 2, 3), PoolFacts("llm", 4, 5)),
)  # fmt: skip
PROMISES: Final = [
    ["first-token", "TimeToFirstToken", "900 ms", "95 %",
     "80 % (bad)", "98 %", "97 %", "96.2 %", "24 %"],
    ["token-gap", "TimePerOutputToken", "20 ms", "90 %",
     "87.5 % (bad)", "75 % (bad)", "91 %", "89.3 % (bad)", "-7 % (bad)"],
    ["whole-answer", "RequestLatency", "1.25 s", "99 %",
     "–", "37.5 % (bad)", "64 % (bad)", "99.3 %", "30 %"],
    ["in-the-end", "RequestLatency", "4 s", "70 %", "85 %", "86 %", "88 %", "71 %", "3.3 %"],
    ["image", "EncodeLatency", "300 ms", "77 %",
     "25 % (bad)", "62 % (bad)", "83 %", "82 %", "5 %"],
    ["available", "Availability", "–", "99.9 %",
     "100 %", "99.975 %", "99.95 %", "99.992 %", "92 %"],
]  # fmt: skip

CELLS = """(rows) => rows.map((row) => [...row.children].map((cell) =>
    cell.textContent + (cell.classList.contains("bad") ? " (bad)" : "")))"""
TEXTS = "(nodes) => nodes.map((node) => node.textContent)"
# All at once: it is drawn anew when its room changes.
DRAWN = """(svg) => {
    const all = (chosen, ...names) => [...svg.querySelectorAll(chosen)].map((node) =>
        [node.textContent, ...names.map((name) => node.getAttribute(name))]);
    return {
        width: svg.getAttribute("width"),
        bars: all("rect[data-name]", "class", "data-item", "x", "y", "width", "height"),
        bands: all("rect.band", "x", "y", "width", "height"),
        firsts: all("line.first", "x1", "x2"),
        ticks: all("line.tick", "x1", "x2"),
        marks: all("text.mark"),
        rows: all("text.row"),
        times: all("text.time"),
    };
}"""
STACK = """(svg) => [...svg.children].map((node) =>
    [node.getAttribute("class"), ...["x", "width"].map((name) => Number(node.getAttribute(name)))])
"""


def stream(*chunks: dict[str, Any]) -> str:
    """An answer as it comes."""
    return "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"


def answer(
    text: str, reason: str, usage: tuple[int, int, int, int], timeline: Timeline, judged: Judged
) -> str:
    """A whole one; `usage` counts tokens: of the prompt, of images, cached, of the answer."""
    prompt, images, cached, made = usage
    details = {"image_tokens": images, "cached_tokens": cached}
    told = {"timeline": timeline_object(timeline), "judged": judged_object(judged)}
    return stream(
        {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]},
        {"choices": [{"index": 0, "delta": {}, "finish_reason": reason}], "redserve": told},
        {
            "choices": [],
            "usage": {
                "prompt_tokens": prompt,
                "completion_tokens": made,
                "total_tokens": prompt + made,
                "prompt_tokens_details": details,
            },
        },
    )


def whole(request_id: str, bars: tuple[Bar, ...], first_ms: int, finished_ms: int) -> Timeline:
    return Timeline(
        request_id,
        bars,
        overlap_ratio(bars),
        received_ns=at_ns(0),
        first_token_ns=at_ns(first_ms),
        finished_ns=at_ns(finished_ms),
    )


ANSWER: Final = answer(
    "a green star",
    "length",
    (61, 24, 8, 31),
    whole("told-request", BARS, FIRST_TOKEN_MS, FINISHED_MS),
    Judged(
        time_to_first_token_s=FIRST_TOKEN_MS / 1e3,
        time_per_output_token_s=0.0223,
        request_duration_s=FINISHED_MS / 1e3,
        encode_latency_s=0.352,
        events=(
            ("available", Tally(1, 0)),
            ("in-the-end", Tally(1, 0)),
            ("whole-answer", Tally(0, 1)),
            ("token-gap", Tally(0, 1)),
            ("first-token", Tally(1, 0)),
            ("image", Tally(1, 1)),
        ),
    ),
)
SHORT_ANSWER: Final = answer(
    "nothing",
    "stop",
    (16, 0, 0, 5),
    whole("short-request", SHORT_BARS, SHORT_FIRST_TOKEN_MS, SHORT_FINISHED_MS),
    Judged(SHORT_FIRST_TOKEN_MS / 1e3, 0.0193, SHORT_FINISHED_MS / 1e3, None, ()),
)


def feed(tab: Tab, *answers: str) -> None:
    """The page is loaded anew, and told `FACTS` and these answers, one after another."""
    left = list(answers)

    def reply(route: Route) -> None:
        route.fulfill(content_type="text/event-stream; charset=utf-8", body=left.pop(0))

    tab.page.route("**/playground/facts", lambda route: route.fulfill(json=FACTS.to_dict()))
    tab.page.route("**/v1/chat/completions", reply)
    tab.open()
    assert tab.page.inner_text("#model") == "told-model"


def ask_about_two_images(tab: Tab) -> None:
    tab.drop(new(STAR, DIGIT))
    assert ask(tab) == "a green star"
    assert tab.page.inner_text("#asked") == f"{QUESTION} (2 images)"


def texts(tab: Tab, selector: str) -> Any:
    return tab.page.eval_on_selector_all(selector, TEXTS)


def cells(tab: Tab, body: str) -> Any:
    """Of the rows of a table; what is marked as bad says so."""
    return tab.page.eval_on_selector_all(f"{body} > tr", CELLS)


def test_what_the_service_says_of_itself_stands_in_its_place(browser: Browser, url: str) -> None:
    with open_tab(browser, url) as tab:
        feed(tab)
        assert tab.page.inner_text("#drop-help").endswith("; at most 9")
        assert tab.page.inner_text("#traffic") == (
            "2 of 3 encoders and 4 of 5 LLM engines serving · 7 in flight, 6 of them queued · "
            "12.5 requests/s · 1.5 failures/s · 345 tokens/s"
        )
        assert texts(tab, "#slos th[scope=col]") == [
            "Promise", "Indicator", "Within", "Target", "1 min", "5 min", "1 h",
            "Attained", "Budget left",
        ]  # fmt: skip
        assert cells(tab, "#slos-body") == PROMISES


def test_every_number_of_an_answer_stands_in_its_place(browser: Browser, url: str) -> None:
    with open_tab(browser, url) as tab:
        feed(tab, ANSWER)
        ask_about_two_images(tab)
        assert texts(tab, "#numbers th[scope=col]") == [
            "Measured", "Here", "Promised", "Kept", "Median, 5 min",
        ]  # fmt: skip
        assert cells(tab, "#numbers-body") == [
            ["Time to first token", "813 ms", "900 ms", "✓ yes", "611 ms"],
            ["Time per output token", "22.3 ms", "20 ms", "✗ no", "18.5 ms"],
            ["Whole answer", "1.476 s", "1.25 s", "✗ no", "1.812 s"],
            ["Whole answer", "1.476 s", "4 s", "✓ yes", "1.812 s"],
            ["Slowest image, encoded", "352 ms", "300 ms", "✗ no", "–"],
        ]
        assert texts(tab, "#more > *") == [
            "Prompt", "61 tokens, 24 of images, 8 cached",
            "Answer", "31 tokens, cut at the longest allowed",
            "Transport", "58 ms exposed, 13 ms hidden",
            "Request", "told-request",
        ]  # fmt: skip


def test_the_parts_of_the_time_to_first_token_are_told_and_drawn(
    browser: Browser, url: str
) -> None:
    with open_tab(browser, url) as tab:
        feed(tab, ANSWER)
        ask_about_two_images(tab)
        assert texts(tab, "#parts li") == [
            "prepare 37 ms 5 %",
            "wait 50 ms 6 %",
            "encode, exposed 440 ms 54 %",
            "encode, hidden 120 ms 15 %",
            "transport, exposed 58 ms 7 %",
            "prefill 79 ms 10 %",
            "engine lost 29 ms 4 %",
        ]
        # Its colour leads from a length to its name.
        kinds = ["preprocess", "queue", "encode", "hidden", "transfer", "prefill", "aborted"]
        chips = "(chips) => chips.map((chip) => chip.className)"
        assert tab.page.eval_on_selector_all("#parts li .chip", chips) == [
            f"chip {kind}" for kind in kinds
        ]
        drawn = tab.page.eval_on_selector("#parts svg", STACK)
        assert [kind for kind, _, _ in drawn] == [f"bar {kind}" for kind in kinds]
        edges_ms = [0, 37, 87, 527, 647, 705, 784, 813]
        per_ms = 1000 / FIRST_TOKEN_MS
        assert [x for _, x, _ in drawn] == pytest.approx([ms * per_ms for ms in edges_ms[:-1]])
        assert [x + width for _, x, width in drawn] == pytest.approx(
            [ms * per_ms for ms in edges_ms[1:]]
        )


def test_the_timeline_is_drawn_to_scale(browser: Browser, url: str) -> None:
    with open_tab(browser, url) as tab:
        feed(tab, ANSWER)
        ask_about_two_images(tab)
        drawn = tab.page.eval_on_selector("#timeline", DRAWN)
        assert texts(tab, "#legend li") == [
            "prepare", "given up", "encode", "transfer", "prefill", "decode",
            "encode hidden behind prefill",
        ]  # fmt: skip
        assert tab.page.inner_text("#timeline-summary") == (
            "First token after 813 ms, complete after 1.476 s, "
            "21.4 % of the encode time hidden behind prefill."
        )
    per_pixel = FINISHED_MS / (float(drawn["width"]) - LEFT - RIGHT)

    def ms(pixels: float | str) -> float:
        return round((float(pixels) - LEFT) * per_pixel, 3)

    def span_ms(x: str, width: str) -> tuple[float, float]:
        return ms(x), ms(float(x) + float(width))

    assert drawn["rows"] == [
        [name] for name in ("prepare", "image 1", "image 2", "prefill", "decode")
    ]
    assert [
        (title, kind, item, (float(y) - TOP - (ROW - BAR) / 2) / ROW, *span_ms(x, width))
        for title, kind, item, x, y, width, _ in drawn["bars"]
    ] == [
        ("preprocess, prepare, 37 ms, router", "bar preprocess", "", 0, 0, 37),
        ("encode, image 1, 210 ms, encoder-a", "bar encode", "0", 1, 80, 290),
        ("transfer, image 1, 13 ms, llm-a", "bar transfer", "0", 1, 290, 303),
        ("encode, image 2, 350 ms, encoder-b", "bar encode", "1", 2, 290, 640),
        ("transfer, image 2, 58 ms, llm-a", "bar transfer", "1", 2, 640, 698),
        ("lost, prefill, 29 ms, llm-b, gone", "bar aborted", "", 3, 37, 66),
        ("prefill, prefill, 120 ms, llm-a", "bar prefill", "", 3, 410, 530),
        ("prefill, prefill, 79 ms, llm-a", "bar prefill", "", 3, 698, 777),
        ("decode, decode, 630 ms, llm-a", "bar decode", "", 4, 820, 1450),
    ]
    assert {float(height) for *_, height in drawn["bars"]} == {BAR}
    # What is tinted: image 2 was at its encoder while image 1 was in prefill.
    ((_, x, y, width, height),) = drawn["bands"]
    assert span_ms(x, width) == (410, 530)
    assert (float(y), float(height)) == (TOP, 5 * ROW)
    assert drawn["marks"] == [["first token 813 ms"]]
    ((_, *ends),) = drawn["firsts"]
    assert [ms(x) for x in ends] == [FIRST_TOKEN_MS] * 2
    assert len(drawn["times"]) >= 3
    for (label,), (_, *ends) in zip(drawn["times"], drawn["ticks"], strict=True):
        number, _, unit = label.partition(" ")
        assert [ms(x) for x in ends] == [float(number) * (1000 if unit == "s" else 1)] * 2


def test_every_bar_stands_in_the_table(browser: Browser, url: str) -> None:
    with open_tab(browser, url) as tab:
        feed(tab, ANSWER)
        ask_about_two_images(tab)
        assert texts(tab, "#bars th[scope=col]") == [
            "What", "Image", "Where", "From", "Took", "Tokens",
        ]  # fmt: skip
        assert cells(tab, "#bars-body") == [
            ["preprocess", "–", "router", "0 ms", "37 ms", "–"],
            ["lost (gone)", "–", "llm-b", "37 ms", "29 ms", "–"],
            ["encode", "1", "encoder-a", "80 ms", "210 ms", "11"],
            ["encode", "2", "encoder-b", "290 ms", "350 ms", "13"],
            ["transfer", "1", "llm-a", "290 ms", "13 ms", "–"],
            ["prefill", "–", "llm-a", "410 ms", "120 ms", "17"],
            ["transfer", "2", "llm-a", "640 ms", "58 ms", "–"],
            ["prefill", "–", "llm-a", "698 ms", "79 ms", "19"],
            ["decode", "–", "llm-a", "820 ms", "630 ms", "23"],
        ]


def test_last_requests_stand_beside_each_other_with_their_own_numbers(
    browser: Browser, url: str
) -> None:
    with open_tab(browser, url) as tab:
        feed(tab, SHORT_ANSWER, ANSWER)
        assert ask(tab, "what is it?") == "nothing"
        assert cells(tab, "#numbers-body")[-1] == [
            "Slowest image, encoded", "–", "300 ms", "–", "–",
        ]  # fmt: skip
        ask_about_two_images(tab)
        assert texts(tab, "#history th[scope=col]") == [
            "Question", "Images", "First token", "First token, drawn", "Whole", "Tokens",
            "Encode hidden",
        ]  # fmt: skip
        assert cells(tab, "#history-body") == [
            [QUESTION, "2", "813 ms", "", "1.476 s", "31", "21 %"],
            ["what is it?", "0", "271 ms", "", "355 ms", "5", "–"],
        ]
        widths = "(bars) => bars.map((bar) => Number(bar.getAttribute('width')))"
        assert tab.page.eval_on_selector_all("#history-body .scale rect", widths) == pytest.approx(
            [100, 100 / 3]
        )
