"""An encoder replica's metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import Counter, Gauge, Histogram

from redserve.telemetry.metrics.buckets import (
    COUNT_BUCKETS,
    DURATION_BUCKETS,
    SHORT_BUCKETS,
    TOKEN_BUCKETS,
)
from redserve.telemetry.words import ENCODE_ERRORS, begin_at_zero

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry


class EncoderMetrics:
    """What an encoder replica does."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.encode = Histogram(
            "redserve_encode_duration_seconds", "Computing one encoder batch",
            buckets=DURATION_BUCKETS, registry=registry,
        )  # fmt: skip
        self.queue = Histogram(
            "redserve_encode_queue_seconds", "Time that an image waited for its batch",
            buckets=SHORT_BUCKETS, registry=registry,
        )  # fmt: skip
        self.queue_oldest = Gauge(
            "redserve_encode_queue_oldest_seconds",
            "Age of the image that has waited for its batch the longest; 0 if none waits",
            registry=registry,
        )  # fmt: skip
        self.preprocess = Histogram(
            "redserve_encode_preprocess_seconds", "Decoding and resizing one image",
            buckets=SHORT_BUCKETS, registry=registry,
        )  # fmt: skip
        self.images = Counter("redserve_encode_images", "Images encoded", registry=registry)
        self.batch_images = Histogram(
            "redserve_encode_batch_images", "Images of one encoder batch",
            buckets=COUNT_BUCKETS, registry=registry,
        )  # fmt: skip
        self.batch_rows = Histogram(
            "redserve_encode_batch_rows", "Embedding rows of one encoder batch",
            buckets=TOKEN_BUCKETS, registry=registry,
        )  # fmt: skip
        self.cache_hits = Counter(
            "redserve_encoder_cache_hits", "Images answered from the embedding cache",
            registry=registry,
        )  # fmt: skip
        self.cache_misses = Counter(
            "redserve_encoder_cache_misses", "Images not found in the embedding cache",
            registry=registry,
        )  # fmt: skip
        self.cache_evictions = Counter(
            "redserve_encoder_cache_evictions", "Embeddings dropped from the cache to make room",
            registry=registry,
        )  # fmt: skip
        self.cache_returns = Counter(
            "redserve_encoder_cache_returns",
            "Images asked for again after their embedding was dropped from the cache to make room",
            registry=registry,
        )  # fmt: skip
        self.cache_bytes = Gauge(
            "redserve_encoder_cache_bytes", "Embeddings held or cached", registry=registry
        )
        self.joined = Counter(
            "redserve_encoder_joined", "Images that joined the same image already being encoded",
            registry=registry,
        )  # fmt: skip
        self.queued_rows = Gauge(
            "redserve_encode_queued_rows", "Embedding rows that wait to be encoded",
            registry=registry,
        )  # fmt: skip
        self.errors = Counter(
            "redserve_encode_errors", "Images that failed, by reason word", ["reason"],
            registry=registry,
        )  # fmt: skip
        begin_at_zero(self.errors, ENCODE_ERRORS)
