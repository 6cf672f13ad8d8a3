"""How embeddings travel."""

from __future__ import annotations

from typing import Final

from grafana_foundation_sdk.models.common import StackingMode

from tools.dashboards.panels import PER_SECOND, Look, Query, lines
from tools.dashboards.promql import POOL, QUANTILES, or_zero, quantile, rate, select
from tools.dashboards.row import Row

_BYTES: Final = "redserve_transport_bytes_total"
_PULL: Final = "redserve_transport_pull_seconds"
_ERRORS: Final = "redserve_transport_errors_total"
_RESTARTS: Final = "redserve_transport_read_server_restarts_total"
_FALLBACKS: Final = "redserve_transport_fallbacks_total"
_RETRIES: Final = "redserve_item_retries_total"
_ROOM: Final = "redserve_transport_pool_bytes"


def transport_row() -> Row:
    """The row."""
    in_use = select("redserve_transport_info", of=POOL)
    arrived = rate(_BYTES, 'direction="in"', of=POOL, by="pod")
    pulling = rate(f"{_PULL}_sum", of=POOL, by="pod")
    return Row(
        "Transport",
        (
            lines(
                "Throughput",
                "Bytes of embeddings per second (1 GB/s is 10^9), into engines and out of "
                "encoders, by data path.",
                Look("Bps", width=6),
                Query(
                    rate(_BYTES, of=POOL, by="pool, transport, direction"),
                    "{{pool}} {{direction}} by {{transport}}",
                ),
            ),
            lines(
                "Data path",
                "Processes by the best data path that they have. gRPC beside RDMA means that some "
                "lack RDMA. Whether those that have it reach each other by it, *Throughput* and "
                "*Errors and retries* tell.",
                Look("short", width=6, stacking=StackingMode.NORMAL, decimals=0),
                Query(
                    f"count by (pool, transport) ({in_use} == 1)",
                    "{{pool}} {{transport}}",
                ),
            ),
            lines(
                "Pulls",
                "One embedding, from lease to checked bytes.",
                Look("s", width=6),
                *(
                    Query(quantile(share, _PULL, of=POOL), f"p{share * 100:g}")
                    for share in QUANTILES
                ),
            ),
            lines(
                "Speed of a pull",
                "Bytes of embeddings by the time that pulls took: what one pull gets.",
                Look("Bps", width=6),
                Query(
                    f"{arrived} / ({pulling} > 0)",
                    "{{pod}}",
                ),
            ),
            lines(
                "Errors and retries",
                "Pulls that failed, images that were dispatched again, and pulls by gRPC from a "
                "peer that offers RDMA and was not reached by it, per second. *All* is drawn too, "
                "so that silence is seen as 0.",
                Look(PER_SECOND, width=12),
                Query(or_zero(rate(_ERRORS, of=POOL)), "all errors"),
                Query(or_zero(rate(_RETRIES)), "all retries"),
                Query(or_zero(rate(_FALLBACKS, of=POOL)), "by gRPC instead of RDMA"),
                Query(or_zero(rate(_RESTARTS, of=POOL)), "read servers started anew"),
                Query(rate(_ERRORS, of=POOL, by="transport, reason"), "{{transport}} {{reason}}"),
                Query(rate(_RETRIES, by="why"), "retry: {{why}}"),
            ),
            lines(
                "Registered memory",
                "Bytes of tensor pools by state. Of the used ones, *quarantined* belong to "
                "transfers that were given up and have not ended.",
                Look("bytes", width=12),
                Query(f"sum by (pool, state) ({select(_ROOM, of=POOL)})", "{{pool}} {{state}}"),
            ),
        ),
    )
