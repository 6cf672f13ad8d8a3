"""The Kubernetes operator's metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import Counter, Gauge, Histogram

from redserve.telemetry.metrics.buckets import SHORT_BUCKETS
from redserve.telemetry.words import RECONCILE_RESULTS, begin_at_zero

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry


class OperatorMetrics:
    """What the Kubernetes operator does, and how long the API server takes."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.reconcile = Counter(
            "redserve_operator_reconcile",
            "Looks at a service, by result: unchanged, acted, refused, failed or gone", ["result"],
            registry=registry,
        )  # fmt: skip
        self.reconcile_duration = Histogram(
            "redserve_operator_reconcile_duration_seconds",
            "One look at a service, writes included",
            buckets=SHORT_BUCKETS, registry=registry,
        )  # fmt: skip
        self.queue_depth = Gauge(
            "redserve_operator_queue_depth", "Services that wait for a worker", registry=registry
        )
        self.queue_oldest = Gauge(
            "redserve_operator_queue_oldest_seconds",
            "Time since the service that waits or is worked on the longest was due",
            registry=registry,
        )  # fmt: skip
        self.api_request = Histogram(
            "redserve_operator_api_request_duration_seconds",
            "One call of the API server, by HTTP status; none without an answer", ["verb", "code"],
            buckets=SHORT_BUCKETS, registry=registry,
        )  # fmt: skip
        self.applies = Counter(
            "redserve_operator_applies", "Objects written, by why", ["kind", "why"],
            registry=registry,
        )  # fmt: skip
        self.amended = Counter(
            "redserve_operator_amended",
            "Objects that came back from a write other than they were sent", ["kind"],
            registry=registry,
        )  # fmt: skip
        self.deletes = Counter(
            "redserve_operator_deletes", "Objects deleted", ["kind"], registry=registry
        )
        self.events = Counter(
            "redserve_operator_events", "Kubernetes Events told", ["reason"], registry=registry
        )
        self.objects = Gauge(
            "redserve_operator_objects", "Objects in the cache", ["kind"], registry=registry
        )
        self.watch_lag = Gauge(
            "redserve_operator_watch_lag_objects",
            "Objects that the watch has not told of although the API server lists them", ["kind"],
            registry=registry,
        )  # fmt: skip
        self.unlisted = Gauge(
            "redserve_operator_unlisted_namespaces",
            "Watched namespaces, or 1 for all of them, where the last audit could not list a kind",
            ["kind"], registry=registry,
        )  # fmt: skip
        self.namespaces_aside = Gauge(
            "redserve_operator_namespaces_aside",
            "Named namespaces that are not watched because they cannot be read",
            registry=registry,
        )  # fmt: skip
        self.pool_replicas = Gauge(
            "redserve_operator_pool_replicas",
            "Replicas of the pools of services: desired, ready, or updated to the newest revision",
            ["service_namespace", "service", "service_pool", "state"], registry=registry,
        )  # fmt: skip
        self.leader = Gauge(
            "redserve_operator_leader", "Whether this process writes, 1 or 0", registry=registry
        )
        begin_at_zero(self.reconcile, RECONCILE_RESULTS)
