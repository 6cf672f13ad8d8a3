"""Numbers as people read them."""

from __future__ import annotations

import pytest

from redserve.telemetry.figures import duration, percent, rate


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "-"), (0.0000123, "0.0123 ms"), (0.8, "800 ms"), (0.99949, "999 ms"),
     (0.9996, "0.9996 s"), (1.0, "1 s"), (123.456, "123.5 s")],
)  # fmt: skip
def test_durations(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("share", "text"),
    [(1.0, "100 %"), (0.999999, "<100 %"), (0.99987, "99.987 %"), (0.999, "99.9 %"),
     (0.0, "0 %"), (-1.5, "-150 %"), (None, "-")],
)  # fmt: skip
def test_a_share_is_never_rounded_to_all(share: float | None, text: str) -> None:
    assert percent(share) == text


def test_fewer_digits_of_a_share() -> None:
    assert [percent(share, digits=1) for share in (0.99987, 0.5, -0.1234)] == [
        "<100 %", "50 %", "-12.3 %"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("per_s", "text"),
    [(None, "-"), (1.2345, "1.23 requests/s"), (999.4, "999 requests/s"),
     (1234.5, "1234 requests/s")],
)  # fmt: skip
def test_rates(per_s: float | None, text: str) -> None:
    assert rate(per_s, "requests") == text
