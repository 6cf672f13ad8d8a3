"""Backend over gRPC streams: works wherever TCP does, encrypted if the channel is.

The control calls (Hello, Prepare, Release) are the same for every backend that leaves the
process; Fetch is the data path of this one, and the way out when a faster one fails.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import grpc

from redserve.errors import CorruptTransfer, DeadlineExceeded, PeerLost, RedServeError
from redserve.transport.base import PeerInfo
from redserve.transport.buffer import write
from redserve.transport.probe import is_probe, prepare_probe
from redserve.v1 import transport_pb2 as pb
from redserve.v1 import transport_pb2_grpc
from redserve.wire.channel import open_channel
from redserve.wire.errors import from_rpc_error, has_reason
from redserve.wire.transport import (
    descriptor_from_proto,
    descriptor_to_proto,
    peer_from_proto,
    peer_to_proto,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from redserve.telemetry.metrics.transport import TransportMetrics
    from redserve.transport.base import Descriptor
    from redserve.transport.buffer import Buffer
    from redserve.transport.lease_table import LeaseTable
    from redserve.transport.pool import Pool

BACKEND: Final = "grpc"
MESSAGE_BYTES: Final = 1 << 20
"""Bytes of one message of a Fetch stream."""

SERVICE_NAME: Final = "redserve.v1.TransportService"


def _peer_error(error: grpc.aio.AioRpcError, who: str) -> RedServeError:
    """What a failed call to a peer means.

    Our own servers say it with a reason. What gRPC makes itself (connection refused, reset, gone
    in the middle of a stream) means that the peer is lost, whatever the code.
    """
    if has_reason(error):
        return from_rpc_error(error)
    if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
        return DeadlineExceeded(f"{who} did not answer in time")
    return PeerLost(f"{who} is lost: {error.code().name}, {error.details()}")


class TransportServicer(transport_pb2_grpc.TransportServiceServicer):
    """Leases a table's tensors over gRPC. All calls belong to the server's event loop.

    Args:
        lease_table: What is offered.
        peer_info: Who this process is.
        metrics: Counts what leaves.
        kind: What reads that do not come here are made by: "rdma" or "tcp"; "grpc" if there are
            none.

    Attributes:
        peer: Who to say that this process is; changes with the process that it is read from.
    """

    def __init__(
        self,
        lease_table: LeaseTable,
        peer_info: PeerInfo,
        metrics: TransportMetrics | None = None,
        kind: str = BACKEND,
    ) -> None:
        self._table = lease_table
        self.peer = peer_info
        self._bytes_out = self._read_out = None
        if metrics is not None:
            self._bytes_out = metrics.moved_bytes.labels(transport=BACKEND, direction="out")
            if kind != BACKEND:
                self._read_out = metrics.moved_bytes.labels(transport=kind, direction="out")
        self._fetched: set[int] = set()
        self._reaper: asyncio.TimerHandle | None = None

    async def Hello(  # noqa: N802  # gRPC's name
        self,
        request: pb.HelloRequest,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> pb.HelloResponse:
        """Who is here."""
        return pb.HelloResponse(peer=peer_to_proto(self.peer))

    async def Prepare(  # noqa: N802  # gRPC's name
        self,
        request: pb.PrepareRequest,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> pb.PrepareResponse:
        """Lease a tensor; TensorGone when it is not offered. Probes: see `prepare_probe`."""
        if is_probe(request.tensor_key):
            descriptor = await prepare_probe(self._table, request.tensor_key, request.consumer)
        else:
            descriptor = self._table.prepare(request.tensor_key, request.consumer)
        self._reap_later()
        return pb.PrepareResponse(descriptor=descriptor_to_proto(descriptor))

    async def Release(  # noqa: N802  # gRPC's name
        self,
        request: pb.ReleaseRequest,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> pb.ReleaseResponse:
        """End a lease."""
        num_bytes = self._table.num_bytes_of(request.lease_id)
        valid = self._table.release(request.lease_id, request.consumed)
        if request.lease_id in self._fetched:
            self._fetched.discard(request.lease_id)
        elif valid and request.consumed and self._read_out is not None:
            # Whoever reads one-sidedly is not seen: this is the first that the producer hears.
            self._read_out.inc(num_bytes)
        return pb.ReleaseResponse(valid=valid)

    async def Fetch(  # noqa: N802  # gRPC's name
        self,
        request: pb.FetchRequest,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> AsyncIterator[pb.FetchResponse]:
        """Stream a leased tensor; CorruptTransfer as soon as the lease is over.

        Nothing but the lease holds the tensor: a reader that reads no further keeps a message
        of this stream, and no memory of the pool.
        """
        lease_id = request.lease_id
        num_bytes = self._table.num_bytes_of(lease_id)
        if num_bytes:
            self._fetched.add(lease_id)
        for start in range(0, max(num_bytes, 1), MESSAGE_BYTES):
            stop = min(start + MESSAGE_BYTES, num_bytes)
            # Kept by nobody but the message: a copy that outlives it costs half of the rate, for
            # the next one is then in memory that was not touched yet.
            yield pb.FetchResponse(data=self._table.copy_of(lease_id, start, stop))
            if self._bytes_out is not None:
                self._bytes_out.inc(stop - start)

    def _reap_later(self) -> None:
        """Have the leases of vanished consumers reaped when they are due."""
        due_s = self._table.next_due_s
        if self._reaper is None and due_s is not None:
            self._reaper = asyncio.get_running_loop().call_later(due_s, self._reap)

    def _reap(self) -> None:
        self._reaper = None
        self._table.reap()
        self._fetched = {lease for lease in self._fetched if self._table.num_bytes_of(lease)}
        self._reap_later()


class GrpcProducer:
    """`Producer` over a channel, which it owns."""

    def __init__(self, channel: grpc.aio.Channel, address: str) -> None:
        self._channel = channel
        self._address = address
        self._stub = transport_pb2_grpc.TransportServiceStub(channel)

    async def hello(self, timeout_s: float) -> PeerInfo:
        """See `Producer`."""
        try:
            response = await self._stub.Hello(pb.HelloRequest(), timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            raise _peer_error(error, self._address) from error
        return peer_from_proto(response.peer)

    async def prepare(self, tensor_key: str, consumer: str, timeout_s: float) -> Descriptor:
        """See `Producer`."""
        request = pb.PrepareRequest(tensor_key=tensor_key, consumer=consumer)
        try:
            response = await self._stub.Prepare(request, timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            raise _peer_error(error, self._address) from error
        return descriptor_from_proto(response.descriptor)

    async def release(self, lease_id: int, *, consumed: bool, timeout_s: float) -> bool:
        """See `Producer`."""
        request = pb.ReleaseRequest(lease_id=lease_id, consumed=consumed)
        try:
            response = await self._stub.Release(request, timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            raise _peer_error(error, self._address) from error
        return response.valid

    async def close(self) -> None:
        """See `Producer`."""
        await self._channel.close()


class GrpcTransport:
    """`Transport` that reads Fetch streams, on a connection of its own per peer.

    Nothing lands after `pull` has returned or raised: the bytes are copied by the caller's task.

    Args:
        pool: Where the destinations are.
        incarnation: Of this consumer.
        address: host:port of this consumer, or empty.
    """

    kind: str = BACKEND

    def __init__(self, pool: Pool, incarnation: str, address: str) -> None:
        self._pool = pool
        self._info = PeerInfo(incarnation, BACKEND, address, pool_bytes=pool.num_bytes)
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def local_info(self) -> PeerInfo:
        """See `Transport`."""
        return self._info

    def add_peer(self, peer: PeerInfo) -> None:
        """See `Transport`; connects with the first pull."""
        if peer.incarnation not in self._channels:
            self._channels[peer.incarnation] = open_channel(peer.address)

    def remove_peer(self, incarnation: str) -> None:
        """See `Transport`."""
        channel = self._channels.pop(incarnation, None)
        if channel is not None:
            task = asyncio.ensure_future(channel.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    async def pull(self, descriptor: Descriptor, destination: Buffer, deadline_s: float) -> None:
        """See `Transport`."""
        incarnation = descriptor.incarnation
        channel = self._channels.get(incarnation)
        if channel is None:
            raise PeerLost(f"{incarnation} is not a peer (any more)")
        if deadline_s <= 0:
            raise DeadlineExceeded("the deadline of the transfer has passed")
        stub = transport_pb2_grpc.TransportServiceStub(channel)
        call = stub.Fetch(pb.FetchRequest(lease_id=descriptor.lease_id), timeout=deadline_s)
        destination.hold()
        try:
            await _receive(call, destination, descriptor.num_bytes)
        except grpc.aio.AioRpcError as error:
            raise _peer_error(error, incarnation) from error
        except asyncio.CancelledError:
            # Closing a channel cancels its calls, which looks like a cancel of this task.
            if self._channels.get(incarnation) is channel or _is_cancelling():
                raise
            raise PeerLost(f"{incarnation} was given up") from None
        finally:
            call.cancel()
            destination.unhold()

    def kind_for(self, incarnation: str) -> str:
        """See `Transport`."""
        return BACKEND

    async def close(self, timeout_s: float) -> bool:
        """See `Transport`."""
        for incarnation in tuple(self._channels):
            self.remove_peer(incarnation)
        if not self._closing:
            return True
        _, pending = await asyncio.wait(self._closing, timeout=timeout_s)
        return not pending


async def _receive(call: Any, destination: Buffer, num_bytes: int) -> None:
    """Copy the pieces of a Fetch stream into `destination`."""
    position = 0
    async for response in call:
        end = position + len(response.data)
        if end > num_bytes:
            raise CorruptTransfer(f"more than the {num_bytes} bytes that the lease names")
        write(destination, position, response.data)
        position = end
    if position != num_bytes:
        raise CorruptTransfer(f"the stream ended after {position} of {num_bytes} bytes")


def _is_cancelling() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
