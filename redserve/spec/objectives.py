"""From `spec.slos` to the numbers that events are judged by."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Final

from redserve.slo import Objective
from redserve.slo.objective import DEFAULT_FAIR_DEADLINE_S

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redserve.spec.observe import ServiceLevelObjective

SECONDS_PER_DAY: Final = 86_400.0
SECONDS_PER_MINUTE: Final = 60.0
_OF_A_REQUEST: Final = ("TimeToFirstToken", "RequestLatency")


def objectives_of(slos: Sequence[ServiceLevelObjective]) -> tuple[Objective, ...]:
    """The promises of a manifest, in its order.

    The shortest threshold that a whole request must keep is what its client must at least grant
    before a passed deadline counts against availability; a second if there is none.
    """
    fair_deadline_s = min(
        (_threshold_s(slo) or 0.0 for slo in slos if slo.indicator in _OF_A_REQUEST),
        default=DEFAULT_FAIR_DEADLINE_S,
    )
    return tuple(
        Objective(
            name=slo.name,
            indicator=slo.indicator,
            threshold_s=_threshold_s(slo),
            # 99.9 / 100 is not 0.999 in binary.
            target=float(Decimal(slo.objective_percent) / 100),
            window_s=_window_s(slo),
            fair_deadline_s=fair_deadline_s,
        )
        for slo in slos
    )


def _window_s(slo: ServiceLevelObjective) -> float:
    if slo.window_minutes is not None:
        return slo.window_minutes * SECONDS_PER_MINUTE
    return slo.window_days * SECONDS_PER_DAY


def _threshold_s(slo: ServiceLevelObjective) -> float | None:
    """None for Availability, which has none."""
    if slo.threshold_milliseconds is None:
        return None
    return slo.threshold_milliseconds / 1000
