"""The router's metrics: what users feel."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import Counter, Gauge, Histogram

from redserve.telemetry.first_token import PARTS
from redserve.telemetry.metrics.buckets import DURATION_BUCKETS, RATIO_BUCKETS, SHORT_BUCKETS
from redserve.telemetry.words import CODES, ITEM_OUTCOMES, RETRIES, begin_at_zero

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry


class RouterMetrics:
    """What users feel, and what the router does about it."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests = Counter(
            "redserve_requests", "Requests that ended, by canonical gRPC code", ["code"],
            registry=registry,
        )  # fmt: skip
        self.ttft = Histogram(
            "redserve_time_to_first_token_seconds", "Arrival of a request to its first token",
            buckets=DURATION_BUCKETS, registry=registry,
        )  # fmt: skip
        self.tpot = Histogram(
            "redserve_time_per_output_token_seconds",
            "Mean time between output tokens of a request, the first one left out",
            buckets=SHORT_BUCKETS, registry=registry,
        )  # fmt: skip
        self.duration = Histogram(
            "redserve_request_duration_seconds",
            "Arrival of a request to its end, of complete answers only",
            buckets=DURATION_BUCKETS, registry=registry,
        )  # fmt: skip
        self.queue_requests = Gauge(
            "redserve_queue_requests",
            "Requests that no engine has begun to compute: they are being prepared, wait for the "
            "first embedding, or for their turn at the router or at an engine", registry=registry,
        )  # fmt: skip
        self.queue_oldest = Gauge(
            "redserve_queue_oldest_seconds",
            "Age of the request that has waited the longest for its first step; 0 if none waits",
            registry=registry,
        )  # fmt: skip
        self.queue = Histogram(
            "redserve_queue_seconds", "Arrival of a request until its first step at an engine",
            buckets=DURATION_BUCKETS, registry=registry,
        )  # fmt: skip
        self.overlap_ratio = Histogram(
            "redserve_overlap_ratio",
            "Share of encode time hidden behind prefill, per request; unless an engine was lost",
            buckets=RATIO_BUCKETS, registry=registry,
        )  # fmt: skip
        self.transport_item = Histogram(
            "redserve_transport_item_seconds",
            "Moving one embedding, all attempts; exposed while its request only waits, or hidden",
            ["part"], buckets=SHORT_BUCKETS, registry=registry,
        )  # fmt: skip
        self.first_token_part = Histogram(
            "redserve_time_to_first_token_part_seconds",
            "What a request did until its first token, by part; the parts of a request add up",
            ["part"], buckets=DURATION_BUCKETS, registry=registry,
        )  # fmt: skip
        self.inflight = Gauge(
            "redserve_inflight_requests", "Requests being served", registry=registry
        )
        self.items = Counter(
            "redserve_items",
            "Images of requests that ended, by outcome: encoded, encoder_cached, prefix_covered; "
            "failed is an image that was given up, or was on its way when its request ended in an "
            "error, but not when the client left", ["outcome"], registry=registry,
        )  # fmt: skip
        self.item_retries = Counter(
            "redserve_item_retries", "Images dispatched again, by why", ["why"], registry=registry
        )
        self.prompt_tokens = Counter(
            "redserve_prompt_tokens", "Prompt tokens, image rows included", registry=registry
        )
        self.output_tokens = Counter(
            "redserve_output_tokens", "Tokens sent to clients", registry=registry
        )
        self.preprocess = Histogram(
            "redserve_preprocess_seconds",
            "From receipt to a known prompt: images, waiting for pools, sizes, tokens; per request",
            buckets=DURATION_BUCKETS, registry=registry,
        )  # fmt: skip
        self.replica_serving = Gauge(
            "redserve_replica_serving", "Whether a replica takes new work, 1 or 0",
            ["replica_pool", "address"], registry=registry,
        )  # fmt: skip
        self.model_info = Gauge(
            "redserve_model_info", "1 for the model that is served, by its served name", ["model"],
            registry=registry,
        )  # fmt: skip
        self.slo_events = Counter(
            "redserve_slo_events",
            "Events that kept (good) or broke (bad) a promise of the manifest",
            ["slo", "outcome"], registry=registry,
        )  # fmt: skip
        self.slo_objective = Gauge(
            "redserve_slo_objective_ratio", "Promised share of good events", ["slo"],
            registry=registry,
        )  # fmt: skip
        self.slo_threshold = Gauge(
            "redserve_slo_threshold_seconds", "An event at or below it is good; latencies only",
            ["slo"], registry=registry,
        )  # fmt: skip
        begin_at_zero(self.first_token_part, PARTS)
        begin_at_zero(self.transport_item, ("exposed", "hidden"))
        begin_at_zero(self.requests, CODES)
        begin_at_zero(self.items, ITEM_OUTCOMES)
        begin_at_zero(self.item_retries, RETRIES)
