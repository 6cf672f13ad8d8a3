"""Metrics of tracing itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import Counter

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry


class TracingMetrics:
    """What becomes of spans; without a receiver there are none."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.spans_lost = Counter(
            "redserve_spans_lost",
            "Spans that were not sent: the receiver was away, or slower than they came",
            registry=registry,
        )  # fmt: skip
