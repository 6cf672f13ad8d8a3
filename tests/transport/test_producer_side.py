"""How a producer with an agent of its own, as for RDMA, stops being one."""

from __future__ import annotations

import pytest

from redserve.transport.base import PeerInfo
from redserve.transport.grpc_stream import TransportServicer
from redserve.transport.lease_table import LeaseTable
from redserve.transport.nixl.endpoint import Endpoint
from redserve.transport.pool import Pool
from redserve.transport.producer_side import ProducerSide
from tests.transport.agents import Record
from tests.transport.links import until


@pytest.mark.parametrize("read_from", [False, True])
async def test_an_agent_that_somebody_reads_from_is_not_destroyed(read_from: bool) -> None:
    """Neither the reader nor this process would take that well."""
    record = Record()
    pool = Pool(4096)
    table = LeaseTable(pool, "p-1", 30.0)
    endpoint = Endpoint(pool, "p-1", record, serves=True)
    servicer = TransportServicer(table, PeerInfo("p-1", "nixl", "here:1"))
    side = ProducerSide(table, servicer, "rdma", endpoint=endpoint)
    table.offer("k", pool.alloc(100), lambda *_: None)
    lease = table.prepare("k", "c")
    if not read_from:
        table.release(lease.lease_id, consumed=True)
    for _ in range(2):
        side.close()
        if not read_from:
            await until(lambda: endpoint.closing)
        assert endpoint.closing is not read_from
    assert endpoint.close(60)
    assert record.calls == [("close", "")]
