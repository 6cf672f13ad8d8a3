"""The only place that knows the kinds of transport.

A further backend brings its `Transport`, its `PeerInfo` and a line in each function here; callers
hold a `Puller` or a `ProducerSide` and never learn which it is.
"""

from __future__ import annotations

import uuid
from functools import partial
from typing import TYPE_CHECKING, Final

from redserve.errors import ConfigError
from redserve.spec.settings import ucx_in_force, ucx_net_devices, ucx_transports
from redserve.telemetry.log import get_logger
from redserve.transport import grpc_stream, inproc
from redserve.transport.base import PeerInfo
from redserve.transport.either import EitherTransport
from redserve.transport.lease_table import LeaseTable
from redserve.transport.nixl import rdma, tcp
from redserve.transport.nixl.endpoint import Endpoint
from redserve.transport.nixl.library import AgentError, version
from redserve.transport.nixl.read_server import ReadServer
from redserve.transport.nixl.transport import BACKEND, NixlTransport, peer_info
from redserve.transport.producer_side import ProducerSide
from redserve.transport.puller import Puller
from redserve.transport.slab import SharedSlab
from redserve.wire.channel import open_channel

if TYPE_CHECKING:
    from redserve.telemetry.metrics.transport import TransportMetrics
    from redserve.transport.base import Producer, Transport
    from redserve.transport.nixl.reader_process import ReaderProcess
    from redserve.transport.pool import Pool

log = get_logger()

AUTO: Final = "auto"
RDMA: Final = "rdma"
TCP: Final = "tcp"
KINDS = (AUTO, RDMA, TCP, grpc_stream.BACKEND, inproc.BACKEND)
_FIELD: Final = "spec.transport.type"


