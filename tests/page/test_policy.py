"""What browsers do with the headers of the page: markup and code of others do nothing in it.

Each thing is tried twice: with the headers that the router sends, and without them, which shows
that it would do something.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.page.chromium import SOON_MS
from tests.page.servers import HTML, elsewhere, passage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Page

    from tests.page.servers import Elsewhere

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

POLICY: Final = "content-security-policy"
FRAMES: Final = "x-frame-options"
OTHERS: Final = ("cross-origin-resource-policy", "referrer-policy")
MARKUP: Final = """
<script src="/playground/probe.js"></script>
<base href="{elsewhere}/">
<p id="mark" style="left: 1px">.</p>
<style>#mark { right: 2px; }</style>
<link rel="stylesheet" href="{elsewhere}/style.css">
<script>window.did.push("inline script");</script>
<script src="{elsewhere}/script.js"></script>
<img src="data:," onerror="window.did.push('inline handler')">
<img src="{elsewhere}/picture.png">
<iframe src="{elsewhere}/frame"></iframe>
<object data="{elsewhere}/object"></object>
<form id="form" action="{elsewhere}/form"><input name="secret" value="1"></form>
<a id="away" href="{elsewhere}/away">away</a>
"""
# A file of the page itself, so that it runs. It tries what such a file could be made to do.
PROBE: Final = """
const attempt = (name, action) => {
  try { action(); window.did.push(name); } catch { /* it may not */ }
};
attempt("eval", () => eval("1"));
attempt("markup from text", () => { document.createElement("p").innerHTML = "<b>1</b>"; });
fetch("{elsewhere}/talk").catch(() => null).finally(() => { window.probed = true; });
"""
SEEN: Final = """() => {
    const style = getComputedStyle(document.getElementById("mark"));
    const did = [...window.did];
    if (style.left === "1px") did.push("style of an element");
    if (style.right === "2px") did.push("inline style sheet");
    if (style.top === "3px") did.push("foreign style sheet");
    if (new URL(document.baseURI).origin !== location.origin) did.push("base");
    return did;
}"""
EVERYTHING: Final = {
    "inline script", "foreign script", "inline handler", "style of an element",
    "inline style sheet", "foreign style sheet", "base", "eval", "markup from text",
}  # fmt: skip
PATHS: Final = {f"/{name}" for name in (
    "style.css", "script.js", "picture.png", "frame", "object", "talk")}  # fmt: skip
SUBMIT: Final = """() => new Promise((tell) => {
    document.addEventListener("securitypolicyviolation", (e) => tell(e.effectiveDirective));
    document.getElementById("form").submit();
})"""


@contextmanager
def open_page(browser: Browser) -> Iterator[Page]:
    """An empty tab of its own, which notes what code does to it."""
    context = browser.new_context()
    try:
        context.set_default_timeout(SOON_MS)
        page = context.new_page()
        page.add_init_script("window.did = [];")
        yield page
    finally:
        context.close()


@contextmanager
def open_injected(
    browser: Browser, url: str, place: Elsewhere, *, guarded: bool = True
) -> Iterator[Page]:
    """The page with markup of somebody else in it, loaded with all that may be loaded."""
    dropped = () if guarded else (POLICY, FRAMES, *OTHERS)
    markup = MARKUP.replace("{elsewhere}", place.url)
    probe = PROBE.replace("{elsewhere}", place.url)
    with (
        passage(url, dropped=dropped, markup=markup, probe=probe) as own,
        open_page(browser) as page,
    ):
        page.goto(f"{own}/")
        page.wait_for_function("window.probed")
        yield page


def test_what_is_not_ours_does_nothing(browser: Browser, url: str) -> None:
    with elsewhere() as place, open_injected(browser, url, place) as page:
        assert page.evaluate(SEEN) == []
        assert place.visits == {}
        # The page itself is none the worse for it.
        page.wait_for_selector("#state.good")


def test_without_the_headers_it_would_do_everything(browser: Browser, url: str) -> None:
    with elsewhere() as place, open_injected(browser, url, place, guarded=False) as page:
        assert set(page.evaluate(SEEN)) == EVERYTHING
        assert place.visits.keys() >= PATHS


def test_forms_go_nowhere(browser: Browser, url: str) -> None:
    with elsewhere() as place, open_injected(browser, url, place) as page:
        assert page.evaluate(SUBMIT) == "form-action"
        assert place.visits == {}
    with elsewhere() as place, open_injected(browser, url, place, guarded=False) as page:
        with page.expect_navigation(url=f"{place.url}/form?secret=1"):
            page.evaluate("document.getElementById('form').submit()")
        assert "/form" in place.visits


@pytest.mark.parametrize("guarded", [True, False], ids=["as served", "without headers"])
def test_whoever_is_linked_to_is_not_told_of_us(browser: Browser, url: str, guarded: bool) -> None:
    with elsewhere() as place, open_injected(browser, url, place, guarded=guarded) as page:
        page.click("#away")
        page.wait_for_url(f"{place.url}/away")
        assert bool(place.visits["/away"]) != guarded


@pytest.mark.parametrize(
    ("dropped", "is_shown"),
    [((), False), ((FRAMES,), False), ((POLICY,), False), ((POLICY, FRAMES), True)],
    ids=["as served", "by its policy alone", "by X-Frame-Options alone", "by neither"],
)
def test_nobody_puts_a_frame_around_the_page(
    browser: Browser, url: str, dropped: tuple[str, ...], is_shown: bool
) -> None:
    with (
        elsewhere() as place,
        passage(url, dropped=dropped) as own,
        open_page(browser) as page,
    ):
        frames = f'<iframe name="ours" src="{own}/"></iframe><iframe name="free" src="/x"></iframe>'
        place.files["/framer"] = (HTML, f"<!doctype html>{frames}".encode())
        page.goto(f"{place.url}/framer")
        assert heading(page, "free") == "elsewhere"
        # Where it is kept out, the browser shows a page of its own.
        assert (heading(page, "ours") == "REDServe") == is_shown


@pytest.mark.parametrize("dropped", [(), OTHERS], ids=["as served", "without headers"])
def test_nobody_else_uses_files_of_the_page(
    browser: Browser, url: str, dropped: tuple[str, ...]
) -> None:
    with (
        elsewhere() as place,
        passage(url, dropped=dropped) as own,
        open_page(browser) as page,
    ):
        image = f'<img src="{own}/playground/icon.svg">'
        place.files["/thief"] = (HTML, f"<!doctype html>{image}".encode())
        page.goto(f"{place.url}/thief")
        is_drawn = page.evaluate("document.querySelector('img').naturalWidth > 0")
        assert is_drawn == bool(dropped)


def heading(page: Page, frame: str) -> Any:
    """Of what a frame shows."""
    (found,) = (one for one in page.frames if one.name == frame)
    return found.evaluate("document.querySelector('h1')?.textContent ?? null")
