"""One browser and one service for all tests of the page."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

import pytest

from tests.e2e.service import ROOT, Service
from tools.screenshots.browser import NoBrowser, chromium

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser

PROMISES = (
    {"name": "first-token", "indicator": "TimeToFirstToken", "thresholdMilliseconds": 60_000},
    {"name": "image", "indicator": "EncodeLatency", "thresholdMilliseconds": 1},
    {"name": "whole-answer", "indicator": "RequestLatency", "thresholdMilliseconds": 1},
    {"name": "available", "indicator": "Availability", "objectivePercent": "99.999"},
)


def give_up(why: str, markers: str) -> NoReturn:
    """Without a browser: no reason to fail for all tests at once, but for those of the page.

    Args:
        why: What is missing.
        markers: What pytest was told by `-m`.
    """
    # With "not browser" nobody comes here.
    if "browser" in markers:
        pytest.fail(f"the page cannot be tested: {why}", pytrace=False)
    pytest.skip(why)


@pytest.fixture(scope="session")
def browser(pytestconfig: pytest.Config) -> Iterator[Browser]:
    try:
        with chromium() as running:
            yield running
    except NoBrowser as error:
        give_up(str(error), pytestconfig.getoption("markexpr"))


@pytest.fixture(scope="session")
def service(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The demo model behind one encoder that takes its time, so that prefill is in time."""
    running = Service(
        tmp_path_factory.mktemp("page"),
        ROOT / "examples/demo-model",
        slos=PROMISES,
        router={"media": {"maxImages": 3}},
        pools={
            "encoder": {"replicas": 1},
            "llm": {"minChunk": 4, "prefixCache": "Disabled"},
        },
        module="tests.page.redserve_with_slow_encoder",
    )
    yield running
    running.close()


@pytest.fixture
def url(service: Service) -> str:
    return f"http://{service.state()['http_address']}"
