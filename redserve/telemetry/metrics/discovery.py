"""Metrics of a router that follows a cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import Counter, Gauge

from redserve.telemetry.words import DISCOVERY_PROBLEMS, begin_at_zero

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry


class DiscoveryMetrics:
    """What a router in a cluster hears of its replicas."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.synced = Gauge(
            "redserve_discovery_synced",
            "Whether the router follows the API server, 1 or 0; if not, the replicas known stay",
            registry=registry,
        )  # fmt: skip
        self.last_sync = Gauge(
            "redserve_discovery_last_sync_timestamp_seconds",
            "When the API server was last heard, Unix time; 0 before", registry=registry,
        )  # fmt: skip
        self.problems = Counter(
            "redserve_discovery_problems",
            "Failed tries to follow the API server, by kind: unreachable, credentials, "
            "unauthorized, forbidden, refused or expired", ["kind"], registry=registry,
        )  # fmt: skip
        begin_at_zero(self.problems, DISCOVERY_PROBLEMS)
