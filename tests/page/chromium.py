"""A real Chromium that talks to nobody but the page's own server."""

from __future__ import annotations

import base64
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from playwright.sync_api import Browser, ConsoleMessage, Page, Request, Route

DESKTOP: Final = {"width": 1280, "height": 900}
PHONE: Final = {"width": 360, "height": 740}
NARROW_PHONE: Final = {"width": 320, "height": 568}
SOON_MS: Final = 60_000
SERIOUS: Final = ("serious", "critical")


@dataclass
class Tab:
    """A page that is open, and what it did that it should not have done.

    Attributes:
        page: Playwright's page.
        url: Of the service, without a slash at the end.
        requests: What left the page, previews of chosen pictures aside.
        complaints: Errors and warnings of the console, exceptions, requests to others.
    """

    page: Page
    url: str
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def listen(self) -> None:
        """Before anything is loaded."""
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.complaints.append(f"exception: {error}"))
        self.page.on("request", self._request)
        self.page.context.route("**/*", self._let_through)

    def open(self) -> None:
        """Load the page and wait until it knows the service."""
        self.page.goto(f"{self.url}/")
        self.page.wait_for_selector("#state.good", timeout=SOON_MS)

    def drop(self, dropped: Sequence[tuple[str, str, bytes]]) -> None:
        """Drop files (name, media type, content), as from a file manager."""
        carried = [[name, kind, base64.b64encode(data).decode()] for name, kind, data in dropped]
        transfer = self.page.evaluate_handle(
            """(files) => {
                const transfer = new DataTransfer();
                for (const [name, type, data] of files) {
                    const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
                    transfer.items.add(new File([bytes], name, { type }));
                }
                return transfer;
            }""",
            carried,
        )
        for event in ("dragenter", "dragover", "drop"):
            self.page.dispatch_event("#drop", event, {"dataTransfer": transfer})

    def until_answered(self) -> str:
        """Wait for the end of a request; the text that was said."""
        self.page.wait_for_selector("#stop", state="hidden", timeout=SOON_MS)
        return self.page.inner_text("#answer .said")

    def bars(self, name: str) -> list[dict[str, Any]]:
        """What is drawn under that name: item, left and right edge."""
        found: list[dict[str, Any]] = self.page.eval_on_selector_all(
            f'#timeline rect[data-name="{name}"]',
            """(bars) => bars.map((bar) => ({
                item: bar.dataset.item,
                left: bar.x.baseVal.value,
                right: bar.x.baseVal.value + bar.width.baseVal.value,
            }))""",
        )
        return found

    def barriers(self) -> list[str]:
        """What keeps people out, by axe's rules: id and place of what is serious or critical."""
        axe = files("axe_playwright_python").joinpath("axe.min.js").read_text("utf-8")
        self.page.evaluate(axe)
        found = self.page.evaluate("axe.run({ resultTypes: ['violations'] })")["violations"]
        return [
            f"{rule['id']}: {node['target']} {node.get('failureSummary')}"
            for rule in found
            if rule["impact"] in SERIOUS
            for node in rule["nodes"]
        ]

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(f"{message.type}: {message.text}")

    def _request(self, request: Request) -> None:
        if not request.url.startswith("blob:"):
            self.requests.append(request.url)

    def _let_through(self, route: Route) -> None:
        if route.request.url.startswith((f"{self.url}/", "blob:")):
            route.continue_()
            return
        self.complaints.append(f"request to somebody else: {route.request.url}")
        route.abort()


@contextmanager
def open_tab(browser: Browser, url: str, **options: Any) -> Iterator[Tab]:
    """A tab of its own; whatever it complained about fails the test."""
    context = browser.new_context(**{"viewport": DESKTOP, **options})
    try:
        tab = Tab(context.new_page(), url)
        tab.listen()
        tab.open()
        yield tab
        assert tab.complaints == []
    finally:
        context.close()


def image_file(path: Path, seed: int) -> tuple[str, str, bytes]:
    """A picture that no cache knows: the bytes differ with `seed`, what they show does not."""
    data = path.read_bytes()
    # A PNG reader ignores what follows the last chunk.
    return path.name, "image/png", data + seed.to_bytes(4, "big")
