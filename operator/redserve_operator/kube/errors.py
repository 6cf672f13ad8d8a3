"""What the API server's refusals mean to a caller.

    KubeError
    ├── Retryable     429, 500, 502, 503, 504, no connection, no answer in time; retried already
    ├── Conflict      409: it exists, or it is not what the caller saw any more
    ├── NotFound      404: the object or its kind is not there (any more)
    ├── Invalid       400, 415, 422: the object is wrong as it stands
    ├── Forbidden     403: no right to do it, or an admission refuses it
    │   └── NamespaceEnds the namespace is being deleted, and everything in it
    └── Unauthorized  401: the credentials are not valid

Every error carries the server's own sentence.
"""

from __future__ import annotations

import json
from typing import Any


class KubeError(Exception):
    """A call of the API server that failed.

    Attributes:
        status: HTTP status; 0 when there was no answer.
        message: The server's sentence.
        reason: The server's word, such as `AlreadyExists`; empty when it gave none.
        retry_after_s: When the server wants to be asked again, seconds; None when it did not say.
    """

    def __init__(
        self, message: str, *, status: int = 0, reason: str = "", retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.reason = reason
        self.retry_after_s = retry_after_s


class Retryable(KubeError):
    """The server is busy, broken or away; the same call may succeed later."""


class Conflict(KubeError):
    """The object exists, or is not what the caller saw any more."""


class NotFound(KubeError):
    """The object, its namespace or its kind is not there."""


class Invalid(KubeError):
    """The object is wrong as it stands; the same call will fail again."""


class Forbidden(KubeError):
    """No right to do it, or an admission refuses it.

    `by_admission` tells the two apart: a right that is missing is the operator's trouble, an
    admission's refusal (pod security, quota, policy) is about the object.
    """

    @property
    def by_admission(self) -> bool:
        """Whether the caller has the right and the object was refused."""
        return " cannot " not in self.message or " is forbidden: User " not in self.message

    @property
    def by_account(self) -> bool:
        """Whether the ServiceAccount of a pod is not there."""
        return "error looking up service account" in self.message

    @property
    def by_quota(self) -> bool:
        """Whether a ResourceQuota is used up: it passes, unlike a wrong object."""
        return "exceeded quota" in self.message


class NamespaceEnds(Forbidden):
    """The namespace is being deleted: nothing new is taken, and nothing is wanted any more."""


class Unauthorized(KubeError):
    """The credentials are not valid."""


_KINDS: dict[int, type[KubeError]] = {
    400: Invalid,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: NotFound,
    415: Invalid,
    422: Invalid,
    408: Retryable,
    429: Retryable,
    500: Retryable,
    502: Retryable,
    503: Retryable,
    504: Retryable,
}


_ENDING = "because it is being terminated"
_UNTYPED = "failed to create typed patch object"
"""An apply with an unknown field: the API server calls it an error of its own, and it is none."""


def error_from(status: int, body: bytes, retry_after: str | None) -> KubeError:
    """The error of an answer that is no success; never raises.

    Args:
        status: HTTP status.
        body: A Kubernetes `Status`, or whatever a proxy in between wrote.
        retry_after: The header of that name, in seconds; dates are not read.
    """
    answer = _status_object(body)
    message = str(answer.get("message") or "") or _shortened(body) or f"HTTP {status}"
    details = answer.get("details")
    seconds = _seconds(retry_after)
    if seconds is None and isinstance(details, dict):
        seconds = _seconds(details.get("retryAfterSeconds"))
    if status == 403 and _ENDING in message:
        return NamespaceEnds(message, status=status)
    if status == 500 and _UNTYPED in message:
        return Invalid(message, status=status)
    kind = _KINDS.get(status, Retryable if status >= 500 else KubeError)
    return kind(
        message, status=status, reason=str(answer.get("reason") or ""), retry_after_s=seconds
    )


def _status_object(body: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(body)
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}


def _shortened(body: bytes) -> str:
    return body[:200].decode("utf-8", "replace").strip()


def _seconds(value: object) -> float | None:
    if not isinstance(value, int | float | str):
        return None
    try:
        seconds = float(value)
    except ValueError:
        return None
    return seconds if seconds > 0 else None
