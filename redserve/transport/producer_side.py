"""All that a producer needs: offer tensors in its table, and serve its servicer."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from redserve.transport import inproc
from redserve.transport.grpc_stream import SERVICE_NAME
from redserve.v1.transport_pb2_grpc import add_TransportServiceServicer_to_server

if TYPE_CHECKING:
    from redserve.transport.base import PeerInfo
    from redserve.transport.grpc_stream import TransportServicer
    from redserve.transport.lease_table import LeaseTable
    from redserve.transport.nixl.endpoint import Endpoint
    from redserve.transport.nixl.read_server import ReadServer
    from redserve.wire.server import ServiceServer

_LOOK_S: Final = 0.02
"""How often `current` looks: a read server is replaced in less than a second, and hardly ever."""


class ProducerSide:
    """Made by `factory.make_producer`.

    Args:
        lease_table: Where tensors are offered and withdrawn.
        servicer: The TransportService; see `add_to`.
        transport: The best data path that this process offers; all but inproc offer gRPC too.
        endpoint: Of one-sided reads from this process, where there are any.
        server: Of one-sided reads from a process of its own, where there are any.

    Attributes:
        lease_table, servicer, transport, endpoint, server: As given.
    """

    def __init__(
        self,
        lease_table: LeaseTable,
        servicer: TransportServicer,
        transport: str,
        *,
        endpoint: Endpoint | None = None,
        server: ReadServer | None = None,
    ) -> None:
        self.lease_table = lease_table
        self.servicer = servicer
        self.transport = transport
        self.endpoint = endpoint
        self.server = server

    @property
    def peer_info(self) -> PeerInfo:
        """What to tell consumers along with a tensor's key, now."""
        return self.servicer.peer

    async def current(self) -> PeerInfo:
        """The same, once there is somebody to read from: a read server may be being replaced."""
        while self.server is not None and not self.server.serving:  # noqa: ASYNC110  # a thread's
            await asyncio.sleep(_LOOK_S)
        return self.peer_info

    def add_to(self, server: ServiceServer) -> None:
        """Serve it; before `server.start`."""
        server.add(add_TransportServiceServicer_to_server, self.servicer, SERVICE_NAME)

    def close(self) -> None:
        """Stop being found and read by consumers; idempotent. The process ends by `leave`."""
        inproc.unregister(self.peer_info.address, self.lease_table)
        if self.server is not None:
            self.server.close()
        if self.endpoint is not None:
            # Somebody who still reads would not take the end of the agent well, nor would we.
            self.endpoint.close(leave_it=self.lease_table.num_leases > 0)
