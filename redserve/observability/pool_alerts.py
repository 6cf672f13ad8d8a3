"""Alerts about processes: are there enough, do they find each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

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

START_LIMIT_MIN: Final = 30
"""Minutes that a process may read weights before it serves and can be scraped, as long as a
cluster lets it (`redserve.cluster.probes`)."""
TARGET_DOWN_MIN: Final = 10
"""Minutes without metrics of what had some."""
_MOSTLY: Final = "10m:1m"
"""A process that ends and comes back, again and again, is there at some moments of each window."""
_LATELY: Final = "1h"
# A pool that has been empty (or too small) for so long and half an hour more begins to be one that
# did not serve (had not its number) a little before it ends to be one that did, so that no moment
# of a long outage is silent.
_NOT_LATELY: Final = "25m"


def pool_alerts(series: Series, spec: RedServiceSpec) -> Iterator[Alert]:
    """Alerts of pools that are meant to have replicas."""
    yield _target_down(series)
    yield _no_target(series)
    for pool, wanted in (("encoder", spec.encoder), ("llm", spec.llm)):
        if wanted.num_replicas > 0:
            seen = _seen(series, pool)
            serving = series.of(_SERVING, f'{_POOL_SEEN}="{pool}"')
            yield from _empty(series, pool, f"{seen} == 0", serving)
            yield from _below(series, pool, seen, wanted.num_replicas)
            yield _router_without(series, pool)
    if spec.router.num_replicas > 0:
        up = _routers_up(series)
        yield from _empty(series, "router", f"{up} == 0", series.of("up", 'pool="router"'))
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


def _empty(series: Series, pool: str, empty: str, serving: str) -> Iterator[Alert]:
    """At once where somebody served, after the longest start where nobody did.

    A service that is new, or was made larger than nothing, loads weights first. `empty` is there
    while nobody serves; of the series `serving` one was above 0 if somebody did.
    """

    def served(window: str) -> str:
        return f"max by ({OF_SERVICE}) (max_over_time({serving}[{window}])) > 0"

    unseen = (
        "In a cluster clients are then refused before a router sees them, so promises (spec.slos) "
        "count nothing of it."
    )
    yield Alert(
        name=POOL_EMPTY,
        severity="page",
        expr=f"{empty} and on ({OF_SERVICE}) ({served(_LATELY)})",
        for_="1m",
        summary=f"{series.service}: nobody serves in the pool {pool} any more",
        description=(
            f"No replica of the pool {pool} takes work, and within the last hour one did: requests "
            f"that need one fail. {unseen}"
        ),
        labels=(("pool", pool), ("lately", "served")),
    )
    yield Alert(
        name=POOL_EMPTY,
        severity="page",
        expr=f"{empty} unless on ({OF_SERVICE}) ({served(_NOT_LATELY)})",
        for_=f"{START_LIMIT_MIN}m",
        summary=f"{series.service}: nobody serves in the pool {pool}",
        description=(
            f"No replica of the pool {pool} has taken work for {START_LIMIT_MIN} minutes, which is "
            f"as long as loading weights may take: requests that need one fail. {unseen}"
        ),
        labels=(("pool", pool), ("lately", "empty")),
    )


def _below(series: Series, pool: str, serving: str, num_wanted: int) -> Iterator[Alert]:
    """Soon where the pool had its number, after the longest start where it had not.

    A pool that is new, or is meant to be larger than it was, loads weights first.
    """
    if num_wanted < 2:
        return  # less than one is none, for which there is another alert
    # The median: half of the window decides. It may lie between two numbers of replicas, and
    # between none and one is no reason to be silent.
    below = f"floor(quantile_over_time(0.5, {serving}[{_MOSTLY}]) > 0) < {num_wanted}"

    def had_its_number(window: str) -> str:
        return f"max_over_time({serving}[{window}:1m]) >= {num_wanted}"

    what_now = "Requests are served, with less room for load and for the next failure."
    yield Alert(
        name=POOL_BELOW_MINIMUM,
        severity="ticket",
        expr=f"{below} and {had_its_number(_LATELY)}",
        for_="10m",
        summary=f"{series.service}: the pool {pool} is smaller than it is meant to be",
        description=(
            f"{{{{ $value }}}} replica(s) of the pool {pool} take work most of the time, and the "
            f"manifest asks for {num_wanted}, which it had within the last hour. {what_now}"
        ),
        labels=(("pool", pool), ("lately", "full")),
    )
    yield Alert(
        name=POOL_BELOW_MINIMUM,
        severity="ticket",
        expr=f"{below} unless {had_its_number(_NOT_LATELY)}",
        for_=f"{START_LIMIT_MIN}m",
        summary=f"{series.service}: the pool {pool} stays smaller than it is meant to be",
        description=(
            f"{{{{ $value }}}} replica(s) of the pool {pool} take work most of the time, and the "
            f"manifest asks for {num_wanted}. It has not had them for {START_LIMIT_MIN} minutes, "
            f"which is as long as loading weights may take. {what_now}"
        ),
        labels=(("pool", pool), ("lately", "below")),
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
        # Routers of a revision wait for its engines.
        for_=f"{START_LIMIT_MIN}m",
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
    # Encoders and engines open their metrics when the weights are there.
    loading = f"{START_LIMIT_MIN - TARGET_DOWN_MIN}m"
    return Alert(
        name=TARGET_DOWN,
        severity="ticket",
        expr=f"{up} == 0 and (max_over_time({up}[{loading}]) > 0 or {up} offset {loading})",
        for_=f"{TARGET_DOWN_MIN}m",
        summary=f"{series.service}: metrics cannot be read",
        description=(
            "Prometheus does not get the metrics of {{ $labels.instance }}: no longer, or still "
            f"not after {START_LIMIT_MIN} minutes. What other alerts would say of it is not known."
        ),
    )


def _no_target(series: Series) -> Alert:
    return Alert(
        name=TARGET_DOWN,
        severity="ticket",
        expr=f"absent({series.of('up')})",
        for_=f"{START_LIMIT_MIN}m",
        summary=f"{series.service}: Prometheus knows no process of it",
        description=(
            "Prometheus has no target of the service. What other alerts would say is not known."
        ),
        labels=(("target", "none"),),
    )
