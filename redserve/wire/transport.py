"""transport.proto and the values of `redserve.transport.base`."""

from __future__ import annotations

import hashlib
import math

from redserve.errors import CorruptTransfer
from redserve.transport.base import Descriptor, PeerInfo
from redserve.transport.buffer import Segment
from redserve.v1 import transport_pb2 as pb


def peer_to_proto(peer: PeerInfo) -> pb.PeerInfo:
    """A process that takes part in transfers, with a digest over its metadata."""
    return pb.PeerInfo(
        incarnation=peer.incarnation,
        backend=peer.backend,
        address=peer.address,
        metadata=peer.metadata,
        metadata_digest=hashlib.sha256(peer.metadata).digest(),
        pool_address=peer.pool_address,
        pool_bytes=peer.pool_bytes,
        memory=peer.memory,
        device_id=peer.device_id,
        library=peer.library,
    )


def peer_from_proto(proto: pb.PeerInfo) -> PeerInfo:
    """A process that takes part in transfers.

    Raises:
        CorruptTransfer: The digest does not fit. Checked here because broken metadata for a known
            name can damage a backend's good entry beyond repair.
    """
    if proto.metadata_digest != hashlib.sha256(proto.metadata).digest():
        raise CorruptTransfer(
            f"metadata of peer {proto.incarnation!r} does not fit its digest",
            field="metadata_digest",
        )
    return PeerInfo(
        incarnation=proto.incarnation,
        backend=proto.backend,
        address=proto.address,
        metadata=proto.metadata,
        pool_address=proto.pool_address,
        pool_bytes=proto.pool_bytes,
        memory=proto.memory,
        device_id=proto.device_id,
        library=proto.library,
    )


def descriptor_to_proto(descriptor: Descriptor) -> pb.Descriptor:
    """Where leased bytes are. The time to live is rounded down to milliseconds."""
    return pb.Descriptor(
        incarnation=descriptor.incarnation,
        segments=[
            pb.Segment(offset=segment.offset, num_bytes=segment.num_bytes)
            for segment in descriptor.segments
        ],
        lease_id=descriptor.lease_id,
        # A float a hair below the millisecond it stands for must not lose it.
        ttl_ms=math.floor(round(descriptor.ttl_s * 1e3, 3)),
        checksum=descriptor.checksum or 0,
        checksum_valid=descriptor.checksum is not None,
    )


def descriptor_from_proto(proto: pb.Descriptor) -> Descriptor:
    """Where leased bytes are.

    Raises:
        CorruptTransfer: No piece, or an empty one.
    """
    if not proto.segments or any(not segment.num_bytes for segment in proto.segments):
        raise CorruptTransfer(
            f"the lease of {proto.incarnation!r} has an empty piece, or none", field="segments"
        )
    return Descriptor(
        incarnation=proto.incarnation,
        segments=tuple(Segment(one.offset, one.num_bytes) for one in proto.segments),
        lease_id=proto.lease_id,
        ttl_s=proto.ttl_ms / 1e3,
        checksum=proto.checksum if proto.checksum_valid else None,
    )
