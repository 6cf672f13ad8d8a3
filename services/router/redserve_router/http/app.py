"""Routes of the HTTP door."""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING, Any

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.exposition import choose_encoder
from pydantic_core import to_json
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Route

from redserve.errors import ModelNotFound, RedServeError
from redserve_router.http.chat import ChatEndpoint
from redserve_router.http.errors import on_bug, on_http_exception, on_redserve_error
from redserve_router.http.visitors import Visitors
from redserve_router.validate import is_request_id

if TYPE_CHECKING:
    from collections.abc import Callable

    from prometheus_client import CollectorRegistry
    from starlette.requests import Request
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from redserve_router.dispatch.dispatcher import Dispatcher
    from redserve_router.http.page.playground import Playground
    from redserve_router.http.visitors import OwnHosts
    from redserve_router.refusals import Refusals

REQUEST_ID_HEADER = "x-request-id"
OPEN_METRICS = "application/openmetrics-text"
BODY_OVERHEAD_BYTES = 1024 * 1024
"""For text and JSON around the pictures."""


def max_body_bytes(max_request_bytes: int) -> int:
    """Most bytes that may carry pictures of so many bytes: base64 makes three bytes four."""
    return max_request_bytes * 4 // 3 + BODY_OVERHEAD_BYTES


class HttpDoor:
    """Makes the ASGI application.

    Args:
        dispatcher: Answers chat completions.
        model_name: Served name.
        token_text: Text of one token id, for logprobs.
        registry: For /metrics.
        why_not_ready: A reason, or None when requests can be answered.
        max_request_bytes: Of all pictures of a request together.
        refusals: Takes note of bodies that are no request.
        playground: The page for people; None serves none.
        own_hosts: Under which names browsers may ask for it; None allows any.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        *,
        model_name: str,
        token_text: Callable[[int], str],
        registry: CollectorRegistry,
        why_not_ready: Callable[[], str | None],
        max_request_bytes: int,
        refusals: Refusals,
        playground: Playground | None = None,
        own_hosts: OwnHosts | None = None,
    ) -> None:
        self._model_name = model_name
        self._registry = registry
        self._why_not_ready = why_not_ready
        self._playground = playground
        self._own_hosts = own_hosts
        self._created = int(time.time())
        self._chat = ChatEndpoint(
            dispatcher, token_text, max_body_bytes(max_request_bytes), refusals
        )

    def app(self) -> ASGIApp:
        """The application, with request ids around everything."""
        routes = [
            Route("/v1/chat/completions", self._chat_completions, methods=["POST"]),
            Route("/v1/models", self._models, methods=["GET"]),
            Route("/v1/models/{name:path}", self._model, methods=["GET"]),
            Route("/health", self._health, methods=["GET"]),
            Route("/metrics", self._metrics, methods=["GET"]),
        ]
        page = [] if self._playground is None else self._playground.routes()
        handlers: dict[Any, Any] = {
            RedServeError: on_redserve_error,
            HTTPException: on_http_exception,
            Exception: on_bug,
        }
        inner = Starlette(routes=[*routes, *page], exception_handlers=handlers)
        page_paths = [route.path for route in page]
        return RequestIds(Visitors(inner, own_hosts=self._own_hosts, page_paths=page_paths))

    async def _chat_completions(self, request: Request) -> Response:
        return await self._chat(request)

    async def _models(self, _request: Request) -> Response:
        return _json({"object": "list", "data": [self._model_object()]})

    async def _model(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name != self._model_name:
            raise ModelNotFound(
                f"model {name!r} is not served here: ask for {self._model_name!r}", field="model"
            )
        return _json(self._model_object())

    async def _health(self, _request: Request) -> Response:
        reason = self._why_not_ready()
        if reason is None:
            return _json({"status": "ready"})
        return _json({"status": "not ready", "reason": reason}, 503)

    async def _metrics(self, request: Request) -> Response:
        accepted = request.headers.get("accept", "")
        if OPEN_METRICS in accepted:  # only this format has exemplars
            encode, kind = choose_encoder(accepted)
            page = encode(self._registry)
        else:
            page, kind = generate_latest(self._registry), CONTENT_TYPE_LATEST
        return Response(page, headers={"Content-Type": kind})

    def _model_object(self) -> dict[str, Any]:
        return {
            "id": self._model_name,
            "object": "model",
            "created": self._created,
            "owned_by": "redserve",
        }


class RequestIds:
    """Middleware: a client's `x-request-id` in, the request's id out, on every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        wanted = b"".join(
            value for name, value in scope["headers"] if name == REQUEST_ID_HEADER.encode()
        ).decode("latin-1")
        state = scope.setdefault("state", {})
        state["request_id"] = wanted if is_request_id(wanted) else uuid.uuid4().hex

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[REQUEST_ID_HEADER] = state["request_id"]
            await send(message)

        await self._app(scope, receive, send_with_id)


def _json(content: dict[str, Any], status: int = 200) -> Response:
    return Response(to_json(content), status, media_type="application/json")
