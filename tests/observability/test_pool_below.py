"""The alert about a pool that is smaller than it is meant to be, run by promtool."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from redserve.observability.alerts import POOL_BELOW_MINIMUM
from tests.observability.cases import Case
from tests.observability.healthy import healthy, of, service, serving, steady
from tests.observability.promtool import evaluate, tells_value

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.observability, pytest.mark.timeout(300)]
FIRST, SECOND, THIRD = (serving("encoder", number) for number in range(3))
TOO_SMALL: Final = {f"{POOL_BELOW_MINIMUM} pool=encoder"}
EMPTY: Final = {"RedServePoolEmpty pool=encoder"}
ROUTERS: Final = {f"{POOL_BELOW_MINIMUM} pool=router"}
THREE: Final = {"encoder": {"replicas": 3}}
TWO_ROUTERS: Final = {"router": {"replicas": 2}}


def silent(first: int = 1, last: int = 59) -> dict[str, set[str]]:
    """In all these minutes."""
    return {f"{minute}m": set() for minute in range(first, last + 1)}


def two_revisions(seen_by_new: int) -> dict[str, str]:
    """An old router that loses an encoder of two, and a new one."""
    new = ("router-1", "r2")
    made = {
        SECOND: "1x9 0x50",
        of("up", *new): steady(1),
        of("redserve_inflight_requests", *new): steady(0),
        serving("llm", 1, *new): steady(1),
    }
    return made | {
        serving("encoder", number, *new): steady(1) for number in range(2, 2 + seen_by_new)
    }


CASES: Final = {
    "one of two ends": Case({SECOND: "1x9 0x50"}, {**silent(1, 20), "26m": TOO_SMALL}),
    "one of two is not known any more": Case(
        {SECOND: "1x9 _x50"}, {**silent(1, 20), "32m": TOO_SMALL}
    ),
    "one of two ends again and again": Case(
        {SECOND: "1x9 " + "0 0 0 0 1 " * 10},
        {"12m": set(), **{f"{minute}m": TOO_SMALL for minute in (28, 29, 30, 31, 32, 33, 50)}},
    ),
    "one of two loads for long and ends again and again": Case(
        {SECOND: ("0x18 " + "1 ") * 3},
        {**silent(1, 24), **{f"{minute}m": TOO_SMALL for minute in (32, 40, 50, 58)}},
    ),
    "one of two ended once": Case({SECOND: "1x9 0x3 1x50"}, silent()),
    "one of two comes back": Case({SECOND: "1x9 0x19 1x50"}, {"29m": TOO_SMALL, **silent(38)}),
    "both end and come back one after the other": Case(
        {FIRST: "1x9 0x9 1x40", SECOND: "1x9 0x15 1x40"}, {"15m": EMPTY, **silent(21)}
    ),
    "a new service of which one loads for long": Case(
        {FIRST: "0x2 1x58", SECOND: "0x25 1x35"}, silent()
    ),
    "a new service of which one loads a little longer": Case({SECOND: "0x8 1x52"}, silent()),
    "a new service of which one loads as long as it may": Case(
        {FIRST: "0x2 1x58", SECOND: "0x29 1x35"}, silent()
    ),
    "a new service of which one never loads": Case(
        {SECOND: steady(0)}, {**silent(1, 29), "35m": TOO_SMALL, "59m": TOO_SMALL}
    ),
    "a new service of which one comes too late": Case(
        {SECOND: "0x39 1x20"}, {**silent(1, 29), "35m": TOO_SMALL, **silent(40)}
    ),
    "two are asked to be three": Case({THIRD: "_x3 0x24 1x30"}, silent(), THREE),
    "two are asked to be three and none comes": Case(
        {}, {**silent(1, 29), "35m": TOO_SMALL}, THREE
    ),
    "one of at least one": Case(
        {SECOND: "1x9 0x50"},
        silent(),
        {"encoder": {"scaling": {"minReplicas": 1, "maxReplicas": 4}}},
    ),
    "a rollout is no loss": Case(two_revisions(2), silent(1, 49)),
    "a rollout that does not get on": Case(
        two_revisions(0),
        {
            "26m": TOO_SMALL,
            "45m": {*TOO_SMALL, "RedServeRouterWithoutReplica pool=router missing=encoder"},
        },
    ),
    "a router that never comes": Case(
        {}, {**silent(1, 29), "35m": ROUTERS, "59m": ROUTERS}, TWO_ROUTERS
    ),
    "a router that is gone": Case(
        {of("up", "router-1"): "1x9 _x50"}, {**silent(1, 20), "32m": ROUTERS}, TWO_ROUTERS
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_alert(tmp_path: Path, name: str) -> None:
    CASES[name].check(tmp_path)


def test_no_moment_of_a_long_lack_is_silent(tmp_path: Path) -> None:
    """Not even that an hour after which nobody remembers that the pool had its number."""
    series = healthy(150) | {SECOND: "1x9 0x140"}
    fires = f'max(ALERTS{{alertstate="firing", alertname="{POOL_BELOW_MINIMUM}"}})'
    always = {f"{minute}m": {"{}": 1.0} for minute in range(26, 150)}
    verdict = evaluate(tmp_path, series, fires, always, service())
    assert verdict.ok, verdict.said


@pytest.mark.parametrize(
    ("changes", "lately", "told"),
    [
        ({SECOND: "1x9 0x50"}, "full", "1"),
        ({SECOND: "1 0 " * 30}, "full", "1"),
        ({FIRST: "1x9 " + "1 0 " * 25, SECOND: "1x9 0x50"}, "full", "0"),
        ({SECOND: steady(0)}, "below", "1"),
    ],
    ids=["one ends", "one comes and goes", "one ends, one comes and goes", "one never comes"],
)
def test_it_tells_whole_replicas(
    tmp_path: Path, changes: dict[str, str], lately: str, told: str
) -> None:
    labels = {"alertname": POOL_BELOW_MINIMUM, "pool": "encoder", "lately": lately}
    series = healthy() | changes
    verdict = tells_value(tmp_path, service(), series, "40m", labels, told)
    assert verdict.ok, verdict.said
