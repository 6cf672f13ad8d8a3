"""How this router does, for people who watch: the terminal and the page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from redserve.slo import WINDOWS_S
from redserve.wire.overview import Latency, Overview, SloStatus, WindowTally
from redserve.wire.replicas import ReplicaStatus

if TYPE_CHECKING:
    from redserve.slo import Percentiles, Standing
    from redserve_router.dispatch.dispatcher import Dispatcher
    from redserve_router.dispatch.services import RouterServices


def overview(dispatcher: Dispatcher, services: RouterServices) -> Overview:
    """Everything as it is now; a few milliseconds of work at most."""
    traffic = services.ledger.traffic()
    return Overview(
        model=services.model_name,
        uptime_s=services.ledger.uptime_s,
        slos=tuple(_slo(standing) for standing in services.ledger.standings()),
        requests_per_s=traffic.requests_per_s,
        failures_per_s=traffic.failures_per_s,
        output_tokens_per_s=traffic.output_tokens_per_s,
        time_to_first_token=_latency(traffic.ttft),
        time_per_output_token=_latency(traffic.tpot),
        request_duration=_latency(traffic.duration),
        num_inflight=dispatcher.num_inflight,
        num_queued=dispatcher.num_queued,
        replicas=tuple(
            ReplicaStatus(one.pool, one.address, one.serving, one.transport, one.load)
            for one in services.pools.report()
        ),
    )


def _slo(standing: Standing) -> SloStatus:
    objective = standing.objective
    recent = zip(WINDOWS_S, standing.recent, strict=True)
    return SloStatus(
        name=objective.name,
        indicator=objective.indicator,
        threshold_s=objective.threshold_s,
        target=objective.target,
        window_s=objective.window_s,
        tallies=(
            *(WindowTally(window_s, tally.good, tally.bad) for window_s, tally in recent),
            WindowTally(0.0, standing.since_start.good, standing.since_start.bad),
        ),
        attainment=standing.attainment,
        budget_left=standing.budget_left,
    )


def _latency(found: Percentiles) -> Latency:
    return Latency(found.p50, found.p95, found.p99, found.count)
