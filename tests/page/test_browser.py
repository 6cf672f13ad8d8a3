"""The page in a real Chromium, before real services."""

from __future__ import annotations

import itertools
import re
from base64 import b64encode
from typing import TYPE_CHECKING, Any

import openai
import pytest

from tests.e2e.service import ROOT
from tests.page.chromium import PHONE, SOON_MS, Tab, image_file, open_tab

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from tests.e2e.service import Service

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

IMAGES = ROOT / "examples/images"
STAR, DIGIT, CIRCLE = (
    IMAGES / f"{name}.png" for name in ("green-star", "orange-digit-4", "red-circle")
)
QUESTION = "what is in image 1?"
_seeds = itertools.count(1)

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


def new(*paths: Any) -> list[tuple[str, str, bytes]]:
    return [image_file(path, next(_seeds)) for path in paths]


def answer_greedily(tab: Tab) -> None:
    tab.page.click("details.options > summary")
    tab.page.fill("#temperature", "0")
    tab.page.fill("#max-tokens", "12")


def ask(tab: Tab, text: str = QUESTION) -> str:
    tab.page.fill("#question", text)
    tab.page.click("#send")
    return tab.until_answered()


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
        assert promises.keys() == {"first-token", "whole-answer", "available"}
        assert promises["first-token"][4] == "100 %"
        assert promises["whole-answer"][4] == "0 %"


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


def test_errors_read_well(browser: Browser, url: str) -> None:
    with open_tab(browser, url) as tab:
        error = tab.page.locator("#error")
        tab.page.click("#send")
        assert "There is nothing to ask yet." in error.inner_text()
        assert tab.page.evaluate("document.activeElement.id") == "question"

        tab.drop([("notes.txt", "text/plain", b"hello"), *new(STAR)])
        assert "Left out: notes.txt." in error.inner_text()
        assert tab.page.locator("#pictures img").count() == 1

        tab.drop(new(DIGIT, CIRCLE, STAR))
        ask(tab)
        told = error.inner_text()
        assert "The service does not take this question." in told
        assert re.search(r"4 images.*3|3 images|at most 3", told), told
        assert tab.page.inner_text("#history-body td.bad") == "failed"

        while tab.page.locator("#pictures button").count():
            tab.page.locator("#pictures button").first.click()
        tab.drop([("broken.png", "image/png", b"no picture at all")])
        ask(tab)
        assert "It is about image 1." in error.inner_text()
        # Chromium itself writes a line for every answer that is no success.
        refused = [one for one in tab.complaints if "400 (Bad Request)" in one]
        assert len(refused) == 2
        tab.complaints[:] = [one for one in tab.complaints if one not in refused]


def test_stop_stops_the_service_too(browser: Browser, url: str, service: Service) -> None:
    def cancelled() -> float:
        return service.metric("redserve_requests_total", "router", code="CANCELLED")

    before = cancelled()
    with open_tab(browser, url) as tab:
        tab.drop(new(STAR, DIGIT, CIRCLE))
        tab.page.fill("#question", QUESTION)
        tab.page.click("#send")
        tab.page.wait_for_selector('#timeline rect[data-open="true"]', timeout=SOON_MS)
        tab.page.click("#stop")
        tab.until_answered()
        assert "Stopped." in tab.page.inner_text("#error")
    service.until(lambda _state: cancelled() == before + 1, 30.0)


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
        files = [
            {"name": name, "mimeType": kind, "buffer": data}
            for name, kind, data in new(STAR, DIGIT)
        ]
        chooser.value.set_files(files)  # type: ignore[arg-type]
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
@pytest.mark.parametrize("size", ["desktop", "phone"])
def test_nobody_is_kept_out(browser: Browser, url: str, scheme: Any, size: str) -> None:
    options: dict[str, Any] = {"color_scheme": scheme, "reduced_motion": "reduce"}
    if size == "phone":
        options |= {"viewport": PHONE, "has_touch": True, "is_mobile": True}
    with open_tab(browser, url, **options) as tab:
        assert tab.barriers() == []
        tab.drop(new(STAR, DIGIT))
        answer_greedily(tab)
        ask(tab)
        tab.page.click("#bars > summary")
        assert tab.barriers() == []
        tab.page.click("#pictures button")
        tab.page.click("#pictures button")
        tab.page.fill("#question", "")
        tab.page.click("#send")
        assert tab.page.is_visible("#error")
        assert tab.barriers() == []
        # Nothing sticks out of a narrow screen.
        width = tab.page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert width[0] <= width[1]
