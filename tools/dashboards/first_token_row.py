"""Where the time to first token goes, and how much of the encode is hidden."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from grafana_foundation_sdk.models.common import StackingMode

from redserve.telemetry.first_token import ENCODE_EXPOSED, ENCODE_HIDDEN, PARTS
from tools.dashboards.panels import PER_SECOND, Look, Query, distribution, lines
from tools.dashboards.promql import REVISION, mean, quantile, rate
from tools.dashboards.row import Row

if TYPE_CHECKING:
    from collections.abc import Iterator

    from grafana_foundation_sdk.cog.builder import Builder
    from grafana_foundation_sdk.models.dashboard import Panel

PART: Final = "redserve_time_to_first_token_part_seconds"
OVERLAP: Final = "redserve_overlap_ratio"
_ITEM: Final = "redserve_transport_item_seconds"
_NAMES: Final = {
    "preprocess": "preprocess",
    "queue": "queue",
    ENCODE_EXPOSED: "encode exposed",
    ENCODE_HIDDEN: "encode hidden behind prefill",
    "transport_exposed": "transport exposed",
    "prefill": "prefill",
    "lost": "engine lost",
}


def _of(part: str) -> str:
    return f'part="{part}"'


def first_token_row() -> Row:
    """The row."""
    hidden, exposed = (rate(f"{PART}_sum", _of(part)) for part in (ENCODE_HIDDEN, ENCODE_EXPOSED))
    whole = rate(f"{PART}_sum")
    return Row(
        "Where the time to first token goes",
        (
            lines(
                "Time to first token by part",
                "Mean of all requests that ended well. Parts do not overlap: an instant at which "
                "an image is encoded while prefill runs is *encode hidden*, so the stack is the "
                "time to first token. What each part means: docs/how-to/read-a-timeline.md.",
                Look("s", width=12, stacking=StackingMode.NORMAL),
                *(Query(mean(PART, _of(part)), _NAMES[part]) for part in PARTS),
            ),
            lines(
                "Shares of the time to first token",
                "The same as shares of the whole.",
                Look("percentunit", highest=1, width=12, stacking=StackingMode.NORMAL),
                *(
                    Query(f"{rate(f'{PART}_sum', _of(part))} / ({whole} > 0)", _NAMES[part])
                    for part in PARTS
                ),
            ),
            lines(
                "Slowest parts",
                "95th percentile of each part by itself. They do not add up: the slowest twentieth "
                "of one part are other requests than those of another.",
                Look("s"),
                *(Query(quantile(0.95, PART, _of(part)), _NAMES[part]) for part in PARTS),
            ),
            lines(
                "Encode time that was hidden",
                "Share of encode time during which prefill of the same request ran. *By request* "
                "is the mean of the requests' own ratios, *by time* weighs them by their encode "
                "time before the first token.",
                Look("percentunit", highest=1),
                Query(mean(OVERLAP), "by request"),
                Query(quantile(0.5, OVERLAP), "median request"),
                Query(f"{hidden} / ({hidden} + {exposed} > 0)", "by time"),
            ),
            distribution(
                "Encode time that was hidden, spread",
                "Requests per second by their share of hidden encode time.",
                rate(f"{OVERLAP}_bucket", by="le"),
                unit="percentunit",
            ),
            *_items(),
        ),
    )


def _items() -> Iterator[Builder[Panel]]:
    yield lines(
        "Transport of an image",
        "Mean time of moving one embedding, all attempts: exposed while its request does "
        "nothing but wait for it, else hidden.",
        Look("s", stacking=StackingMode.NORMAL),
        Query(mean(_ITEM, by="part"), "{{part}}"),
    )
    yield lines(
        "Images",
        "Images per second by outcome: encoded, answered from an encoder's cache, covered "
        "by the engine's prefix cache, or failed.",
        Look(PER_SECOND),
        Query(rate("redserve_items_total", by="outcome"), "{{outcome}}"),
    )
    yield lines(
        "Waiting for the first step",
        "How long requests waited until an engine ran their first step, wherever they waited, and "
        "the oldest that waits now.",
        Look("s"),
        Query(quantile(0.5, "redserve_queue_seconds"), "p50"),
        Query(quantile(0.95, "redserve_queue_seconds"), "p95"),
        Query(f"max({_OLDEST})", "oldest now"),
    )


_OLDEST: Final = f"redserve_queue_oldest_seconds{{{REVISION}}}"
