"""Room: KV blocks, prefix cache, embeddings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from grafana_foundation_sdk.models.common import StackingMode

from tools.dashboards.panels import PER_SECOND, Look, Query, lines
from tools.dashboards.promql import POOL, or_zero, rate, select
from tools.dashboards.row import Row

if TYPE_CHECKING:
    from collections.abc import Iterator

    from grafana_foundation_sdk.cog.builder import Builder
    from grafana_foundation_sdk.models.dashboard import Panel

_HITS: Final = "redserve_encoder_cache_hits_total"
_MISSES: Final = "redserve_encoder_cache_misses_total"
_STARVED: Final = rate("redserve_kv_starved_steps_total", of=POOL, by="pod")
_STEPS: Final = rate("redserve_step_seconds_count", of=POOL, by="pod")
_DROPPED: Final = "redserve_items_dropped_total"


def memory_row() -> Row:
    """The row."""
    return Row(
        "Memory",
        (
            *_kv(),
            *_embeddings(),
        ),
    )


def _kv() -> Iterator[Builder[Panel]]:
    looked_up = rate("redserve_prefix_cache_query_tokens_total", of=POOL)
    found = rate("redserve_prefix_cache_hit_tokens_total", of=POOL)
    yield lines(
        "KV blocks",
        "Blocks of all engines: held by sequences, kept for prefixes, free.",
        Look("short", width=6, stacking=StackingMode.NORMAL),
        Query(f"sum by (state) ({select('redserve_kv_blocks', of=POOL)})", "{{state}}"),
    )
    yield lines(
        "KV use",
        "Share of blocks that sequences hold, by engine, and of steps that lacked blocks for "
        "somebody: if these are more than half of all for long, an alert comes.",
        Look("percentunit", width=6, highest=1),
        Query(
            f"max by (pod) ({select('redserve_kv_cache_utilization_ratio', of=POOL)})",
            "{{pod}} held",
        ),
        Query(f"{_STARVED} / ({_STEPS} > 0)", "{{pod}} lacked"),
    )
    yield lines(
        "Preemptions",
        "Sequences per second that lost their blocks to others and must be computed again.",
        Look(PER_SECOND, width=6),
        Query(rate("redserve_preemptions_total", of=POOL, by="pod"), "{{pod}}"),
    )
    yield lines(
        "Prefix hits",
        "Share of prompt tokens that were found in the prefix cache.",
        Look("percentunit", width=6, highest=1),
        Query(f"{found} / ({looked_up} > 0)", "hits"),
    )


def _embeddings() -> Iterator[Builder[Panel]]:
    hits, misses = rate(_HITS, of=POOL), rate(_MISSES, of=POOL)
    yield lines(
        "Embeddings",
        "Bytes of embeddings: held or cached by encoders, landed or landing at engines.",
        Look("bytes", width=6),
        Query(f"sum by (pod) ({select('redserve_encoder_cache_bytes', of=POOL)})", "{{pod}}"),
        Query(f"sum by (pod) ({select('redserve_arena_bytes', of=POOL)})", "{{pod}}"),
    )
    yield lines(
        "Embedding cache hits",
        "Share of images that an encoder had in its cache. An image whose rows the "
        "engine's prefix cache covers does not come here at all.",
        Look("percentunit", width=6, highest=1),
        Query(f"{hits} / ({hits} + {misses} > 0)", "hits"),
    )
    yield lines(
        "Embedding cache",
        "Embeddings per second that were thrown away to make room, those of them that were asked "
        "for again (the cache is too small for what comes again; above 5 % of images an alert "
        "comes), and images that joined the same image already being encoded.",
        Look(PER_SECOND, width=6),
        Query(rate("redserve_encoder_cache_evictions_total", of=POOL), "evicted"),
        Query(rate("redserve_encoder_cache_returns_total", of=POOL), "asked for again"),
        Query(rate("redserve_encoder_joined_total", of=POOL), "joined"),
    )
    yield lines(
        "Embeddings dropped",
        "Embeddings per second that engines threw away, by why. *All* is drawn too, so "
        "that silence is seen as 0.",
        Look(PER_SECOND, width=6),
        Query(or_zero(rate(_DROPPED, of=POOL)), "all"),
        Query(rate(_DROPPED, of=POOL, by="why"), "{{why}}"),
    )
