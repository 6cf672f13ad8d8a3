"""Alerts about processes: are there enough, do they find each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from redserve.observability.alerts import (
    DISCOVERY_STALE,
    POOL_BELOW_MINIMUM,
    POOL_EMPTY,
    ROUTER_WITHOUT_REPLICA,
    TARGET_DOWN,
    Alert,
)
from redserve.observability.series import OF_PROCESS, OF_SERVICE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from redserve.observability.series import Series
    from redserve.spec.service import RedServiceSpec

# `pool` is the router's own, which whoever scrapes it adds.
_POOL_SEEN = "replica_pool"
_SERVING = "redserve_replica_serving"
_EVERY_ROUTER = "redserve_inflight_requests"


def pool_alerts(series: Series, spec: RedServiceSpec) -> Iterator[Alert]:
    """Alerts of pools that are meant to have replicas."""
    yield _target_down(series)
    for pool, wanted in (("encoder", spec.encoder), ("llm", spec.llm)):
        if wanted.num_replicas > 0:
            seen = _seen(series, pool)
            yield _empty(series, pool, f"{seen} == 0")
            yield from _below(series, pool, seen, wanted.num_replicas)
            yield _router_without(series, pool)
    if spec.router.num_replicas > 0:
        up = _routers_up(series)
        yield _empty(series, "router", f"{up} == 0")
        yield from _below(series, "router", up, spec.router.num_replicas)
    yield _discovery_stale(series)


def _seen(series: Series, pool: str) -> str:
    """Serving replicas, as the router sees them that sees most; 0 if routers see none.

    Routers see their own revision only, so during a rollout the fuller revision counts.
    """
    serving = series.of(_SERVING, f'{_POOL_SEEN}="{pool}"')
    counted = f"sum by ({OF_PROCESS}) ({serving})"
    nothing = f"0 * {series.of(_EVERY_ROUTER)}"
    return f"(max by ({OF_SERVICE}) ({counted}) or max by ({OF_SERVICE}) ({nothing}))"


def _routers_up(series: Series) -> str:
    """Routers that answer Prometheus; 0 if there is none and something else of the service is."""
    routers = series.of("up", 'pool="router"')
    nothing = f"0 * {series.of('up')}"
    return f"(sum by ({OF_SERVICE}) ({routers}) or max by ({OF_SERVICE}) ({nothing}))"


def _empty(series: Series, pool: str, expr: str) -> Alert:
    return Alert(
        name=POOL_EMPTY,
        severity="page",
        expr=expr,
        for_="1m",
        summary=f"{series.service}: nobody serves in the pool {pool}",
        description=f"No replica of the pool {pool} takes work: requests that need one fail.",
        labels=(("pool", pool),),
    )


def _below(series: Series, pool: str, serving: str, num_wanted: int) -> Iterator[Alert]:
    if num_wanted < 2:
        return  # less than one is none, for which there is another alert
    yield Alert(
        name=POOL_BELOW_MINIMUM,
        severity="ticket",
        expr=f"({serving} > 0) < {num_wanted}",
        for_="10m",
        summary=f"{series.service}: the pool {pool} is smaller than it is meant to be",
        description=(
            f"{{{{ $value }}}} replica(s) of the pool {pool} take work, and the manifest asks for "
            f"{num_wanted}. Requests are served, with less room for load and for the next failure."
        ),
        labels=(("pool", pool),),
    )


def _router_without(series: Series, pool: str) -> Alert:
    serving = series.of(_SERVING, f'{_POOL_SEEN}="{pool}"')
    return Alert(
        name=ROUTER_WITHOUT_REPLICA,
        severity="ticket",
        expr=(
            f"{series.of(_EVERY_ROUTER)} unless on ({OF_PROCESS}) "
            f"(sum by ({OF_PROCESS}) ({serving}) > 0)"
        ),
        # New engines may load weights for this long; routers of their revision wait for them.
        for_="30m",
        summary=f"{series.service}: a router sees no {pool} of its revision",
        description=(
            "The router {{ $labels.instance }} (revision {{ $labels.revision }}) has nobody in "
            f"the pool {pool} to send work to. Routers pair replicas of their own revision only."
        ),
        labels=(("missing", pool),),
    )


def _discovery_stale(series: Series) -> Alert:
    return Alert(
        name=DISCOVERY_STALE,
        severity="ticket",
        expr=f"{series.of('redserve_discovery_synced')} == 0",
        for_="10m",
        summary=f"{series.service}: a router does not follow the API server",
        description=(
            "The router {{ $labels.instance }} goes on with the replicas that it knows and hears "
            "of no new ones. `redserve_discovery_problems_total` has the kind of failure."
        ),
    )


def _target_down(series: Series) -> Alert:
    up = series.of("up")
    return Alert(
        name=TARGET_DOWN,
        severity="ticket",
        expr=f"{up} == 0 or absent({up})",
        for_="10m",
        summary=f"{series.service}: metrics cannot be read",
        description=(
            "Prometheus does not get the metrics of {{ $labels.instance }} (without a name: of "
            "any process). What other alerts would say of it is not known."
        ),
    )
