from __future__ import annotations

import urllib.error
import urllib.request
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from redserve.errors import ConfigError
from redserve.telemetry.metrics.discovery import DiscoveryMetrics
from redserve.telemetry.metrics.encoder import EncoderMetrics
from redserve.telemetry.metrics.endpoint import serve_metrics
from redserve.telemetry.metrics.llm import LLMMetrics
from redserve.telemetry.metrics.operator import OperatorMetrics
from redserve.telemetry.metrics.router import RouterMetrics
from redserve.telemetry.metrics.tracing import TracingMetrics
from redserve.telemetry.metrics.transport import TransportMetrics

KINDS = (RouterMetrics, EncoderMetrics, LLMMetrics, TracingMetrics, TransportMetrics)
UNITLESS_GAUGES = {
    "redserve_queue_requests",
    "redserve_inflight_requests",
    "redserve_replica_serving",
    "redserve_model_info",
    "redserve_encode_queued_rows",
    "redserve_ready_tokens",
    "redserve_schedulable_tokens",
    "redserve_sequences",
    "redserve_kv_blocks",
    "redserve_transport_info",
}


LABELS = {
    # Words of ours: a fixed few.
    "code", "direction", "kind", "outcome", "part", "phase", "reason", "result", "state",
    "transport", "verb", "why",
    # What the manifests of a cluster name, and replicas of a service.
    "address", "model", "peer", "replica_pool", "service", "service_namespace", "service_pool",
    "slo",
}  # fmt: skip
"""None of them is `namespace`, `redservice`, `pool` or `revision`, which whoever scrapes adds."""


def families(*kinds: type) -> dict[str, list[Any]]:
    registry = CollectorRegistry()
    for kind in kinds:
        kind(registry)
    found: dict[str, list[Any]] = {}
    for metric in registry.collect():
        found.setdefault(metric.name, []).append(metric)
    return found


def test_all_fit_one_registry_with_unique_names_and_help():
    found = families(*KINDS)
    assert all(len(metrics) == 1 for metrics in found.values())
    assert len(found) == sum(len(families(kind)) for kind in KINDS)
    helps = [metrics[0].documentation for metrics in found.values()]
    assert all(len(text) > 10 for text in helps)
    assert len(set(helps)) == len(helps)


def test_names_carry_their_unit():
    for name, (metric,) in families(*KINDS).items():
        assert name.startswith("redserve_")
        if metric.type == "gauge" and name not in UNITLESS_GAUGES:
            assert name.endswith(("_bytes", "_seconds", "_ratio", "_per_second"))


def test_labels_are_known():
    """A label that comes from a request would grow without end."""
    used = {
        label
        for kind in (*KINDS, DiscoveryMetrics, OperatorMetrics)
        for metric in vars(kind(CollectorRegistry())).values()
        for label in metric._labelnames
    }
    assert used == LABELS


@pytest.mark.parametrize(
    ("kind", "attributes"),
    [
        (
            RouterMetrics,
            "requests ttft tpot duration queue_requests queue_oldest queue overlap_ratio "
            "transport_item first_token_part model_info "
            "inflight items item_retries prompt_tokens output_tokens preprocess replica_serving "
            "slo_events slo_objective slo_threshold",
        ),
        (
            EncoderMetrics,
            "encode queue queue_oldest preprocess images batch_images batch_rows cache_hits "
            "cache_misses cache_evictions cache_returns cache_bytes joined queued_rows errors",
        ),
        (
            LLMMetrics,
            "prefill decode queue_wait step batch_tokens batch_sequences ready_tokens "
            "schedulable_tokens sequences kv_blocks kv_cache_utilization preemptions starved_steps "
            "prefix_cache_query_tokens prefix_cache_hit_tokens generated_tokens arena_bytes "
            "items_dropped transport_check transport_check_failures",
        ),
        (
            TransportMetrics,
            "moved_bytes pull errors info fallbacks pool_bytes read_server_restarts",
        ),
    ],
)
def test_attributes_are_the_metrics(kind: type, attributes: str):
    metrics = kind(CollectorRegistry())
    assert set(vars(metrics)) == set(attributes.split())


def test_metrics_page_over_http_until_stopped():
    registry = CollectorRegistry()
    RouterMetrics(registry).requests.labels(code="OK").inc(3)
    port, stop = serve_metrics(registry, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{port}/metrics"
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            page = answer.read().decode()
        samples = {
            (sample.name, sample.labels.get("code")): sample.value
            for family in text_string_to_metric_families(page)
            for sample in family.samples
        }
        assert samples["redserve_requests_total", "OK"] == 3
        assert page == generate_latest(registry).decode()
        with pytest.raises(ConfigError, match=f"127.0.0.1:{port}"):
            serve_metrics(registry, "127.0.0.1", port)
    finally:
        stop()
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(url, timeout=5)


def test_a_wait_of_a_minute_in_the_queue_is_told_from_longer_ones() -> None:
    """The times of whole requests have the same bounds: they are stacked and compared."""
    metrics = RouterMetrics(registry := CollectorRegistry())
    metrics.queue.observe(50.0)
    below = registry.get_sample_value("redserve_queue_seconds_bucket", {"le": "80.0"})
    assert below == 1
    assert metrics.queue._upper_bounds == metrics.duration._upper_bounds
