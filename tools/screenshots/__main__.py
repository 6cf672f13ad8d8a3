"""`python -m tools.screenshots`: take the pictures of docs/images anew."""

from __future__ import annotations

import io
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from PIL import Image

from tools.screenshots.browser import NoBrowser, chromium
from tools.screenshots.service import ROOT, running_service

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, FilePayload, Page

FOLDER: Final = ROOT / "docs/images"
EXAMPLES: Final = ROOT / "examples/images"
PICTURES: Final = ("green-star", "orange-digit-4", "red-circle", "purple-triangle", "blue-digit-7")
MAX_BYTES: Final = 200_000
SOON_MS: Final = 60_000


def main() -> int:
    """Take all of them; returns the exit status."""
    FOLDER.mkdir(exist_ok=True)
    try:
        with (
            tempfile.TemporaryDirectory() as folder,
            chromium() as browser,
            running_service(Path(folder)) as url,
        ):
            _desktop(browser, url)
            _phone(browser, url)
            _error(browser, url)
    except NoBrowser as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _desktop(browser: Browser, url: str) -> None:
    with _page(browser, url, viewport={"width": 1200, "height": 900}) as page:
        # The first one is slower than those that follow: PyTorch gets to know the shapes.
        _ask(page, "what is in image 1?", PICTURES)
        _ask(page, "which digit is in image 2?", ("two-purple-stars", *PICTURES[1:4][::-1]))
        _ask(page, "how many squares are in image 1?", ("three-green-squares", "five-blue-circles"))
        _save("page", page.screenshot(full_page=True))


def _phone(browser: Browser, url: str) -> None:
    phone = {"width": 360, "height": 1150}
    with _page(browser, url, viewport=phone, color_scheme="dark") as page:
        _ask(page, "where is the star in image 1?", ("yellow-star-top-left", "red-circle"))
        _save("page-phone", page.screenshot())


def _error(browser: Browser, url: str) -> None:
    with _page(browser, url, viewport={"width": 1200, "height": 420}) as page:
        broken: FilePayload = {
            "name": "broken.png",
            "mimeType": "image/png",
            "buffer": b"not a picture",
        }
        page.set_input_files("#files", [broken])
        page.fill("#question", "what is in image 1?")
        page.click("#send")
        page.wait_for_selector("#error", timeout=SOON_MS)
        _save("page-error", page.locator(".result").screenshot())


@contextmanager
def _page(browser: Browser, url: str, **options: Any) -> Iterator[Page]:
    context = browser.new_context(**options)
    try:
        page = context.new_page()
        page.goto(f"{url}/")
        page.wait_for_selector("#state.good", timeout=SOON_MS)
        yield page
    finally:
        context.close()


def _ask(page: Page, text: str, pictures: tuple[str, ...]) -> None:
    while page.locator("#pictures button").count():
        page.locator("#pictures button").first.click()
    page.set_input_files("#files", [EXAMPLES / f"{name}.png" for name in pictures])
    page.fill("#question", text)
    with page.expect_response("**/playground/facts"):
        page.click("#send")
        page.wait_for_selector("#stop", state="hidden", timeout=SOON_MS)
    page.wait_for_selector("#numbers:not([hidden])", timeout=SOON_MS)
    page.evaluate("document.activeElement.blur()")


def _save(name: str, shot: bytes) -> None:
    path = FOLDER / f"{name}.png"
    # A page has few colours.
    Image.open(io.BytesIO(shot)).convert("RGB").quantize(128).save(path, optimize=True)
    size = path.stat().st_size
    print(f"{path.relative_to(ROOT)}  {size:,} bytes")
    if size > MAX_BYTES:
        raise SystemExit(f"{path} has more than {MAX_BYTES:,} bytes")


if __name__ == "__main__":
    sys.exit(main())
