"""The page in a real Chromium, before real services."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from typing import TYPE_CHECKING, Any

import openai
import pytest

from tests.page.asking import CIRCLE, DIGIT, QUESTION, STAR, answer_greedily, ask, new
from tests.page.chromium import DESKTOP, NARROW_PHONE, PHONE, SOON_MS, open_tab

if TYPE_CHECKING:
    from playwright.sync_api import Browser, FilePayload, Route

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

PARTS = {
    "preprocess": "prepare",
    "queue": "wait",
    "encode_exposed": "encode, exposed",
    "encode_hidden": "encode, hidden",
    "transport_exposed": "transport, exposed",
    "prefill": "prefill",
    "lost": "engine lost",
}
"""What the page calls the parts of the time to first token."""
LONG_QUESTION = f"what is in image 1, {'and what is beside it, ' * 3}{'o' * 80}h?"
WATCH = """() => {
    window.seen = [];
    const svg = document.getElementById("timeline");
    new MutationObserver(() => {
        if (document.getElementById("stop").hidden) return;
        const bars = [...svg.querySelectorAll("rect[data-name]")].map((bar) => bar.dataset);
        const done = bars.filter((bar) => !bar.open);
        window.seen.push({
            done: done.length,
            names: done.map((bar) => bar.name),
            open: bars.filter((bar) => bar.open).map((bar) => bar.item),
        });
    }).observe(svg, { childList: true });
}"""


def events(stream: str) -> list[dict[str, Any]]:
    """Of an answer as it came: its JSON."""
    lines = (line.removeprefix("data: ") for line in stream.splitlines())
    return [json.loads(line) for line in lines if line.startswith("{")]


def by_api(url: str, files: list[tuple[str, str, bytes]], text: str) -> str:
    parts: list[Any] = [
        {
            "type": "image_url",
            "image_url": {"url": f"data:{kind};base64,{b64encode(data).decode()}"},
        }
        for _, kind, data in files
    ]
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        reply = client.chat.completions.create(
            model="killed",
            messages=[{"role": "user", "content": [*parts, {"type": "text", "text": text}]}],
            temperature=0,
            max_tokens=12,
        )
    return reply.choices[0].message.content or ""


def test_two_images_are_dropped_asked_about_and_seen_to_overlap(browser: Browser, url: str) -> None:
    files = new(STAR, DIGIT)
    with open_tab(browser, url) as tab:
        tab.drop(files)
        assert tab.page.locator("#pictures img").count() == 2
        answer_greedily(tab)
        tab.page.evaluate(WATCH)
        said = ask(tab)
        assert said == by_api(url, files, QUESTION)
        assert said == "a green star"

        # While it ran it grew: bars came one after another, and prefill of the first image was
        # there when the second was still at its encoder.
        seen = tab.page.evaluate("window.seen")
        counts = [one["done"] for one in seen]
        assert counts == sorted(counts)
        assert len(set(counts)) >= 2
        assert any(one["open"] == ["0", "1"] for one in seen)
        assert any("prefill" in one["names"] and "1" in one["open"] for one in seen)

        # And when it was over, the router's own timeline says so too.
        (second,) = (bar for bar in tab.bars("encode") if bar["item"] == "1")
        chunks = tab.bars("prefill")
        assert any(c["left"] < second["right"] and c["right"] > second["left"] for c in chunks)
        assert "hidden behind prefill" in tab.page.inner_text("#timeline-summary")
        assert tab.page.locator("#timeline rect.band").count() >= 1
        assert {"transfer", "decode"} <= set(
            tab.page.eval_on_selector_all(
                "#timeline rect", "(b) => b.map((one) => one.dataset.name)"
            )
        )
        assert set(tab.requests) >= {f"{url}/", f"{url}/v1/chat/completions"}
        assert all(request.startswith(f"{url}/") for request in tab.requests)


def test_numbers_stand_beside_promises_and_the_service_counts(browser: Browser, url: str) -> None:
    with open_tab(browser, url) as tab:
        tab.drop(new(CIRCLE))
        answer_greedily(tab)
        ask(tab)
        rows = tab.page.locator("#numbers-body tr").all_inner_texts()
        first = next(row for row in rows if row.startswith("Time to first token"))
        whole = next(row for row in rows if row.startswith("Whole answer"))
        assert re.search(r"\d ms|\d s", first)
        assert "60 s" in first
        assert "✓ yes" in first
        assert "1 ms" in whole
        assert "✗ no" in whole
        assert tab.page.locator("#parts li").count() >= 3
        assert "of images" in tab.page.inner_text("#more")
        # One minute, five, an hour: a laptop need not wait four weeks to see what it promised.
        tab.page.wait_for_function(
            """() => [...document.querySelectorAll("#slos-body tr")].every(
                (row) => !row.children[4].textContent.includes("–"))""",
            timeout=SOON_MS,
        )
        promises = {
            row.split("\t")[0]: row.split("\t")
            for row in tab.page.locator("#slos-body tr").all_inner_texts()
        }
        assert promises.keys() == {"first-token", "image", "whole-answer", "available"}
        assert promises["first-token"][4] == "100 %"
        assert promises["whole-answer"][4] == "0 %"
        assert "99.999 %" in promises["available"]


def told_and_shown(timeline: dict[str, Any], shown: list[str]) -> tuple[list[Any], list[Any]]:
    """The parts of the time to first token, in milliseconds; shown are three digits of them."""
    spent = timeline["first_token_parts_ns"]
    told = [
        (label, pytest.approx(spent[part] / 1e6, rel=0.0051))
        for part, label in PARTS.items()
        if spent[part]
    ]
    read = []
    for line in shown:
        label, number, unit, *_share = line.rsplit(" ", 4)
        read.append((label, float(number) * {"ms": 1, "s": 1000}[unit]))
    return told, read


def test_numbers_are_those_that_the_router_tells(browser: Browser, url: str) -> None:
    def tell(route: Route) -> None:
        facts = route.fetch().json()
        for latency in facts["latencies"].values():
            latency.update(p50_s=1.111, p95_s=2.222, p99_s=3.333, count=9)
        route.fulfill(json=facts)

    with open_tab(browser, url) as tab:
        tab.page.route("**/playground/facts", tell)
        tab.open()
        tab.drop(new(STAR, DIGIT))
        answer_greedily(tab)
        with tab.page.expect_response("**/v1/chat/completions") as response:
            ask(tab)
        (timeline,) = (
            event["redserve"]["timeline"]
            for event in events(response.value.text())
            if "timeline" in event.get("redserve", {})
        )
        shown = tab.page.locator("#parts li").all_inner_texts()
        told = timeline["first_token_parts_ns"]
        assert told["encode_hidden"] > 0
        assert told["encode_exposed"] > 0
        expected, read = told_and_shown(timeline, shown)
        assert read == expected
        medians = {
            cells[0]: cells[-1]
            for cells in (
                row.split("\t") for row in tab.page.locator("#numbers-body tr").all_inner_texts()
            )
        }
        # Nobody tells how long an image usually takes.
        assert medians.pop("Slowest image, encoded") == "–"
        assert set(medians.values()) == {"1.111 s"}


def test_the_service_judges_not_the_page(browser: Browser, url: str) -> None:
    with open_tab(browser, url) as tab:
        tab.drop(new(CIRCLE))
        answer_greedily(tab)
        image = tab.page.locator("#numbers-body tr", has_text="Slowest image")
        ask(tab)
        assert "✗ no" in image.inner_text()
        # An encoder has it by now, which is good at any time: nothing was encoded.
        ask(tab)
        assert image.locator("td").all_inner_texts()[:3] == ["–", "1 ms", "✓ yes"]
        # And without an image there is nothing to judge.
        tab.page.click("#pictures button")
        ask(tab, "what is it?")
        assert image.locator("td").all_inner_texts()[:3] == ["–", "1 ms", "–"]


def test_last_requests_can_be_compared(browser: Browser, url: str) -> None:
    with open_tab(browser, url) as tab:
        answer_greedily(tab)
        tab.drop(new(STAR))
        first = ask(tab)
        tab.page.click("#pictures button")
        tab.drop(new(DIGIT))
        second = ask(tab, "which digit is in image 1?")
        assert first != second
        rows = tab.page.locator("#history-body tr")
        assert rows.count() == 2
        assert rows.nth(0).inner_text().startswith("which digit")
        rows.nth(1).locator("button").click()
        assert tab.page.inner_text("#answer .said") == first
        pressed = "#history-body button[aria-pressed=true]"
        assert tab.page.inner_text(pressed) == QUESTION


def test_everything_goes_by_keyboard(browser: Browser, url: str) -> None:
    with open_tab(browser, url) as tab:
        keys = tab.page.keyboard
        # Somebody listens from the start: Playwright does not wait until Chromium knows of it.
        tab.page.on("filechooser", lambda _chooser: None)
        keys.press("Tab")
        assert tab.page.evaluate("document.activeElement.id") == "files"
        outline = "getComputedStyle(document.querySelector('label[for=files]')).outlineStyle"
        assert tab.page.evaluate(outline) == "solid"
        with tab.page.expect_file_chooser() as chooser:
            keys.press("Enter")
        files: list[FilePayload] = [
            {"name": name, "mimeType": kind, "buffer": data}
            for name, kind, data in new(STAR, DIGIT)
        ]
        chooser.value.set_files(files)
        tab.page.wait_for_selector("#pictures li:nth-child(2)")
        keys.press("Tab")
        keys.press("Tab")
        keys.press("Enter")  # removes the second
        assert tab.page.locator("#pictures img").count() == 1
        label = tab.page.evaluate("document.activeElement.getAttribute('aria-label')")
        assert label == "Remove image 1, green-star.png"
        keys.press("Tab")
        keys.type(QUESTION)
        keys.press("Tab")
        keys.press("Enter")  # opens the options
        keys.press("Tab")
        keys.type("12")
        keys.press("Tab")
        keys.type("0")
        keys.press("Tab")
        assert tab.page.evaluate("document.activeElement.id") == "send"
        keys.press("Shift+Tab")
        keys.press("Enter")  # asks, as in any form
        assert tab.until_answered() == "a green star"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", ["desktop", "phone", "narrow phone"])
def test_nobody_is_kept_out(browser: Browser, url: str, scheme: Any, size: str) -> None:
    options: dict[str, Any] = {"color_scheme": scheme, "reduced_motion": "reduce"}
    if size != "desktop":
        viewport = PHONE if size == "phone" else NARROW_PHONE
        options |= {"viewport": viewport, "has_touch": True, "is_mobile": True}
    with open_tab(browser, url, **options) as tab:
        assert tab.barriers() == []
        tab.drop(new(STAR, DIGIT))
        answer_greedily(tab)
        ask(tab, LONG_QUESTION)
        tab.page.click("#bars > summary")
        assert tab.barriers() == []
        tab.page.click("#pictures button")
        tab.page.click("#pictures button")
        tab.page.fill("#question", "")
        tab.page.click("#send")
        assert tab.page.is_visible("#error")
        assert tab.barriers() == []
        # Nothing sticks out of a narrow screen. `innerWidth` of a phone grows with what does.
        page = "document.documentElement"
        assert tab.page.evaluate(f"{page}.clientWidth") == options.get("viewport", DESKTOP)["width"]
        assert tab.page.evaluate(f"{page}.scrollWidth") <= tab.page.evaluate(f"{page}.clientWidth")


def test_a_barrier_would_be_seen(browser: Browser, url: str) -> None:
    with open_tab(browser, url) as tab:
        tab.page.evaluate("document.getElementById('send').textContent = ''")
        assert [one.partition(":")[0] for one in tab.barriers()] == ["button-name"]
