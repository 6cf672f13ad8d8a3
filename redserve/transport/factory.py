"""The only place that knows the kinds of transport.

A further backend brings its `Transport`, its `PeerInfo` and a line in each function here; callers
hold a `Puller` or a `ProducerSide` and never learn which it is.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

from redserve.errors import ConfigError
from redserve.transport import grpc_stream, inproc
from redserve.transport.base import PeerInfo
from redserve.transport.lease_table import LeaseTable
from redserve.transport.puller import Puller
from redserve.v1.transport_pb2_grpc import add_TransportServiceServicer_to_server
from redserve.wire.channel import open_channel

if TYPE_CHECKING:
    from redserve.telemetry.metrics import TransportMetrics
    from redserve.transport.base import Producer, Transport
    from redserve.transport.pool import Pool
    from redserve.wire.server import ServiceServer

KINDS = (grpc_stream.BACKEND, inproc.BACKEND)


@dataclass(frozen=True, slots=True)
class ProducerSide:
    """All that a producer needs: offer tensors in `lease_table`, serve `servicer`.

    Attributes:
        lease_table: Where tensors are offered and withdrawn.
        peer_info: What to tell consumers along with a tensor's key.
        servicer: The TransportService, for `ServiceServer.add`; see `add_to`.
    """

    lease_table: LeaseTable
    peer_info: PeerInfo
    servicer: grpc_stream.TransportServicer

    def add_to(self, server: ServiceServer) -> None:
        """Serve it; before `server.start`."""
        server.add(add_TransportServiceServicer_to_server, self.servicer, grpc_stream.SERVICE_NAME)

    def close(self) -> None:
        """Stop being found by consumers of this process; idempotent."""
        inproc.unregister(self.peer_info.address, self.lease_table)


def make_consumer(
    kind: str, pool: Pool, name: str, advertise_address: str, metrics: TransportMetrics | None
) -> Puller:
    """The consumer side of a process, on its running event loop.

    Args:
        kind: "grpc" or "inproc".
        pool: Where destinations are allocated; told to the backend once.
        name: Of the replica; becomes part of the incarnation.
        advertise_address: host:port of this process's gRPC server.
        metrics: Counts and times what arrives.

    Raises:
        ConfigError: No such kind.
    """
    incarnation = _new_incarnation(name)
    _observe(pool, metrics)
    if kind == grpc_stream.BACKEND:
        transport: Transport = grpc_stream.GrpcTransport(pool, incarnation, advertise_address)
        return Puller(transport, _connect_by_grpc, incarnation, metrics)
    if kind == inproc.BACKEND:
        transport = inproc.InprocTransport(pool, incarnation, advertise_address)
        return Puller(transport, _connect_in_process, incarnation, metrics)
    raise _unknown(kind)


def make_producer(
    kind: str,
    pool: Pool,
    name: str,
    advertise_address: str,
    ttl_s: float,
    metrics: TransportMetrics | None,
) -> ProducerSide:
    """The producer side of a process.

    Args:
        kind: "grpc" or "inproc".
        pool: Where tensors are; told to the backend once.
        name: Of the replica; becomes part of the incarnation.
        advertise_address: host:port by which consumers reach this process's gRPC server (bind it
            first when its port is 0), or for inproc any name.
        ttl_s: How long a lease is good for, seconds.
        metrics: Counts what leaves.

    Raises:
        ConfigError: No such kind.
    """
    if kind not in KINDS:
        raise _unknown(kind)
    incarnation = _new_incarnation(name)
    peer = PeerInfo(incarnation, kind, advertise_address, pool_bytes=pool.num_bytes)
    table = LeaseTable(pool, incarnation, ttl_s)
    if kind == inproc.BACKEND:
        inproc.register(advertise_address, table)
    _observe(pool, metrics)
    if metrics is not None:
        metrics.info.labels(transport=kind).set(1)
    return ProducerSide(table, peer, grpc_stream.TransportServicer(table, peer, metrics))


def _connect_by_grpc(peer: PeerInfo) -> Producer:
    return grpc_stream.GrpcProducer(open_channel(peer.address), peer.address)


def _connect_in_process(peer: PeerInfo) -> Producer:
    return inproc.InprocProducer(peer.address)


def _new_incarnation(name: str) -> str:
    """Unique for ever: a process that restarts under the same name is another peer."""
    return f"{name}-{uuid.uuid4().hex[:12]}"


def _observe(pool: Pool, metrics: TransportMetrics | None) -> None:
    if metrics is None:
        return
    used_gauge = metrics.pool_bytes.labels(state="used")
    free_gauge = metrics.pool_bytes.labels(state="free")

    quarantined_gauge = metrics.pool_bytes.labels(state="quarantined")

    def report(used_bytes: int, free_bytes: int) -> None:
        used_gauge.set(used_bytes)
        free_gauge.set(free_bytes)
        quarantined_gauge.set(pool.quarantined_bytes)

    pool.on_change(report)


def _unknown(kind: str) -> ConfigError:
    return ConfigError(
        f"unknown transport {kind!r}; choose one of {', '.join(KINDS)}", field="transport"
    )
