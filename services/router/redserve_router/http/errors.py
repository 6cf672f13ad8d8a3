"""The error tree as OpenAI's error object."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic_core import to_json
from starlette.responses import Response

from redserve.errors import InternalError, RedServeError
from redserve.telemetry.log import get_logger
from redserve.telemetry.tracing import Origin, context_of

if TYPE_CHECKING:
    from starlette.exceptions import HTTPException
    from starlette.requests import Request

log = get_logger()

DEFAULT_RETRY_AFTER_S = 1.0

_TYPES = {
    400: "invalid_request_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    413: "invalid_request_error",
    429: "rate_limit_error",
    499: "cancelled",
    503: "overloaded_error",
    504: "timeout_error",
}


def error_object(error: RedServeError, param: str | None) -> dict[str, Any]:
    """`{"error": {"message", "type", "param", "code"}}`."""
    return _object(error.message, error.http_status, param, error.reason.lower())


def error_response(error: RedServeError, param: str | None) -> Response:
    """An error as a whole answer; says when to come back if the error does."""
    headers = {}
    if error.retryable:
        wait_s = DEFAULT_RETRY_AFTER_S if error.retry_after_s is None else error.retry_after_s
        headers["Retry-After"] = f"{max(1, round(wait_s))}"
    return _response(error.http_status, error_object(error, param), headers)


def too_large(limit_bytes: int) -> Response:
    """The body is larger than the router takes."""
    message = f"the request body has more than {limit_bytes} bytes"
    return _response(413, _object(message, 413, None, "request_too_large"), {"Connection": "close"})


def forbidden(message: str, code: str) -> Response:
    """What came may not be asked for from where it came."""
    return _response(403, _object(message, 403, None, code), {})


async def on_redserve_error(_request: Request, error: Exception) -> Response:
    """Starlette's handler for errors of the tree outside of chat completions."""
    if not isinstance(error, RedServeError):
        raise error
    return error_response(error, error.field)


async def on_http_exception(request: Request, error: Exception) -> Response:
    """Starlette's handler for unknown paths and wrong methods."""
    status: int = _status_of(error)
    path = request.url.path
    messages = {
        404: (f"unknown path {path}", "unknown_path"),
        405: (f"{request.method} is not allowed on {path}", "method_not_allowed"),
    }
    message, code = messages.get(status, (str(error), "http_error"))
    headers = dict(getattr(error, "headers", None) or {})
    return _response(status, _object(message, status, None, code), headers)


async def on_bug(request: Request, error: Exception) -> Response:
    """Starlette's handler for everything else: a bug, told without a word about the inside."""
    origin = Origin(getattr(request.state, "request_id", ""), context_of(request.headers.items()))
    log.error("unhandled exception", path=request.url.path, exc_info=error, **origin.log_ids)
    bug = InternalError("internal error; the server's log has the details")
    return error_response(bug, None)


def _status_of(error: Exception | HTTPException) -> int:
    return int(getattr(error, "status_code", 500))


def _object(message: str, status: int, param: str | None, code: str) -> dict[str, Any]:
    kind = _TYPES.get(status, "server_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def _response(status: int, content: dict[str, Any], headers: dict[str, str]) -> Response:
    return Response(to_json(content), status, headers, media_type="application/json")
