"""encoder.proto and the domain: metadata or a typed failure per picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

from redserve.errors import InternalError, RedServeError
from redserve.v1 import encoder_pb2 as pb
from redserve.wire.errors import error_for_reason
from redserve.wire.types import metadata_from_proto, metadata_to_proto

if TYPE_CHECKING:
    from redserve.domain import ItemMetadata


def item_error_to_proto(error: RedServeError) -> pb.ItemError:
    """A typed failure of one item; the field goes into the sentence."""
    return pb.ItemError(reason=error.reason, message=str(error))


def item_error_from_proto(proto: pb.ItemError) -> RedServeError:
    """The error of the tree. Look for CONTENT_MISSING first: it is no error of the tree."""
    return error_for_reason(proto.reason, proto.message)


def described_to_proto(result: ItemMetadata | RedServeError) -> pb.DescribedPicture:
    """Outcome of describing one picture."""
    if isinstance(result, RedServeError):
        return pb.DescribedPicture(error=item_error_to_proto(result))
    return pb.DescribedPicture(metadata=metadata_to_proto(result))


def described_from_proto(proto: pb.DescribedPicture) -> ItemMetadata | RedServeError:
    """Outcome of describing one picture; an error is returned, not raised."""
    kind = proto.WhichOneof("result")
    if kind == "metadata":
        return metadata_from_proto(proto.metadata)
    if kind == "error":
        return item_error_from_proto(proto.error)
    return InternalError("the encoder answered neither metadata nor an error")
