"""A server that answers with bytes of a test's choice, HTTP or not."""

from __future__ import annotations

import asyncio
import re
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

MODELS: Final = b'{"data": [{"id": "peer"}]}'
MAX_SENT: Final = 2**28
"""A client that still reads after so many bytes has no bound."""


def head(status: str, *fields: str) -> bytes:
    return "\r\n".join((f"HTTP/1.1 {status}", *fields, "", "")).encode()


def whole(body: bytes, status: str = "200 OK", kind: str = "application/json") -> bytes:
    return head(status, f"content-type: {kind}", f"content-length: {len(body)}") + body


class RawServer:
    """Each connection has one question and one answer.

    Args:
        answer: To whoever asks for a completion.
        endless: Sent over and over after it, until the client leaves; empty closes at once.
        models: The answer to whoever asks for the list.
        hangs: Whether nothing comes after that, and no end.

    Attributes:
        num_sent: Bytes of `endless` that one client took, at most.
        asked, bodies: Head and body of each question for a completion.
    """

    def __init__(
        self,
        answer: bytes = b"",
        *,
        endless: bytes = b"",
        models: bytes | None = None,
        hangs: bool = False,
    ) -> None:
        self._answer = answer
        self._endless = endless
        self._models = whole(MODELS) if models is None else models
        self._hangs = hangs
        self.num_sent = 0
        self.asked: list[bytes] = []
        self.bodies: list[bytes] = []

    @asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        """Yields the base address."""
        tasks: set[asyncio.Task[None]] = set()

        def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.create_task(self._serve(reader, writer))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

        server = await asyncio.start_server(connected, "127.0.0.1", 0)
        try:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        finally:
            server.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            try:
                await self._answer_to(reader, writer)
            finally:
                writer.close()
                await writer.wait_closed()

    async def _answer_to(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = await reader.readuntil(b"\r\n\r\n")
        if asked.startswith(b"GET"):
            writer.write(self._models)
            await writer.drain()
            if self._hangs:
                await reader.read()
            return
        (length,) = re.findall(rb"content-length: (\d+)", asked.lower())
        self.asked.append(asked)
        self.bodies.append(await reader.readexactly(int(length)))
        writer.write(self._answer)
        await writer.drain()
        sent = 0
        while self._endless and sent < MAX_SENT:
            writer.write(self._endless)
            await writer.drain()
            sent += len(self._endless)
            self.num_sent = max(self.num_sent, sent)
