"""How long a rollout may stand still before it is called stuck."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from redserve.cluster.names import POOLS
from redserve.cluster.probes import progress_limit_s
from redserve.cluster.scope import pool_spec
from redserve_operator.decide.accept import template_of

if TYPE_CHECKING:
    from redserve.cluster.facts import Rendered
    from redserve.spec.service import RedService


def patience(service: RedService, rendered: Rendered) -> timedelta:
    """The longest start that the pools' probes allow, after the longest drain."""
    start_s = max(progress_limit_s(template_of(pool.workload)) for pool in rendered.pools)
    drain_s = max(pool_spec(service, pool).rollout.drain_timeout_seconds for pool in POOLS)
    return timedelta(seconds=start_s + drain_s)
