"""What TransportReady says of the way that embeddings travel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from redserve_operator.decide import reasons

if TYPE_CHECKING:
    from collections.abc import Mapping

    from redserve_operator.decide.reasons import Verdict

_VERDICTS: Final[Mapping[str, Verdict]] = {
    "RDMA": reasons.RDMA.says("embeddings travel by NIXL over RDMA"),
    "TCP": reasons.TCP.says("embeddings travel by NIXL over TCP"),
    "GRPC": reasons.GRPC.says("embeddings travel by gRPC"),
}
_CHOSEN_BY_PODS: Final = reasons.AUTO.says(
    "embeddings travel by RDMA where encoder and engine both have it, else by gRPC; the metric "
    "redserve_transport_info tells which"
)
NAMES: Final = frozenset(verdict.reason for verdict in (*_VERDICTS.values(), _CHOSEN_BY_PODS))
"""Reasons of a data path that stands."""


def data_path(transport_type: str) -> Verdict:
    """The verdict for a `spec.transport.type`, when encoders and engines know each other."""
    return _VERDICTS.get(transport_type, _CHOSEN_BY_PODS)
