"""The error tree on the wire: google.rpc.Status with details, and back.

The class of an error travels as `ErrorInfo.reason`, its field as `BadRequest.FieldViolation`, its
retry hint as `RetryInfo`; the status message is the sentence for people. A status without details
(made by gRPC itself, or by a stranger) is judged by its code alone.
"""

from __future__ import annotations

from typing import Final

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from redserve import errors
from redserve.errors import ALL_ERRORS, InternalError, RedServeError

DOMAIN: Final = "redserve.dev"
_TOO_LONG: Final = "message larger than max"
DETAILS_KEY: Final = "grpc-status-details-bin"
CONTENT_MISSING: Final = "CONTENT_MISSING"
"""Reason of an `ItemError`: the encoder lacks the picture's bytes, the caller must send them.
A step of the protocol rather than an error of the tree: it never reaches a client."""

_BY_REASON: Final[dict[str, type[RedServeError]]] = {kind.reason: kind for kind in ALL_ERRORS}
_BY_CODE: Final[dict[grpc.StatusCode, type[RedServeError]]] = {
    grpc.StatusCode.INVALID_ARGUMENT: errors.InvalidArgument,
    grpc.StatusCode.OUT_OF_RANGE: errors.InvalidArgument,
    grpc.StatusCode.NOT_FOUND: errors.ModelNotFound,
    grpc.StatusCode.FAILED_PRECONDITION: errors.UnsupportedModel,
    grpc.StatusCode.RESOURCE_EXHAUSTED: errors.Overloaded,
    grpc.StatusCode.DEADLINE_EXCEEDED: errors.DeadlineExceeded,
    grpc.StatusCode.CANCELLED: errors.Cancelled,
    grpc.StatusCode.UNAVAILABLE: errors.Unavailable,
}


def status_code(error: RedServeError) -> grpc.StatusCode:
    """Canonical code of an error."""
    code: grpc.StatusCode = grpc.StatusCode[error.grpc_code]
    return code


def abort_details(error: RedServeError) -> status_pb2.Status:
    """The error as `google.rpc.Status` with packed details."""
    status = status_pb2.Status(code=status_code(error).value[0], message=str(error))
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN)
    info.metadata["retryable"] = "true" if error.retryable else "false"
    status.details.add().Pack(info)
    if error.field is not None:
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=error.field, description=error.message
        )
        status.details.add().Pack(error_details_pb2.BadRequest(field_violations=[violation]))
    if error.retry_after_s is not None:
        delay = Duration()
        delay.FromNanoseconds(round(error.retry_after_s * 1e9))
        status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=delay))
    return status


def from_rpc_error(error: grpc.aio.AioRpcError) -> RedServeError:
    """The error of the tree behind a failed call; `error` itself should be its cause.

    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error) from error
    """
    return from_status(error.code(), error.details(), _details_of(error))


def from_status(
    code: grpc.StatusCode, message: str | None, status: status_pb2.Status | None
) -> RedServeError:
    """The error of the tree for a code, a message and, if there are, details."""
    kind, field, retry_after_s = None, None, None
    text = message or code.name
    for detail in status.details if status is not None else ():
        info = error_details_pb2.ErrorInfo()
        bad_request = error_details_pb2.BadRequest()
        retry = error_details_pb2.RetryInfo()
        if detail.Unpack(info):
            kind = _BY_REASON.get(info.reason) if info.domain == DOMAIN else None
        elif detail.Unpack(bad_request) and bad_request.field_violations:
            field = bad_request.field_violations[0].field
            text = bad_request.field_violations[0].description
        elif detail.Unpack(retry):
            retry_after_s = retry.retry_delay.ToNanoseconds() / 1e9
    if kind is None and code is grpc.StatusCode.RESOURCE_EXHAUSTED and _TOO_LONG in text:
        kind = errors.InvalidArgument  # gRPC's own word: no later try can succeed
    if kind is None:
        kind = _BY_CODE.get(code, InternalError)
    return kind(text, field=field, retry_after_s=retry_after_s)


def has_reason(error: grpc.aio.AioRpcError) -> bool:
    """Whether our own server said it: False for what gRPC itself makes, as when a peer dies."""
    status = _details_of(error)
    return status is not None and any(
        detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR) for detail in status.details
    )


def error_for_reason(reason: str, message: str, field: str | None = None) -> RedServeError:
    """The error of the tree for a reason word, as in `ItemError`; unknown words are internal."""
    return _BY_REASON.get(reason, InternalError)(message, field=field)


def _details_of(error: grpc.aio.AioRpcError) -> status_pb2.Status | None:
    for key, value in error.trailing_metadata() or ():
        if key == DETAILS_KEY and isinstance(value, bytes):
            try:
                return status_pb2.Status.FromString(value)
            except DecodeError:
                return None  # a stranger's trailer: the code still counts
    return None
