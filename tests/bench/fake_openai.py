"""An OpenAI-compatible server that streams what a script says."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

DONE = "data: [DONE]\n\n"


def event(content: Any, end: str = "\n") -> str:
    return f"data: {json.dumps(content)}{end}{end}"


def text(words: str, finish_reason: str | None = None) -> str:
    choice = {"index": 0, "delta": {"content": words}, "finish_reason": finish_reason}
    return event({"choices": [choice]})


def usage(num_tokens: int) -> str:
    return event({"choices": [], "usage": {"completion_tokens": num_tokens}})


WHOLE = (text(""), text("one"), text(" two"), text("", "stop"), usage(5), DONE)


class FakeOpenAi:
    """Attributes to script it.

    status, refusal: Of every answer; the body if the status is not 200.
    pieces: What it streams.
    content_type: What it calls that; None says nothing.
    models: Names that it lists.
    before_piece: Awaited before piece n.
    bodies, keys: What was asked, and with which Authorization.
    """

    def __init__(self) -> None:
        self.status = 200
        self.refusal = ""
        self.pieces: tuple[str, ...] = WHOLE
        self.content_type: str | None = "text/event-stream"
        self.models: tuple[str, ...] = ("peer",)
        self.before_piece: Callable[[int], Awaitable[None]] | None = None
        self.bodies: list[dict[str, Any]] = []
        self.keys: list[str | None] = []

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        self.bodies.append(await request.json())
        self.keys.append(request.headers.get("Authorization"))
        if self.status != 200:
            return web.Response(status=self.status, text=self.refusal)
        response = web.StreamResponse(headers={"Content-Type": self.content_type or ""})
        await response.prepare(request)
        for number, piece in enumerate(self.pieces):
            if self.before_piece is not None:
                await self.before_piece(number)
            await response.write(piece.encode())
        return response

    async def _call(self, _request: web.Request, response: web.StreamResponse) -> None:
        if self.content_type is None:
            # The library would give it one.
            response.headers.pop("Content-Type", None)

    async def _models(self, _request: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": name} for name in self.models]})

    @asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        """Yields the base address."""
        app = web.Application(client_max_size=2**26)
        app.on_response_prepare.append(self._call)
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_get("/v1/models", self._models)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        finally:
            await runner.cleanup()