def make_consumer(
    kind: str, pool: Pool, name: str, advertise_address: str, metrics: TransportMetrics | None
) -> Puller:
    """The consumer side of a process, on its running event loop.

    Args:
        kind: "auto", "rdma", "tcp", "grpc" or "inproc"; see `docs/transport.md`.
        pool: Where destinations are allocated; told to the backend once.
        name: Of the replica; becomes part of the incarnation.
        advertise_address: host:port of this process's gRPC server.
        metrics: Counts and times what arrives.

    Raises:
        ConfigError: No such kind, or this process cannot do it; says what is missing.
    """
    incarnation = _new_incarnation(name)
    _check(kind)
    _observe(pool, metrics)
    if kind == inproc.BACKEND:
        nearby = inproc.InprocTransport(pool, incarnation, advertise_address)
        _begin_pulls(metrics, inproc.BACKEND)
        return Puller(nearby, _connect_in_process, incarnation, pool, metrics)
    transport: Transport = grpc_stream.GrpcTransport(pool, incarnation, advertise_address)
    endpoint = _endpoint(kind, pool, incarnation, serves=False)
    if endpoint is not None:
        info = peer_info(endpoint, pool, incarnation, advertise_address)
        fast = NixlTransport(_one_sided(kind), endpoint, info)
        transport = _either(fast, transport, metrics) if kind == AUTO else fast
    _begin_pulls(metrics, transport.kind, *((grpc_stream.BACKEND,) if kind == AUTO else ()))
    return Puller(transport, _connect_by_grpc, incarnation, pool, metrics)


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
        kind: "auto", "rdma", "tcp", "grpc" or "inproc"; see `docs/transport.md`.
        pool: Where tensors are; told to the backend once.
        name: Of the replica; becomes part of the incarnation.
        advertise_address: host:port by which consumers reach this process's gRPC server (bind it
            first when its port is 0), or for inproc any name.
        ttl_s: How long a lease is good for, seconds.
        metrics: Counts what leaves.

    Raises:
        ConfigError: No such kind, or this process cannot do it; says what is missing.
    """
    _check(kind)
    _observe(pool, metrics)
    if kind == TCP:
        side = _read_by_tcp(pool, name, advertise_address, ttl_s, metrics)
    else:
        incarnation = _new_incarnation(name)
        table = LeaseTable(pool, incarnation, ttl_s)
        endpoint = _endpoint(kind, pool, incarnation, serves=True)
        if endpoint is not None:
            peer = peer_info(endpoint, pool, incarnation, advertise_address)
            transport = RDMA
        else:
            transport = inproc.BACKEND if kind == inproc.BACKEND else grpc_stream.BACKEND
            peer = PeerInfo(incarnation, transport, advertise_address, pool_bytes=pool.num_bytes)
        if kind == inproc.BACKEND:
            inproc.register(advertise_address, table)
        servicer = grpc_stream.TransportServicer(table, peer, metrics, transport)
        side = ProducerSide(table, servicer, transport, endpoint=endpoint)
    if metrics is not None:
        metrics.info.labels(transport=side.transport).set(1)
    return side


def _read_by_tcp(
    pool: Pool, name: str, address: str, ttl_s: float, metrics: TransportMetrics | None
) -> ProducerSide:
    """A producer whose pool is read from a process of its own; see `read_server`."""
    problem = tcp.wrong(ucx_in_force())
    if problem is not None:
        raise ConfigError(f"TCP is not to be had: {problem}", field=_FIELD)
    if not isinstance(pool.slab, SharedSlab):
        raise TypeError("type TCP needs a pool that processes share: see `make_pool`")
    table = LeaseTable(pool, _new_incarnation(name), ttl_s)
    servicer = grpc_stream.TransportServicer(
        table, PeerInfo(table.incarnation, grpc_stream.BACKEND, address), metrics, TCP
    )

    def use(process: ReaderProcess, number: int) -> None:
        if number and metrics is not None:
            metrics.read_server_restarts.inc()
        # Whoever knows the former process only finds that it is gone, and hears of the successor.
        # The leases come first: one under a name that was given up would be the new one's end.
        table.incarnation = process.name
        servicer.peer = PeerInfo(
            process.name,
            BACKEND,
            address,
            metadata=process.metadata,
            pool_address=process.address,
            pool_bytes=pool.num_bytes,
            library=version(),
        )

    try:
        server = ReadServer(pool.slab, partial(_new_incarnation, name), use)
    except AgentError as error:
        why = _with_environment(error)
        raise ConfigError(f"TCP is not to be had: {why}", field=_FIELD) from error
    return ProducerSide(table, servicer, TCP, server=server)


def _endpoint(kind: str, pool: Pool, incarnation: str, *, serves: bool) -> Endpoint | None:
    """What one-sided reads need; None for kinds that have none, and for auto where it cannot be."""
    if kind not in (AUTO, RDMA, TCP):
        return None
    if kind == TCP:
        problem = tcp.wrong(ucx_in_force())
    else:
        problem = rdma.missing(pool.num_bytes, ucx_transports(), ucx_net_devices())
    if problem is None:
        try:
            return Endpoint(pool, incarnation, serves=serves)
        except AgentError as error:
            problem = _with_environment(error)
    if kind != AUTO:
        raise ConfigError(f"{kind.upper()} is not to be had: {problem}", field=_FIELD)
    log.info("embeddings move by gRPC", why=problem)
    return None


def _with_environment(error: AgentError) -> str:
    """An error of the library is a number: what it was told, and where UCX says why."""
    told = ", ".join(f"{name}={value}" for name, value in ucx_in_force().items())
    return f"{error} (with {told or 'no variable of UCX set'}; UCX's own lines in the log say why)"


def _one_sided(kind: str) -> str:
    return TCP if kind == TCP else RDMA


def _check(kind: str) -> None:
    if kind not in KINDS:
        raise ConfigError(
            f"unknown transport {kind!r}; choose one of {', '.join(KINDS)}", field="transport"
        )


def _connect_by_grpc(peer: PeerInfo) -> Producer:
    return grpc_stream.GrpcProducer(open_channel(peer.address), peer.address)


def _connect_in_process(peer: PeerInfo) -> Producer:
    return inproc.InprocProducer(peer.address)


def _new_incarnation(name: str) -> str:
    """Unique for ever: a process that restarts under the same name is another peer."""
    return f"{name}-{uuid.uuid4().hex[:12]}"


def _either(fast: Transport, plain: Transport, metrics: TransportMetrics | None) -> Transport:
    if metrics is None:
        return EitherTransport(fast, plain)
    return EitherTransport(fast, plain, metrics.fallbacks.inc)


def _begin_pulls(metrics: TransportMetrics | None, *transports: str) -> None:
    if metrics is not None:
        metrics.begin_pulls(*transports)


def _observe(pool: Pool, metrics: TransportMetrics | None) -> None:
    if metrics is None:
        return
    # Looked at when they are asked for: the pool changes in several threads, and what one of them
    # wrote last might not be what is so.
    of_state = metrics.pool_bytes.labels
    of_state(state="used").set_function(lambda: pool.used_bytes)
    of_state(state="free").set_function(lambda: pool.num_bytes - pool.used_bytes)
    of_state(state="quarantined").set_function(lambda: pool.quarantined_bytes)
