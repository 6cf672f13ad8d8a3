"""Questions that tests ask on the page."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from tests.e2e.service import ROOT
from tests.page.chromium import image_file

if TYPE_CHECKING:
    from pathlib import Path

    from tests.page.chromium import Tab

IMAGES = ROOT / "examples/images"
STAR, DIGIT, CIRCLE = (
    IMAGES / f"{name}.png" for name in ("green-star", "orange-digit-4", "red-circle")
)
QUESTION = "what is in image 1?"
_seeds = itertools.count(1)


def new(*paths: Path) -> list[tuple[str, str, bytes]]:
    return [image_file(path, next(_seeds)) for path in paths]


def answer_greedily(tab: Tab) -> None:
    tab.page.click("details.options > summary")
    tab.page.fill("#temperature", "0")
    tab.page.fill("#max-tokens", "12")


def ask(tab: Tab, text: str = QUESTION) -> str:
    tab.page.fill("#question", text)
    tab.page.click("#send")
    return tab.until_answered()
