"""Metrics of the data path, in every process that moves tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import Counter, Gauge, Histogram

from redserve.telemetry.metrics.buckets import SHORT_BUCKETS
from redserve.telemetry.words import REASONS, begin_at_zero

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry


class TransportMetrics:
    """What moves between processes, and how."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.moved_bytes = Counter(
            "redserve_transport_bytes", "Tensor bytes moved; direction is in or out",
            ["transport", "direction"], registry=registry,
        )  # fmt: skip
        self.pull = Histogram(
            "redserve_transport_pull_seconds", "One tensor, from lease to checked bytes",
            ["transport"], buckets=SHORT_BUCKETS, registry=registry,
        )  # fmt: skip
        self.errors = Counter(
            "redserve_transport_errors", "Pulls that failed, by reason word",
            ["transport", "reason"], registry=registry,
        )  # fmt: skip
        self.info = Gauge(
            "redserve_transport_info", "1 for the best data path of the process", ["transport"],
            registry=registry,
        )  # fmt: skip
        self.fallbacks = Counter(
            "redserve_transport_fallbacks",
            "Tensors pulled by gRPC from a peer that offers RDMA too but was not reached by it",
            registry=registry,
        )  # fmt: skip
        self.pool_bytes = Gauge(
            "redserve_transport_pool_bytes",
            "Bytes of the tensor pool by state: used, free, or of used those that are quarantined",
            ["state"], registry=registry,
        )  # fmt: skip
        self.read_server_restarts = Counter(
            "redserve_transport_read_server_restarts",
            "Times that the process that others read from over TCP ended and was started again",
            registry=registry,
        )  # fmt: skip

    def begin_pulls(self, *transports: str) -> None:
        """A consumer may pull by these: the series of what may happen are there from now on."""
        begin_at_zero(self.moved_bytes, transports, ("in",))
        begin_at_zero(self.pull, transports)
        begin_at_zero(self.errors, transports, REASONS)
