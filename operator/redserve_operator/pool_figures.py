"""Sizes of all pools, as the last status of each service has them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prometheus_client import Gauge

    from redserve.cluster.facts import Manifest

STATES: Final = ("desired", "ready", "updated")
"""Fields of an entry of `status.pools`."""


def tell_pools(gauge: Gauge, services: Iterable[Manifest]) -> None:
    """Set the gauge to what is known of these services, and forget all others.

    Args:
        gauge: With the labels service_namespace, service, service_pool and state.
        services: All RedServices.
    """
    gauge.clear()
    for service in services:
        metadata = service["metadata"]
        for pool in (service.get("status") or {}).get("pools") or ():
            own = (metadata["namespace"], metadata["name"], pool["name"])
            for state in STATES:
                gauge.labels(*own, state).set(pool.get(state, 0))
