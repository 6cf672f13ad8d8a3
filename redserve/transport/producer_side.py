"""All that a producer needs: offer tensors in its table, and serve its servicer."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from redserve.errors import Unavailable
from redserve.transport import inproc
from redserve.transport.grpc_stream import SERVICE_NAME
from redserve.v1.transport_pb2_grpc import add_TransportServiceServicer_to_server

if TYPE_CHECKING:
    from collections.abc import Callable

    from redserve.transport.base import PeerInfo
    from redserve.transport.grpc_stream import TransportServicer
    from redserve.transport.lease_table import LeaseTable
    from redserve.transport.nixl.endpoint import Endpoint
    from redserve.transport.nixl.read_server import ReadServer
    from redserve.wire.server import ServiceServer

_LOOK_S: Final = 0.02
"""How often `current` looks."""
_WAIT_S: Final = 3.0
"""How long it waits: a process to read from is replaced in a second or two."""


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
        self._looking: asyncio.Task[bool] | None = None

    @property
    def peer_info(self) -> PeerInfo:
        """What to tell consumers along with a tensor's key, now."""
        return self.servicer.peer

    async def current(self) -> PeerInfo:
        """The same, once there is somebody to read from: a read server may be being replaced.

        Raises:
            Unavailable: Nobody can read from here for now.
        """
        if self.server is not None and not self.server.serving:
            if self._looking is None or self._looking.done():
                self._looking = asyncio.create_task(_appears(self.server))
            if not await asyncio.shield(self._looking):
                raise Unavailable("nobody can read embeddings from this encoder for now")
        return self.peer_info

    def on_readable(self, callback: Callable[[bool], None]) -> None:
        """Call `callback(readable)` now, and in whichever thread with every change."""
        if self.server is None:
            callback(True)
        else:
            self.server.on_change(callback)

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


async def _appears(server: ReadServer) -> bool:
    """One task looks for all who wait."""
    for _ in range(round(_WAIT_S / _LOOK_S)):
        if server.serving:
            return True
        await asyncio.sleep(_LOOK_S)
    return server.serving
