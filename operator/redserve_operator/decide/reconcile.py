"""The decision about one RedService, whole: what is seen goes in, what to do comes out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from redserve_operator.decide.plan import Plan

if TYPE_CHECKING:
    from datetime import datetime

    from redserve.cluster.facts import Context
    from redserve_operator.decide.observed import Observed


def reconcile(context: Context, observed: Observed, now: datetime) -> Plan:
    """What to do about a service now.

    Args:
        context: What rendering depends on beside the manifest. `namespace`, `owner` and
            `model_revision` are taken from `observed.resource`, whatever they say.
        observed: What is seen; the manifest is `observed.resource`.
        now: An aware time.
    """
    raise NotImplementedError
