"""Every Prometheus metric of the system, one class per service.

A class registers on the registry that it is given, so that a test or an all-in-one process can
hold several. Names are `redserve_*` in base units (seconds, bytes); labels never hold request ids.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from redserve.errors import ConfigError
from redserve.telemetry.first_token import PARTS
from redserve.telemetry.words import (
    CODES,
    DISCOVERY_PROBLEMS,
    DROPS,
    ENCODE_ERRORS,
    ITEM_OUTCOMES,
    REASONS,
    RECONCILE_RESULTS,
    RETRIES,
    begin_at_zero,
)

if TYPE_CHECKING:
    from collections.abc import Callable

DURATION_BUCKETS: Final = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
    20.0, 40.0, 80.0,
)  # fmt: skip
"""Seconds: fine where time to first token lives, coarse up to slow CPU answers."""
SHORT_BUCKETS: Final = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0,
)  # fmt: skip
"""Seconds: steps, transfers and queues."""
TOKEN_BUCKETS: Final = tuple(float(2**power) for power in range(17))
"""1 to 65536 tokens or rows."""
COUNT_BUCKETS: Final = tuple(float(2**power) for power in range(9))
"""1 to 256 sequences or images."""
RATIO_BUCKETS: Final = tuple(tenth / 10 for tenth in range(11))
"""0 to 1."""


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
            "redserve_queue_requests", "Requests that wait at the router", registry=registry
        )
        self.queue_oldest = Gauge(
            "redserve_queue_oldest_seconds",
            "Age of the request that has waited at the router the longest; 0 if none waits",
            registry=registry,
        )  # fmt: skip
        self.queue = Histogram(
            "redserve_queue_seconds", "Time that a request waited at the router",
            buckets=SHORT_BUCKETS, registry=registry,
        )  # fmt: skip
        self.overlap_ratio = Histogram(
            "redserve_overlap_ratio", "Share of encode time hidden behind prefill, per request",
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
            "redserve_transport_info", "1 for the data path in use", ["transport"],
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


class TracingMetrics:
    """What becomes of spans; without a receiver there are none."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.spans_lost = Counter(
            "redserve_spans_lost",
            "Spans that were not sent: the receiver was away, or slower than they came",
            registry=registry,
        )  # fmt: skip


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


def serve_metrics(
    registry: CollectorRegistry, host: str, port: int
) -> tuple[int, Callable[[], None]]:
    """Serve `/metrics` over HTTP in a daemon thread.

    Args:
        registry: What to show.
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one.

    Returns:
        The bound port, and a function that stops the server and waits for its thread.

    Raises:
        ConfigError: The address cannot be bound.
    """
    try:
        server, thread = start_http_server(port, addr=host, registry=registry)
    except OSError as error:
        raise ConfigError(
            f"cannot serve metrics on {host}:{port}: {error.strerror or error}; "
            "choose a free port, or 0 to take any",
            field="metrics_port",
        ) from error

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return server.server_port, stop
