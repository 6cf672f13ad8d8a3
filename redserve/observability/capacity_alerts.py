"""Alerts about too little room or too much work."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from redserve.observability.alerts import ENCODER_CACHE_THRASH, KV_CACHE_FULL, QUEUE_OLD, Alert
from redserve.observability.series import OF_PROCESS, OF_SERVICE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from redserve.observability.series import Series
    from redserve.spec.service import RedServiceSpec

KV_FULL_RATIO: Final = 0.95
OLD_QUEUE_S: Final = 10.0
"""Without a promise about the first token."""
OLD_QUEUE_THRESHOLDS: Final = 5
"""A wait this many times as long as the first token is promised in is old."""
THRASH_SHARE: Final = 0.05
"""Of images, those whose embedding was thrown away before it was asked for again."""
MIN_THRASHED: Final = 5


def capacity_alerts(series: Series, spec: RedServiceSpec) -> Iterator[Alert]:
    """KV blocks, queue, embedding cache."""
    yield _kv_full(series)
    yield _queue_old(series, _old_s(spec))
    yield _thrash(series)


def _old_s(spec: RedServiceSpec) -> float:
    promised_ms = [
        slo.threshold_milliseconds
        for slo in spec.slos
        if slo.indicator == "TimeToFirstToken" and slo.threshold_milliseconds
    ]
    wait_s = min(promised_ms) / 1000 * OLD_QUEUE_THRESHOLDS if promised_ms else OLD_QUEUE_S
    # Nobody waits longer than that.
    return min(max(wait_s, 1.0), spec.router.request_timeout_seconds / 2)


def _kv_full(series: Series) -> Alert:
    ratio = series.of("redserve_kv_cache_utilization_ratio")
    waiting = series.of("redserve_sequences", 'phase=~"waiting|preempted"')
    return Alert(
        name=KV_CACHE_FULL,
        severity="ticket",
        expr=(
            f"max by ({OF_PROCESS}) ({ratio}) > {KV_FULL_RATIO}"
            f" and sum by ({OF_PROCESS}) ({waiting}) > 0"
        ),
        for_="15m",
        summary=f"{series.service}: an engine's KV cache is full",
        description=(
            "{{ $value | humanizePercentage }} of the KV blocks of {{ $labels.instance }} are "
            "held by running sequences, and others wait. New requests queue, running ones may be "
            "preempted."
        ),
    )


def _queue_old(series: Series, old_s: float) -> Alert:
    oldest = series.of("redserve_queue_oldest_seconds")
    return Alert(
        name=QUEUE_OLD,
        severity="ticket",
        expr=f"max by ({OF_SERVICE}) ({oldest}) > {old_s:g}",
        for_="2m",
        summary=f"{series.service}: requests wait too long for an engine",
        description=(
            "A request has waited for {{ $value | humanizeDuration }} without being admitted by "
            f"an LLM engine; {old_s:g} s are too long for this service."
        ),
    )


def _thrash(series: Series) -> Alert:
    by = f"sum by ({OF_SERVICE})"
    again = series.of("redserve_item_retries_total", 'why="content_missing"')
    items = series.of("redserve_items_total")
    evicted = series.of("redserve_encoder_cache_evictions_total")
    return Alert(
        name=ENCODER_CACHE_THRASH,
        severity="ticket",
        expr=(
            f"{by} (rate({again}[10m])) / {by} (rate({items}[10m])) > {THRASH_SHARE}"
            f" and {by} (increase({again}[10m])) >= {MIN_THRASHED}"
            f" and {by} (rate({evicted}[10m])) > 0"
        ),
        for_="15m",
        summary=f"{series.service}: the encoders' caches are too small",
        description=(
            "{{ $value | humanizePercentage }} of images were sent to an encoder that had their "
            "embedding a moment ago and has thrown it away to make room."
        ),
    )
