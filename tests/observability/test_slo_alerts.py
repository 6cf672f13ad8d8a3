"""Burn rate alerts, run by promtool: they come when they must, and only then."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from tests.observability.healthy import healthy, of, service, slo, steady
from tests.observability.promtool import NAMESPACE, Scenario, evaluate, run_scenario, tells_value

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.observability, pytest.mark.timeout(300)]
PAGE: Final = "RedServeSLOBurnRatePage"
TICKET: Final = "RedServeSLOBurnRateTicket"
DAY: Final = 288
"""Steps of five minutes."""


def events(name: str, good: str, bad: str, **labels: str) -> dict[str, str]:
    return {slo(name, "good", **labels): good, slo(name, "bad", **labels): bad}


def last_hour(good: int, bad: int) -> tuple[str, str]:
    """Events of two good hours with a thousand a minute, and of an hour after them."""
    return f"0+1000x119 {120_000}+{good}x80", f"0x119 0+{bad}x80"


QUIET = events("ttft", steady(0, 400), steady(0, 400))
FAST: Final = {
    # A minute has 60 requests. From minute 60 to 90 a fifth is late. Nothing was before, so that
    # what the longest windows see is as young.
    "a fast burn pages, and ends when it is over": Scenario(
        {
            **healthy(200),
            **events("ttft", "0+60x59 3600+48x30 5040+60x110", "0x59 0+12x30 360x110"),
        },
        {
            "59m": set(),
            "80m": {f"{TICKET} slo=ttft"},
            "89m": {f"{PAGE} slo=ttft", f"{TICKET} slo=ttft"},
            "104m": {f"{TICKET} slo=ttft"},
        },
    ),
    "an hour of it pages": Scenario(
        {**healthy(200), **events("ttft", "0+48x90 4320+60x110", "0+12x90 1080x110")},
        {
            "59m": {f"{PAGE} slo=ttft", f"{TICKET} slo=ttft"},
            "89m": {f"{PAGE} slo=ttft", f"{TICKET} slo=ttft"},
            "97m": {f"{PAGE} slo=ttft", f"{TICKET} slo=ttft"},  # half an hour still has too many
            "130m": {f"{TICKET} slo=ttft"},
        },
    ),
    "half of what is allowed is silent": Scenario(
        {**healthy(200), **events("ttft", "0+199x200", "0+1x200")}, {"100m": set(), "199m": set()}
    ),
    "two bad minutes in an hour do not page": Scenario(
        {**healthy(100), **events("ttft", "0+60x80 4800x2 4800+60x18", "0x80 0+60x2 120x18")},
        {"80m": set(), "83m": {f"{TICKET} slo=ttft"}, "90m": {f"{TICKET} slo=ttft"}},
    ),
    "no requests at all are silent": Scenario(
        {**healthy(100), **QUIET}, {"10m": set(), "90m": set()}
    ),
    "each promise for itself": Scenario(
        {
            **healthy(100),
            **events("ttft", "0+60x100", "0x100"),
            **events("available", "0+57x100", "0+3x100"),
            **events("loose", "0+55x100", "0+5x100"),  # 8.3 % of an allowed 10 %
        },
        {"90m": {f"{PAGE} slo=available", f"{TICKET} slo=available"}},
    ),
    "a loose promise still pages in an outage": Scenario(
        {**healthy(100), **events("loose", "0x100", "0+60x100")},
        {"90m": {f"{PAGE} slo=loose", f"{TICKET} slo=loose"}},
    ),
    # Over a day there is no pair of three days, but no budget must be spent for ever in silence.
    "a day's budget that burns at 0.9 is silent": Scenario(
        {**healthy(100), **events("loose", "0+91x100", "0+9x100")}, {"60m": set(), "90m": set()}
    ),
    "a day's budget that burns at 1.1 is a ticket": Scenario(
        {**healthy(100), **events("loose", "0+89x100", "0+11x100")},
        {"90m": {f"{TICKET} slo=loose"}},
    ),
    # All windows are as young: the lower limit of the page calls first.
    "a burn rate of 5.9 does not page": Scenario(
        {**healthy(100), **events("ttft", "0+941x100", "0+59x100")},
        {"90m": {f"{TICKET} slo=ttft"}},
    ),
    "a burn rate of 6.1 pages": Scenario(
        {**healthy(100), **events("ttft", "0+939x100", "0+61x100")},
        {"90m": {f"{PAGE} slo=ttft", f"{TICKET} slo=ttft"}},
    ),
    "half an hour's budget that is spent is a ticket, until it stops": Scenario(
        {
            **healthy(140),
            **events("short", "0+60x59 3600+54x30 5220+60x50", "0x59 0+6x30 180x50"),
        },
        {
            "59m": set(),
            "75m": {f"{TICKET} slo=short"},
            "89m": {f"{TICKET} slo=short"},
            "94m": set(),
        },
    ),
    "a part of half an hour's budget is silent": Scenario(
        {**healthy(100), **events("short", "0+199x100", "0+1x100")}, {"40m": set(), "99m": set()}
    ),
    "another service of that name elsewhere is another service": Scenario(
        {
            **healthy(100),
            **events("ttft", "0+60x100", "0x100"),
            **events("ttft", "0x100", "0+60x100", namespace="staging"),
        },
        {"90m": set()},
    ),
    "routers are added up": Scenario(
        {
            **healthy(100),
            **events("ttft", "0+30x100", "0x100"),
            **events("ttft", "0+10x100", "0+20x100", instance="router-1"),
        },
        {"90m": {f"{PAGE} slo=ttft", f"{TICKET} slo=ttft"}},
    ),
}
# One request in ten minutes; a step is ten minutes.
RARE: Final = {
    "two of six failed requests are no fire": Scenario(
        {**healthy(60), **events("ttft", "0+1x30 30x2 30+1x28", "0x30 0+1x2 2x28")},
        {"5h10m": set(), "5h20m": set(), "5h40m": set()},
        step="10m",
    ),
    "an outage that lasts is, however few ask": Scenario(
        {**healthy(60), **events("ttft", "0+1x12 12x48", "0x12 0+1x48")},
        {"2h20m": set(), "5h": {f"{PAGE} slo=ttft", f"{TICKET} slo=ttft"}},
        step="10m",
    ),
}
# Two good hours before, so that six hours are not as bad as the last one.
HOUR: Final = {
    "an hour at 14.1 does not page": Scenario(
        {**healthy(200), **events("ttft", *last_hour(859, 141))},
        {"119m": set(), "179m": {f"{TICKET} slo=ttft"}},
    ),
    "an hour at 14.7 pages": Scenario(
        {**healthy(200), **events("ttft", *last_hour(853, 147))},
        {"119m": set(), "179m": {f"{PAGE} slo=ttft", f"{TICKET} slo=ttft"}},
    ),
}
SLOW: Final = {
    "a slow burn is a ticket": Scenario(
        {
            **healthy(4 * DAY),
            **events("ttft", f"0+989x{4 * DAY}", f"0+11x{4 * DAY}"),
        },
        {"80h": {f"{TICKET} slo=ttft"}},
        step="5m",
    ),
    "a slow burn that has ended is not": Scenario(
        {
            **healthy(5 * DAY),
            **events("ttft", f"0+98x{4 * DAY} 112896+100x{DAY}", f"0+2x{4 * DAY} 2304x{DAY}"),
        },
        {"95h": {f"{TICKET} slo=ttft"}, "104h": set()},
        step="5m",
    ),
    "five bad minutes in days are silent": Scenario(
        {
            **healthy(4 * DAY),
            **events("ttft", f"0+98x{3 * DAY} 84672+98x{DAY}", f"0x{3 * DAY} 98x{DAY}"),
        },
        {"72h5m": set(), "73h": set(), "90h": set()},
        step="5m",
    ),
    "what is allowed is silent": Scenario(
        {**healthy(4 * DAY), **events("ttft", f"0+991x{4 * DAY}", f"0+9x{4 * DAY}")},
        {"90h": set()},
        step="5m",
    ),
}
ALL: Final = {**FAST, **HOUR, **RARE, **SLOW}


@pytest.mark.parametrize("name", ALL)
def test_burn(tmp_path: Path, name: str) -> None:
    verdict = run_scenario(tmp_path, service(), ALL[name])
    assert verdict.ok, verdict.said


@pytest.mark.parametrize(
    ("name", "slo", "good", "bad", "said"),
    [
        # What it burns at, not the limit that it is above.
        (PAGE, "ttft", "0+822x100", "0+178x100", "17.8"),
        (TICKET, "ttft", "0+984x100", "0+16x100", "1.6"),
        # A loose promise cannot burn at 14.4.
        (PAGE, "loose", "0+40x100", "0+960x100", "9.6"),
    ],
)
def test_an_alert_tells_its_burn_rate(
    tmp_path: Path, name: str, slo: str, good: str, bad: str, said: str
) -> None:
    series = healthy(100) | events(slo, good, bad)
    verdict = tells_value(tmp_path, service(), series, "90m", {"alertname": name, "slo": slo}, said)
    assert verdict.ok, verdict.said


@pytest.mark.parametrize(
    ("recorded", "share"),
    [
        ("redserve:slo_errors:ratio_rate5m", 0.25),
        ("redserve:slo_errors:ratio_rate1h", 0.25),
        ("redserve:slo_errors:ratio_rate28d", 0.25),
        ("redserve:slo_attainment:ratio", 0.75),
    ],
)
def test_a_share_of_no_events_is_not_there(tmp_path: Path, recorded: str, share: float) -> None:
    # A division by nothing would be recorded as "not a number", and drawn.
    series = events("ttft", "0x60 0+45x40", "0x60 0+15x40") | events("available", "0x100", "0x100")
    found = {
        "59m": {},
        "90m": {f'{{namespace="{NAMESPACE}", redservice="demo", slo="ttft"}}': share},
    }
    verdict = evaluate(tmp_path, series, recorded, found, service())
    assert verdict.ok, verdict.said


def test_a_scenario_can_fail(tmp_path: Path) -> None:
    wrong = Scenario({**healthy(), of("up", "llm-0"): steady(0)}, {"40m": set()})
    verdict = run_scenario(tmp_path, service(), wrong)
    assert not verdict.ok
    assert "RedServeTargetDown" in verdict.said
