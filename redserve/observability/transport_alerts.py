"""Alerts about the way of embeddings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from redserve.observability.alerts import MEMORY_QUARANTINED, TRANSPORT_FELL_BACK, Alert
from redserve.observability.series import OF_PROCESS, OF_SERVICE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from redserve.observability.series import Series
    from redserve.spec.transport import TransportSpec

QUARANTINED_SHARE: Final = 0.05
"""Of an engine's landing room; at a quarter the engine takes no new work."""
FELL_BACK_WINDOW: Final = "15m"
"""Embeddings may come seldom; one in so long tells how they come."""


def transport_alerts(series: Series, spec: TransportSpec) -> Iterator[Alert]:
    """Alerts that the chosen type can have."""
    if slow := _slower_path(series, spec):
        yield _slower(series, spec, slow)
    if spec.type == "Auto":
        yield _peer_not_reached(series)
    yield _quarantined(series)


def _slower(series: Series, spec: TransportSpec, slow: str) -> Alert:
    """A process has found at its start what it lacks."""
    meant = "TCP" if spec.type == "TCP" else "RDMA"
    if spec.type == "Auto":
        hint = "Its log says *embeddings move by gRPC* and why."
    else:
        hint = "None falls back by itself: is it one from before the type was changed?"
    return Alert(
        name=TRANSPORT_FELL_BACK,
        severity="ticket",
        expr=slow,
        for_="10m",
        summary=f"{series.service}: embeddings travel by {{{{ $labels.transport }}}}",
        description=(
            "{{ $labels.instance }} (pool {{ $labels.pool }}) moves embeddings by "
            f"{{{{ $labels.transport }}}} although {meant} is meant to be there. Answers are "
            f"right; more of the transfers is felt. {hint}"
        ),
    )


def _peer_not_reached(series: Series) -> Alert:
    """Both ends have RDMA, and one did not reach the other by it.

    `redserve_transport_info` does not tell: it is what a process has, whatever single peers do.
    """
    fallbacks = series.of("redserve_transport_fallbacks_total")
    return Alert(
        name=TRANSPORT_FELL_BACK,
        severity="ticket",
        expr=f"sum by ({OF_PROCESS}) (increase({fallbacks}[{FELL_BACK_WINDOW}])) > 0",
        for_="10m",
        summary=f"{series.service}: RDMA is there, and embeddings travel by gRPC",
        description=(
            "{{ $labels.instance }} (pool {{ $labels.pool }}) pulls embeddings by gRPC from a peer "
            "that offers RDMA and was not reached by it. Answers are right; more of the transfers "
            "is felt. Its log says *no RDMA to a peer that offers it* and why."
        ),
        labels=(("between", "peers"),),
    )


def _slower_path(series: Series, spec: TransportSpec) -> str:
    """Processes that have another data path than they should; empty where that cannot be."""
    if spec.type in ("GRPC", "InProcess"):
        return ""
    if spec.type in ("RDMA", "TCP"):
        # They never fall back; if one did all the same, it should be heard of.
        return _using(series, f'transport!="{spec.type.lower()}"')
    by_grpc = _using(series, 'transport="grpc"')
    if spec.rdma is not None:
        return by_grpc
    # Nobody asked for RDMA; but where some have it, all should.
    by_rdma = _using(series, 'transport="rdma"')
    return f"{by_grpc} and on ({OF_SERVICE}) ({by_rdma})"


def _using(series: Series, matcher: str) -> str:
    return f"{series.of('redserve_transport_info', matcher)} == 1"


def _quarantined(series: Series) -> Alert:
    metric = "redserve_transport_pool_bytes"
    held = series.of(metric, 'pool="llm"', 'state="quarantined"')
    whole = series.of(metric, 'pool="llm"', 'state=~"used|free"')
    return Alert(
        name=MEMORY_QUARANTINED,
        severity="ticket",
        expr=(
            f"sum by ({OF_PROCESS}) ({held}) / sum by ({OF_PROCESS}) ({whole})"
            f" > {QUARANTINED_SHARE}"
        ),
        for_="5m",
        summary=f"{series.service}: hanging transfers hold memory back",
        description=(
            "{{ $value | humanizePercentage }} of the landing room of {{ $labels.instance }} "
            "belong to transfers that were given up and have not ended. Above a quarter the "
            "engine takes no new requests."
        ),
    )
