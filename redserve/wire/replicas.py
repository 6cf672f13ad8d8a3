"""One replica of router.proto."""

from __future__ import annotations

from dataclasses import dataclass

from redserve.v1 import router_pb2 as pb


@dataclass(frozen=True, slots=True)
class ReplicaStatus:
    """An encoder or LLM replica as the router sees it.

    Attributes:
        pool: "encoder" or "llm".
        address: host:port.
        serving: Whether it takes new work.
        transport: Data path in use; empty before the router has met it.
        load: Figures for people.
    """

    pool: str
    address: str
    serving: bool
    transport: str
    load: dict[str, float]


def replica_to_proto(replica: ReplicaStatus) -> pb.Replica:
    """The inverse of `replica_from_proto`."""
    return pb.Replica(
        pool=replica.pool,
        address=replica.address,
        serving=replica.serving,
        transport=replica.transport,
        load=replica.load,
    )


def replica_from_proto(replica: pb.Replica) -> ReplicaStatus:
    """The inverse of `replica_to_proto`."""
    return ReplicaStatus(
        replica.pool, replica.address, replica.serving, replica.transport, dict(replica.load)
    )
