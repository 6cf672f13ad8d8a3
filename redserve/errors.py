"""The family tree of every error that may reach a client.

    RedServeError
    ├── InvalidArgument     the request is wrong; names field and mend (INVALID_ARGUMENT, 400)
    │   ├── PolicyViolation media or size policy refuses it            (INVALID_ARGUMENT, 400)
    │   └── ContextTooLong  prompt and output cannot fit               (INVALID_ARGUMENT, 400)
    ├── ModelNotFound       no such model or checkpoint                (NOT_FOUND, 404)
    ├── UnsupportedModel    the checkpoint cannot be served, and why   (FAILED_PRECONDITION, 400)
    ├── Overloaded          queue or pool full, retry later            (RESOURCE_EXHAUSTED, 429)
    ├── DeadlineExceeded    the deadline passed                        (DEADLINE_EXCEEDED, 504)
    ├── Cancelled           the client went away or asked to stop      (CANCELLED, 499)
    ├── Unavailable         a replica or pool is gone; retry           (UNAVAILABLE, 503)
    │   ├── PeerLost        the peer of a transfer died or restarted   (UNAVAILABLE, 503)
    │   ├── TensorGone      the peer lives, the tensor is gone         (UNAVAILABLE, 503)
    │   └── CorruptTransfer a checksum or lease did not hold           (UNAVAILABLE, 503)
    ├── ConfigError         a manifest or setting is wrong; says where (FAILED_PRECONDITION)
    └── InternalError       a bug or a broken invariant                (INTERNAL, 500)

One interceptor (`redserve.wire.interceptors`) maps the tree to gRPC codes with
`google.rpc.Status` details; one handler in the router maps it to HTTP.
"""

from __future__ import annotations

from typing import ClassVar


class RedServeError(Exception):
    """Root of the tree.

    Attributes:
        reason: UPPER_SNAKE word for machines; goes into `google.rpc.ErrorInfo.reason`.
        grpc_code: Name of the canonical gRPC status code.
        http_status: Status of the HTTP answer.
        retryable: Whether the same call may succeed later.
        field: Path of the offending field in the request or manifest, or None.
        retry_after_s: When to try again, in seconds, or None.
    """

    reason: ClassVar[str] = "INTERNAL"
    grpc_code: ClassVar[str] = "INTERNAL"
    http_status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False

    def __init__(
        self, message: str, *, field: str | None = None, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return f"{self.field}: {self.message}" if self.field else self.message


class InvalidArgument(RedServeError):
    """The request is wrong as it stands; `field` names where, the message the mend."""

    reason = "INVALID_ARGUMENT"
    grpc_code = "INVALID_ARGUMENT"
    http_status = 400


class PolicyViolation(InvalidArgument):
    """A size, count, pixel or fetch policy refuses the request."""

    reason = "POLICY_VIOLATION"


class ContextTooLong(InvalidArgument):
    """Prompt and requested output do not fit the context length or the KV cache."""

    reason = "CONTEXT_TOO_LONG"


class ModelNotFound(RedServeError):
    """The named model is not served here, or the checkpoint does not exist."""

    reason = "MODEL_NOT_FOUND"
    grpc_code = "NOT_FOUND"
    http_status = 404


class UnsupportedModel(RedServeError):
    """The checkpoint exists but cannot be served; the message says why."""

    reason = "UNSUPPORTED_MODEL"
    grpc_code = "FAILED_PRECONDITION"
    http_status = 400


class Overloaded(RedServeError):
    """A queue or pool is full; `retry_after_s` says when to come back."""

    reason = "OVERLOADED"
    grpc_code = "RESOURCE_EXHAUSTED"
    http_status = 429
    retryable = True


class DeadlineExceeded(RedServeError):
    """The deadline of the call passed before it was done."""

    reason = "DEADLINE_EXCEEDED"
    grpc_code = "DEADLINE_EXCEEDED"
    http_status = 504


class Cancelled(RedServeError):
    """The caller went away or asked to stop."""

    reason = "CANCELLED"
    grpc_code = "CANCELLED"
    http_status = 499


class Unavailable(RedServeError):
    """A replica or a whole pool cannot be reached; a retry may succeed."""

    reason = "UNAVAILABLE"
    grpc_code = "UNAVAILABLE"
    http_status = 503
    retryable = True


class PeerLost(Unavailable):
    """The peer of a transfer died or came back as another incarnation."""

    reason = "PEER_LOST"


class TensorGone(Unavailable):
    """The peer lives but does not have the tensor (any more); it must be made again."""

    reason = "TENSOR_GONE"


class CorruptTransfer(Unavailable):
    """A checksum or lease did not hold; the bytes were thrown away."""

    reason = "CORRUPT_TRANSFER"


class ConfigError(RedServeError):
    """A manifest, flag or setting is wrong; the message names file, line, field and mend."""

    reason = "CONFIG_ERROR"
    grpc_code = "FAILED_PRECONDITION"


class InternalError(RedServeError):
    """A broken invariant: never the client's fault."""


ALL_ERRORS: tuple[type[RedServeError], ...] = (
    InvalidArgument,
    PolicyViolation,
    ContextTooLong,
    ModelNotFound,
    UnsupportedModel,
    Overloaded,
    DeadlineExceeded,
    Cancelled,
    Unavailable,
    PeerLost,
    TensorGone,
    CorruptTransfer,
    ConfigError,
    InternalError,
)
"""Every concrete error; `redserve.wire.errors` finds the class of a `reason` here."""
