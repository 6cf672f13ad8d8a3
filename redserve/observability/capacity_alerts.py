"""Alerts about too little room or too much work."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from redserve.observability.alerts import (
    ENCODE_QUEUE_OLD,
    ENCODER_CACHE_THRASH,
    KV_CACHE_FULL,
    QUEUE_OLD,
    Alert,
)
from redserve.observability.series import OF_PROCESS, OF_SERVICE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from redserve.observability.series import Series
    from redserve.spec.service import RedServiceSpec

KV_STARVED_SHARE: Final = 0.5
"""Of an engine's steps, those that lacked KV blocks for somebody."""
OLD_QUEUE_S: Final = 10.0
"""Without a promise about the first token."""
OLD_QUEUE_THRESHOLDS: Final = 5
"""A wait this many times as long as the first token is promised in is old."""
THRASH_SHARE: Final = 0.05
"""Of images that encoders are asked for, those whose embedding had been dropped to make room."""
MIN_THRASHED: Final = 5
"""In ten minutes."""


def capacity_alerts(series: Series, spec: RedServiceSpec) -> Iterator[Alert]:
    """KV blocks, queues, embedding cache."""
    yield _kv_full(series)
    old_s = _old_s(spec)
    yield _queue_old(series, old_s)
    yield _encode_queue_old(series, old_s)
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
    # Not the share of used blocks: it saws, as every sequence that ends gives many back at once,
    # and admission keeps some for those that run.
    by = f"sum by ({OF_PROCESS})"
    starved = series.of("redserve_kv_starved_steps_total")
    steps = series.of("redserve_step_seconds_count")
    return Alert(
        name=KV_CACHE_FULL,
        severity="ticket",
        expr=f"{by} (rate({starved}[10m])) / {by} (rate({steps}[10m])) > {KV_STARVED_SHARE}",
        for_="10m",
        summary=f"{series.service}: an engine's KV cache is too small",
        description=(
            "In {{ $value | humanizePercentage }} of the steps of {{ $labels.instance }} a request "
            "waited for KV blocks, or lost its own to an older one. New requests queue; what was "
            "lost is computed again."
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
            "A request has waited for {{ $value | humanizeDuration }}, and no LLM engine has begun "
            f"to compute it; {old_s:g} s are too long for this service."
        ),
    )


def _encode_queue_old(series: Series, old_s: float) -> Alert:
    oldest = series.of("redserve_encode_queue_oldest_seconds")
    return Alert(
        name=ENCODE_QUEUE_OLD,
        severity="ticket",
        expr=f"max by ({OF_PROCESS}) ({oldest}) > {old_s:g}",
        for_="2m",
        summary=f"{series.service}: images wait too long for an encoder",
        description=(
            "An image has waited for {{ $value | humanizeDuration }} for a batch of "
            f"{{{{ $labels.instance }}}}; {old_s:g} s are too long for this service."
        ),
    )


def _thrash(series: Series) -> Alert:
    by = f"sum by ({OF_SERVICE})"
    again = series.of("redserve_encoder_cache_returns_total")
    found = series.of("redserve_encoder_cache_hits_total")
    missed = series.of("redserve_encoder_cache_misses_total")
    evicted = series.of("redserve_encoder_cache_evictions_total")
    asked = f"({by} (rate({found}[10m])) + {by} (rate({missed}[10m])))"
    return Alert(
        name=ENCODER_CACHE_THRASH,
        severity="ticket",
        expr=(
            f"{by} (rate({again}[10m])) / {asked} > {THRASH_SHARE}"
            f" and {by} (increase({again}[10m])) >= {MIN_THRASHED}"
            f" and {by} (rate({evicted}[10m])) > 0"
        ),
        for_="15m",
        summary=f"{series.service}: the encoders' caches are too small",
        description=(
            "{{ $value | humanizePercentage }} of the images that encoders were asked for are "
            "encoded again: their embedding was there and had to make room for others."
        ),
    )
