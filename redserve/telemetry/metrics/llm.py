"""An LLM replica's metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import Counter, Gauge, Histogram

from redserve.telemetry.metrics.buckets import (
    COUNT_BUCKETS,
    DURATION_BUCKETS,
    SHORT_BUCKETS,
    TOKEN_BUCKETS,
)
from redserve.telemetry.words import DROPS, REASONS, begin_at_zero

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry


class LLMMetrics:
    """What an LLM replica does."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.prefill = Histogram(
            "redserve_prefill_seconds", "First chunk of a prompt to its last, per request",
            buckets=DURATION_BUCKETS, registry=registry,
        )  # fmt: skip
        self.decode = Histogram(
            "redserve_decode_seconds", "First output token to the last, per request",
            buckets=DURATION_BUCKETS, registry=registry,
        )  # fmt: skip
        self.queue_wait = Histogram(
            "redserve_queue_wait_seconds", "Arrival at the engine to the first chunk, per request",
            buckets=SHORT_BUCKETS, registry=registry,
        )  # fmt: skip
        self.step = Histogram(
            "redserve_step_seconds", "Computing one micro-batch",
            buckets=SHORT_BUCKETS, registry=registry,
        )  # fmt: skip
        self.batch_tokens = Histogram(
            "redserve_batch_tokens", "Tokens of one micro-batch",
            buckets=TOKEN_BUCKETS, registry=registry,
        )  # fmt: skip
        self.batch_sequences = Histogram(
            "redserve_batch_sequences", "Sequences of one micro-batch",
            buckets=COUNT_BUCKETS, registry=registry,
        )  # fmt: skip
        self.ready_tokens = Gauge(
            "redserve_ready_tokens", "Prompt tokens whose inputs are there", registry=registry
        )
        self.schedulable_tokens = Gauge(
            "redserve_schedulable_tokens", "Tokens that could be computed now", registry=registry
        )
        self.sequences = Gauge(
            "redserve_sequences", "Sequences by phase", ["phase"], registry=registry
        )
        self.kv_blocks = Gauge(
            "redserve_kv_blocks", "KV blocks by state: used, cached or free", ["state"],
            registry=registry,
        )  # fmt: skip
        self.kv_cache_utilization = Gauge(
            "redserve_kv_cache_utilization_ratio", "Share of KV blocks that sequences hold",
            registry=registry,
        )  # fmt: skip
        self.preemptions = Counter(
            "redserve_preemptions", "Sequences that lost their blocks to others",
            registry=registry,
        )  # fmt: skip
        self.starved_steps = Counter(
            "redserve_kv_starved_steps",
            "Micro-batches that left a sequence out, or took its blocks, for want of KV blocks",
            registry=registry,
        )  # fmt: skip
        self.prefix_cache_query_tokens = Counter(
            "redserve_prefix_cache_query_tokens", "Prompt tokens looked up in the prefix cache",
            registry=registry,
        )  # fmt: skip
        self.prefix_cache_hit_tokens = Counter(
            "redserve_prefix_cache_hit_tokens", "Prompt tokens found in the prefix cache",
            registry=registry,
        )  # fmt: skip
        self.generated_tokens = Counter(
            "redserve_generated_tokens", "Tokens sampled", registry=registry
        )
        self.arena_bytes = Gauge(
            "redserve_arena_bytes", "Embeddings that landed or are landing", registry=registry
        )
        self.items_dropped = Counter(
            "redserve_items_dropped", "Embeddings thrown away, by why", ["why"], registry=registry
        )
        self.transport_check = Gauge(
            "redserve_transport_check_gigabytes_per_second",
            "Speed of the last probe read from an encoder, 10^9 bytes per second", ["peer"],
            registry=registry,
        )  # fmt: skip
        self.transport_check_failures = Counter(
            "redserve_transport_check_failures",
            "Probes that could not be read from an encoder, by reason word", ["reason"],
            registry=registry,
        )  # fmt: skip
        begin_at_zero(self.items_dropped, DROPS)
        begin_at_zero(self.transport_check_failures, REASONS)
