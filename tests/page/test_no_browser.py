"""Tests of the page do not pass where there is nothing to test it with."""

from __future__ import annotations

import pytest

from tests.page.conftest import give_up

WHY = "no Chromium is installed: apt-get install chromium fonts-dejavu-core"


@pytest.mark.parametrize("markers", ["browser", "observability or browser"])
def test_whoever_asks_for_the_browser_is_told_what_to_install(markers: str) -> None:
    with pytest.raises(pytest.fail.Exception, match="apt-get install chromium"):
        give_up(WHY, markers)


@pytest.mark.parametrize("markers", ["", "not gpu"])
def test_others_are_not_kept_up(markers: str) -> None:
    with pytest.raises(pytest.skip.Exception, match="apt-get install chromium"):
        give_up(WHY, markers)
