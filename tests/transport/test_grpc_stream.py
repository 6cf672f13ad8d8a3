"""What only the gRPC backend has: a servicer that cleans up after vanished consumers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from redserve.errors import CorruptTransfer, PeerLost
from redserve.transport.buffer import Segment
from redserve.transport.grpc_stream import GrpcProducer
from redserve.v1 import transport_pb2 as pb
from redserve.v1.transport_pb2_grpc import TransportServiceStub
from redserve.wire.channel import open_channel
from redserve.wire.server import ServiceServer
from tests.transport.links import MIB, linked, make_link, payload, until


async def test_leases_of_a_vanished_consumer_end_by_themselves():
    link = make_link("grpc", ttl_s=0.05)
    link.table.grace_s = 0.05
    now_s = 1000.0
    link.table._clock = lambda: now_s
    async with linked(link):
        source = link.offer("k", payload(100))
        producer = GrpcProducer(open_channel(link.server.address), link.server.address)
        for _ in range(3):
            await producer.prepare("k", "vanishing", 5)
        await producer.close()
        link.table.withdraw("k")
        source.free()
        assert link.producer_pool.quarantined_bytes > 0
        now_s += 1.0
        await until(lambda: link.producer_pool.used_bytes == 0)
        assert link.ended == [("k", False)] * 3


async def test_hello_introduces_the_producer():
    link = make_link("grpc")
    async with linked(link):
        producer = GrpcProducer(open_channel(link.server.address), link.server.address)
        assert await producer.hello(5) == link.side.peer_info
        await producer.close()


async def test_messages_are_at_most_a_mebibyte_and_in_order():
    link = make_link("grpc")
    data = payload(3 * MIB + 5)
    async with linked(link), open_channel(link.server.address) as channel:
        link.offer("k", data)
        lease = link.table.prepare("k", "c")
        call = TransportServiceStub(channel).Fetch(pb.FetchRequest(lease_id=lease.lease_id))
        pieces = [response.data async for response in call]
        assert [len(piece) for piece in pieces] == [MIB, MIB, MIB, 5]
        assert b"".join(pieces) == data.tobytes()
        link.table.release(lease.lease_id, consumed=True)


async def test_whoever_reads_no_further_keeps_no_memory_of_the_pool():
    link = make_link("grpc")
    now_s = 1000.0
    link.table._clock = lambda: now_s
    async with linked(link), open_channel(link.server.address) as channel:
        source = link.offer("k", payload(64 * MIB))  # more than a connection takes unread
        lease = link.table.prepare("k", "c")
        call = TransportServiceStub(channel).Fetch(pb.FetchRequest(lease_id=lease.lease_id))
        first = await anext(aiter(call))
        assert len(first.data) == MIB
        link.table.withdraw("k")
        source.free()
        now_s += 3600.0
        assert link.table.reap() == 1
        assert link.producer_pool.used_bytes == 0
        assert not call.done()
        call.cancel()


async def test_a_stream_that_is_too_long_or_too_short_is_corrupt():
    link = make_link("grpc")
    async with linked(link):
        link.offer("k", payload(2 * MIB))
        transport = link.puller._transport
        transport.add_peer(link.side.peer_info)
        lease = link.table.prepare("k", "c")
        for wrong in (MIB, 3 * MIB):
            region = link.consumer_pool.alloc(wrong)
            descriptor = replace(lease, segments=(Segment(0, wrong),))
            with pytest.raises(CorruptTransfer, match="bytes"):
                await transport.pull(descriptor, region, 5)
            region.free()
        link.table.release(lease.lease_id, consumed=False)


async def test_nobody_there_is_a_lost_peer_and_never_a_foreign_error():
    server = ServiceServer("127.0.0.1", 0)  # lives, but leases nothing
    await server.start()
    producer = GrpcProducer(open_channel(server.address), server.address)
    for call in (
        producer.hello(5),
        producer.prepare("k", "c", 5),
        producer.release(1, consumed=True, timeout_s=5),
    ):
        with pytest.raises(PeerLost, match="UNIMPLEMENTED"):
            await call
    await producer.close()
    await server.drain(0)
