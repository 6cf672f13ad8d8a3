"""What the page says when something goes wrong."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from tests.page.asking import CIRCLE, DIGIT, QUESTION, STAR, ask, new
from tests.page.chromium import SOON_MS, open_tab

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from tests.e2e.service import Service

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]


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


CHUNK = """data: {"choices": [{"index": 0, "delta": {"content": "half an"}, "finish_reason": null}]}

"""
LOST = """event: error
data: {"error": {"message": "the LLM replica was lost", "code": "unavailable", "param": null}}

"""
BUSY = (
    """{"error": {"message": "2 requests are being served", "code": "overloaded", "param": null}}"""
)


@pytest.mark.parametrize(
    ("reply", "what", "why"),
    [
        ({"body": CHUNK + LOST}, "The service failed.", "The LLM replica was lost."),
        ({"body": CHUNK}, "The answer broke off.", "The connection to the router ended."),
        (
            {"status": 429, "headers": {"retry-after": "7"}, "body": BUSY},
            "The service is busy.",
            "2 requests are being served. Try again in 7 s.",
        ),
        ({"status": 502, "body": "<html>"}, "The service failed.", "Status 502."),
    ],
    ids=["lost", "broken off", "busy", "not ours"],
)
def test_what_goes_wrong_on_the_way_reads_well(
    browser: Browser, url: str, reply: dict[str, Any], what: str, why: str
) -> None:
    with open_tab(browser, url) as tab:
        tab.page.route("**/v1/chat/completions", lambda route: route.fulfill(**reply))
        said = ask(tab)
        assert said == ("half an" if reply.get("status") is None else "")
        assert tab.page.inner_text("#error-what") == what
        assert tab.page.inner_text("#error-why") == why
        assert tab.page.is_enabled("#send")
        tab.complaints[:] = [one for one in tab.complaints if "Failed to load" not in one]


def test_a_router_that_is_gone_is_told(browser: Browser, url: str) -> None:
    with open_tab(browser, url) as tab:
        tab.page.route("**/*", lambda route: route.abort("connectionrefused"))
        ask(tab)
        assert tab.page.inner_text("#error-what") == "The router cannot be reached."
        tab.page.wait_for_selector("#state.bad", timeout=SOON_MS)
        assert tab.page.inner_text("#state") == "cannot be reached"
        tab.page.unroute("**/*")
        tab.page.wait_for_selector("#state.good", timeout=SOON_MS)
        tab.complaints[:] = [one for one in tab.complaints if "Failed to load" not in one]


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
