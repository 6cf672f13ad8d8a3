"""From the promises of a manifest to recording rules and burn rate alerts.

A burn rate says how fast the allowed bad events are used up: at 1 they last exactly as long as the
window of the promise. An alert looks at two windows at once: the long one says that it matters,
the short one that it still goes on, so that the alert ends soon after the trouble does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from redserve.observability.alerts import SLO_PAGE, SLO_TICKET, Alert
from redserve.observability.series import OF_SERVICE, duration

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redserve.observability.alerts import Severity
    from redserve.observability.series import Series
    from redserve.slo import Objective

EVENTS: Final = "redserve_slo_events_total"
RATIO: Final = "redserve:slo_errors:ratio_rate"
"""Share of bad events; the window follows."""
BAD: Final = "redserve:slo_bad_events:increase"
"""Number of bad events; the window follows."""
ATTAINMENT: Final = "redserve:slo_attainment:ratio"
"""Share of good events over the promise's own window; there when the window had events."""
MIN_BAD_EVENTS: Final = 5
"""In the long window. With a request a minute, one failure would otherwise be a fire."""
HIGHEST_SHARE: Final = 0.9
"""No alert waits for more than this share of the way from what is promised to an outage: burning
14 times the budget of a promise of 90 % is more than all there is."""

_MINUTE: Final = 60
_HOUR: Final = 3600
_DAY: Final = 86_400
FIXED_WINDOWS_S: Final = (
    5 * _MINUTE, 30 * _MINUTE, _HOUR, 2 * _HOUR, 6 * _HOUR, _DAY, 3 * _DAY,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Burn:
    """Too fast, over two windows.

    Attributes:
        long_s, short_s: The windows, seconds.
        factor: Burn rate above which it is too fast.
    """

    long_s: int
    short_s: int
    factor: float


@dataclass(frozen=True, slots=True)
class BurnAlert:
    """An alert and what it looks for."""

    name: str
    severity: Severity
    burns: tuple[Burn, ...]


# Of a budget of 30 days, 2 % and 5 % are gone when a page comes, 10 % when a ticket does.
BURN_ALERTS: Final = (
    BurnAlert(
        SLO_PAGE,
        "page",
        (Burn(_HOUR, 5 * _MINUTE, 14.4), Burn(6 * _HOUR, 30 * _MINUTE, 6.0)),
    ),
    BurnAlert(
        SLO_TICKET,
        "ticket",
        (Burn(_DAY, 2 * _HOUR, 3.0), Burn(3 * _DAY, 6 * _HOUR, 1.0)),
    ),
)


def recording_rules(series: Series, objectives: Sequence[Objective]) -> list[dict[str, Any]]:
    """Shares and numbers of bad events of every promise; none without promises.

    A share exists only for a window that had events.
    """
    if not objectives:
        return []
    own_s = {round(one.window_s) for one in objectives}
    looked_at = [burn for alert in BURN_ALERTS for burn in alert.burns]
    looked_at += [
        burn for one in objectives for alert in BURN_ALERTS for burn in burns_of(one, alert)
    ]
    long_s = {burn.long_s for burn in looked_at}
    short_s = {burn.short_s for burn in looked_at}
    bad, every = series.of(EVENTS, 'outcome="bad"'), series.of(EVENTS)
    by = f"sum by ({OF_SERVICE}, slo)"
    rules: list[dict[str, Any]] = []
    for seconds in sorted({*FIXED_WINDOWS_S, *own_s, *short_s}):
        window = duration(seconds)
        share = f"{by} (rate({bad}[{window}])) / ({by} (rate({every}[{window}])) > 0)"
        rules.append({"record": f"{RATIO}{window}", "expr": share})
        if seconds in long_s:
            count = f"{by} (increase({bad}[{window}]))"
            rules.append({"record": f"{BAD}{window}", "expr": count})
    # Under one name whatever the window is, so that a dashboard need not know it.
    for one in objectives:
        share = series.of(f"{RATIO}{duration(one.window_s)}", f'slo="{one.name}"')
        # The series have the label too; but rules must differ by what they say themselves.
        rule = {"record": ATTAINMENT, "expr": f"1 - {share}", "labels": {"slo": one.name}}
        rules.append(rule)
    return rules


def burn_alerts(series: Series, objectives: Sequence[Objective]) -> list[Alert]:
    """A page and a ticket for every promise; no page for one over less than an hour."""
    made = []
    for objective in objectives:
        for kind in BURN_ALERTS:
            burns = burns_of(objective, kind)
            if burns:
                made.append(_alert(series, objective, kind, burns))
    return made


def burns_of(objective: Objective, kind: BurnAlert) -> tuple[Burn, ...]:
    """What an alert looks for at a promise.

    Windows longer than the promise's own are left out: there is no budget that they would save. A
    ticket then comes at the latest when the budget of the whole window is spent, as no promise may
    be broken for ever without one.
    """
    burns = tuple(burn for burn in kind.burns if burn.long_s <= objective.window_s)
    if burns == kind.burns or kind.severity != "ticket":
        return burns
    own_s = round(objective.window_s)
    # Three minutes have two scrapes at least, also where one is made each minute.
    own = Burn(own_s, max(own_s // 12 // _MINUTE, 3) * _MINUTE, 1.0)
    return (*(burn for burn in burns if burn.long_s < own_s), own)


def burn_limit(target: float, factor: float) -> float:
    """The burn rate above which an alert of that factor comes, for a promise of that share.

    It is the factor, or less for a loose promise, whose budget cannot burn so fast.
    """
    budget = 1 - target
    return min(factor, 1 + HIGHEST_SHARE * (1 - budget) / budget)


def _alert(series: Series, objective: Objective, kind: BurnAlert, burns: Sequence[Burn]) -> Alert:
    chosen = f'slo="{objective.name}"'

    def condition(burn: Burn) -> str:
        long, short = duration(burn.long_s), duration(burn.short_s)
        limit = f"{burn_limit(objective.target, burn.factor):.6g}"
        # Burn rates, so that the value of the alert is one.
        return (
            f"({series.of(f'{RATIO}{long}', chosen)} / {budget} > {limit}"
            f" and {series.of(f'{RATIO}{short}', chosen)} / {budget} > {limit}"
            f" and {series.of(f'{BAD}{long}', chosen)} >= {MIN_BAD_EVENTS})"
        )

    budget = f"{1 - objective.target:.6g}"
    window = duration(objective.window_s)
    return Alert(
        name=kind.name,
        severity=kind.severity,
        expr=" or ".join(condition(burn) for burn in burns),
        for_="",
        summary=f"{series.service}: the promise {objective.name} is broken too often",
        description=(
            f"The budget burns {{{{ $value | humanize }}}} times as fast as allowed (over "
            f"{_over(burns)}): {_promise(objective)}, so {float(budget) * 100:.6g} % of events may "
            f"be bad. At 1 the budget lasts for all of its {window}, at 10 for a tenth."
        ),
        # The series have it too; but rules must differ by what they say themselves.
        labels=(("slo", objective.name),),
    )


def _over(burns: Sequence[Burn]) -> str:
    longs = " or ".join(duration(burn.long_s) for burn in burns)
    return longs if len(burns) == 1 else f"{longs}, whichever calls first"


def _promise(objective: Objective) -> str:
    share = f"{objective.target * 100:.6g} %"
    if objective.threshold_s is None:
        return f"{share} of requests are to be answered ({objective.indicator})"
    return f"{share} are to be within {objective.threshold_s:g} s ({objective.indicator})"
