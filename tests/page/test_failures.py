"""What the page says when something goes wrong."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from tests.page.asking import CIRCLE, DIGIT, QUESTION, STAR, answer_greedily, ask, new
from tests.page.chromium import SOON_MS, open_tab

if TYPE_CHECKING:
    from collections.abc import Callable

    from playwright.sync_api import Browser, Route

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
data: {"error": {"message": "the LLM replica was lost", "type": "server_error", "param": null}}

"""
STREAM = {"content_type": "text/event-stream; charset=utf-8"}
BUSY = (
    """{"error": {"message": "2 requests are being served", "code": "overloaded", "param": null}}"""
)


@pytest.mark.parametrize(
    ("reply", "what", "why"),
    [
        ({**STREAM, "body": CHUNK + LOST}, "The service failed.", "The LLM replica was lost."),
        (
            # As a proxy may pass it on: other line ends, comments to keep the connection up.
            {**STREAM, "body": f": ping\n\n{CHUNK}: ping\n\n{LOST}".replace("\n", "\r\n")},
            "The service failed.",
            "The LLM replica was lost.",
        ),
        (
            {**STREAM, "body": CHUNK},
            "The answer broke off.",
            "The connection to the router ended.",
        ),
        (
            {"status": 429, "headers": {"retry-after": "7"}, "body": BUSY},
            "The service is busy.",
            "2 requests are being served. Try again in 7 s.",
        ),
        ({"status": 502, "body": "<html>"}, "The service failed.", "Status 502."),
        (
            {"status": 401, "body": '{"detail": "Not authenticated"}'},
            "Something in front of the service asks who you are.",
            "Status 401.",
        ),
        (
            {"status": 200, "content_type": "text/html", "body": "<html>"},
            "Something else than the router answered.",
            "A gateway may stand in front of the service: reload the page.",
        ),
    ],
    ids=["lost", "lost behind a proxy", "broken off", "busy", "not ours", "login", "login page"],
)
def test_what_goes_wrong_on_the_way_reads_well(
    browser: Browser, url: str, reply: dict[str, Any], what: str, why: str
) -> None:
    with open_tab(browser, url) as tab:
        tab.page.route("**/v1/chat/completions", lambda route: route.fulfill(**reply))
        said = ask(tab)
        assert said == ("half an" if "data: " in reply["body"] else "")
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


def test_a_picture_that_breaks_off_is_the_users(browser: Browser, url: str) -> None:
    with open_tab(browser, url) as tab:
        ((name, kind, data),) = new(STAR)
        tab.drop([(name, kind, data[: len(data) // 2])])
        ask(tab)
        assert tab.page.inner_text("#error-what") == "The service does not take this question."
        assert "It is about image 1." in tab.page.inner_text("#error-why")
        tab.complaints[:] = [one for one in tab.complaints if "400 (Bad Request)" not in one]


DROP_OF_SIZE = """(size) => {
    const transfer = new DataTransfer();
    transfer.items.add(new File([new Uint8Array(size)], "large.png", { type: "image/png" }));
    return transfer;
}"""


@pytest.mark.parametrize(
    ("size", "what"),
    [
        (21 * 1024 * 1024, "An image is too large: at most 21 MB."),
        (0, "An image is empty."),
    ],
    ids=["too large", "empty"],
)
def test_files_are_refused_before_they_are_read(
    browser: Browser, url: str, size: int, what: str
) -> None:
    with open_tab(browser, url) as tab:
        dropped = {"dataTransfer": tab.page.evaluate_handle(DROP_OF_SIZE, size)}
        tab.page.dispatch_event("#drop", "drop", dropped)
        assert tab.page.inner_text("#error-what") == what
        assert tab.page.inner_text("#error-why") == "Left out: large.png."
        assert tab.page.locator("#pictures img").count() == 0


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (lambda _route: None, "does not answer"),
        (
            lambda route: route.fulfill(status=401, json={"detail": "Not authenticated"}),
            "something else than the router answers: status 401",
        ),
    ],
    ids=["hangs", "login"],
)
def test_a_service_that_does_not_tell_is_not_ready(
    browser: Browser, url: str, answer: Callable[[Route], None], told: str
) -> None:
    with open_tab(browser, url) as tab:
        tab.page.route("**/playground/facts", answer)
        tab.page.wait_for_selector("#state.bad", timeout=SOON_MS)
        assert tab.page.inner_text("#state") == told
        tab.page.unroute("**/playground/facts")
        tab.page.wait_for_selector("#state.good", timeout=SOON_MS)
        tab.complaints[:] = [one for one in tab.complaints if "Failed to load" not in one]


def test_an_option_that_is_no_number_is_told(browser: Browser, url: str) -> None:
    with open_tab(browser, url) as tab:
        tab.page.fill("#question", QUESTION)
        tab.page.click("details.options > summary")
        tab.page.type("#temperature", "e-")
        tab.page.click("#send")
        assert tab.page.inner_text("#error-what") == "An option is no number."
        assert "Temperature" in tab.page.inner_text("#error-why")
        assert tab.page.evaluate("document.activeElement.id") == "temperature"
        assert not any("chat/completions" in request for request in tab.requests)


def test_an_empty_answer_says_so(browser: Browser, url: str) -> None:
    timeline = {
        "request_id": "one", "received_ns": 1, "first_token_ns": 2, "finished_ns": 3, "bars": [],
        "overlap_ratio": None, "first_token_parts_ns": {}, "transport": [],
    }  # fmt: skip
    last = {
        "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}],
        "redserve": {"timeline": timeline},
    }
    body = f"data: {json.dumps(last)}\n\ndata: [DONE]\n\n"
    with open_tab(browser, url) as tab:
        tab.page.route("**/v1/chat/completions", lambda route: route.fulfill(**STREAM, body=body))
        assert ask(tab) == ""
        assert tab.page.inner_text("#answer .help") == "The model answered nothing."
        assert tab.page.is_hidden("#error")


def test_stop_stops_the_service_too(browser: Browser, url: str, service: Service) -> None:
    def cancelled() -> float:
        return service.metric("redserve_requests_total", "router", code="CANCELLED")

    before = cancelled()
    earlier = f"what is it {'and what ' * 40}?"
    with open_tab(browser, url) as tab:
        answer_greedily(tab)
        ask(tab, earlier)
        tab.drop(new(STAR, DIGIT, CIRCLE))
        tab.page.fill("#question", QUESTION)
        tab.page.click("#send")
        tab.page.wait_for_selector('#timeline rect[data-open="true"]', timeout=SOON_MS)
        # Whoever looks at an earlier one comes back to it.
        buttons = tab.page.locator("#history-body button")
        assert buttons.count() == 2
        assert "running" in tab.page.locator("#history-body tr").first.inner_text()
        buttons.last.click()
        assert tab.page.inner_text("#asked") == earlier[:300] + "…"
        assert tab.page.locator('#timeline rect[data-open="true"]').count() == 0
        buttons.first.click()
        tab.page.wait_for_selector('#timeline rect[data-open="true"]', timeout=SOON_MS)
        tab.page.click("#stop")
        tab.until_answered()
        assert "Stopped." in tab.page.inner_text("#error")
        assert "stopped" in tab.page.locator("#history-body tr").first.inner_text()
        assert tab.page.locator("#history-body tr").first.locator(".bad").count() == 0
    service.until(lambda _state: cancelled() == before + 1, 30.0)
