"""Server-sent events, and work that ends when the client goes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic_core import to_json
from starlette.responses import Response

from redserve.errors import Cancelled

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Coroutine, Mapping

    from starlette.types import Receive, Scope, Send

T = TypeVar("T")
DONE = b"data: [DONE]\n\n"


def sse_data(content: Mapping[str, Any], event: str | None = None) -> bytes:
    """One server-sent event."""
    head = b"" if event is None else f"event: {event}\n".encode()
    return head + b"data: " + to_json(content, inf_nan_mode="constants") + b"\n\n"


async def until_disconnected(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is cancelled when the client closes its connection.

    Args:
        receive: The request's; its body must have been read.
        work: What to do meanwhile.

    Raises:
        Cancelled: The client has gone.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        gone.cancel()
        if not task.done():
            task.cancel()
            await asyncio.wait({task})
    if task.cancelled():
        raise Cancelled("the client has closed the connection")
    return task.result()


class EventStream(Response):
    """Sends pieces as they are made; closes their generator however it ends."""

    def __init__(self, pieces: AsyncGenerator[bytes, None]) -> None:
        super().__init__(
            media_type="text/event-stream",
            # Proxies must not hold tokens back.
            headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
        )
        del self.headers["content-length"]
        self._pieces = pieces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        try:
            await send(
                {
                    "type": "http.response.start",
                    "status": self.status_code,
                    "headers": self.raw_headers,
                }
            )
            await until_disconnected(receive, self._send_all(send))
        except Cancelled:
            return  # nobody is there to be told
        finally:
            await self._pieces.aclose()

    async def _send_all(self, send: Send) -> None:
        async for piece in self._pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
