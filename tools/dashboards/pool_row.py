"""The processes behind the service: how many, how busy, how full their batches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from grafana_foundation_sdk.models.common import StackingMode

from tools.dashboards.panels import PER_SECOND, Look, Query, lines
from tools.dashboards.promql import INTERVAL, POOL, SERVICE, mean, quantile, rate, select
from tools.dashboards.row import Row

if TYPE_CHECKING:
    from collections.abc import Iterator

    from grafana_foundation_sdk.cog.builder import Builder
    from grafana_foundation_sdk.models.dashboard import Panel

ENCODE: Final = "redserve_encode_duration_seconds"
STEP: Final = "redserve_step_seconds"
_SEEN: Final = select("redserve_replica_serving")
_WANTED: Final = (
    'redserve_operator_pool_replicas{service_namespace="$namespace", service="$service", '
    'service_pool=~"$pool", state="desired"}'
)


def _busy(seconds: str) -> str:
    """Share of the time that each process computed."""
    return f"sum by (pod) (rate({select(f'{seconds}_sum', of=POOL)}[{INTERVAL}]))"


def _by_replica(metric: str) -> str:
    return f"sum by (pod) ({select(metric, of=POOL)})"


def pool_row() -> Row:
    """The row."""
    return Row(
        "Pools",
        (
            *_replicas(),
            *_encoders(),
            *_engines(),
        ),
    )


def _replicas() -> Iterator[Builder[Panel]]:
    yield lines(
        "Replicas",
        "Ready: encoders and engines that take work, as the router sees them that sees most. "
        "Running: processes that can be scraped, routers too. Desired: what the operator wants; "
        "not without one.",
        Look("short", decimals=0),
        Query(
            f"max by (replica_pool) (sum by (replica_pool, instance) ({_SEEN}))",
            "{{replica_pool}} ready",
        ),
        Query(f"sum by (pool) ({select('up', of=POOL)})", "{{pool}} running"),
        Query(f"max by (service_pool) ({_WANTED})", "{{service_pool}} desired"),
    )
    yield lines(
        "Utilisation",
        "Share of the time in which a replica computed: encoder batches, or steps of an "
        "engine. Close to 100 % it is the bottleneck.",
        Look("percentunit", highest=1),
        Query(_busy(ENCODE), "{{pod}}"),
        Query(_busy(STEP), "{{pod}}"),
    )
    yield lines(
        "Revisions",
        "Processes by revision: during a rollout there are two.",
        Look("short", stacking=StackingMode.NORMAL, decimals=0),
        Query(f'count by (revision) (up{{{SERVICE}, pool=~"$pool"}} == 1)', "{{revision}}"),
    )


def _encoders() -> Iterator[Builder[Panel]]:
    yield lines(
        "Encoder batches",
        "Images of an encoder batch: mean and 95th percentile.",
        Look("short", width=6),
        Query(mean("redserve_encode_batch_images", of=POOL), "mean"),
        Query(quantile(0.95, "redserve_encode_batch_images", of=POOL), "p95"),
    )
    yield lines(
        "Encoder queue",
        "Embedding rows that wait to be encoded, by replica.",
        Look("short", width=6),
        Query(_by_replica("redserve_encode_queued_rows"), "{{pod}}"),
    )
    yield lines(
        "Encoder times",
        "Waiting for a batch, and computing one.",
        Look("s", width=6),
        Query(f"max({select('redserve_encode_queue_oldest_seconds', of=POOL)})", "oldest now"),
        Query(quantile(0.5, "redserve_encode_queue_seconds", of=POOL), "wait p50"),
        Query(quantile(0.95, "redserve_encode_queue_seconds", of=POOL), "wait p95"),
        Query(quantile(0.5, ENCODE, of=POOL), "batch p50"),
        Query(quantile(0.95, ENCODE, of=POOL), "batch p95"),
    )
    yield lines(
        "Images encoded",
        "Images per second, by replica: an even load has lines on top of each other.",
        Look(PER_SECOND, width=6),
        Query(rate("redserve_encode_images_total", of=POOL, by="pod"), "{{pod}}"),
    )


def _engines() -> Iterator[Builder[Panel]]:
    yield lines(
        "Engine batches",
        "One micro-batch: mean number of sequences, and of tokens.",
        Look("short", width=6),
        Query(mean("redserve_batch_sequences", of=POOL), "sequences"),
        Query(mean("redserve_batch_tokens", of=POOL), "tokens"),
    )
    yield lines(
        "Sequences",
        "Sequences in the engines by phase.",
        Look("short", width=6, stacking=StackingMode.NORMAL),
        Query(f"sum by (phase) ({select('redserve_sequences', of=POOL)})", "{{phase}}"),
    )
    yield lines(
        "Engine times",
        "Arrival at the engine to the first chunk, and computing one micro-batch.",
        Look("s", width=6),
        Query(quantile(0.5, "redserve_queue_wait_seconds", of=POOL), "wait p50"),
        Query(quantile(0.95, "redserve_queue_wait_seconds", of=POOL), "wait p95"),
        Query(quantile(0.5, STEP, of=POOL), "step p50"),
        Query(quantile(0.95, STEP, of=POOL), "step p95"),
    )
    yield lines(
        "Tokens that could run",
        "Prompt tokens whose inputs are there, and tokens that could be computed now. "
        "Ready ones that do not run wait for room in a batch.",
        Look("short", width=6),
        Query(f"sum({select('redserve_ready_tokens', of=POOL)})", "ready"),
        Query(f"sum({select('redserve_schedulable_tokens', of=POOL)})", "schedulable"),
    )
