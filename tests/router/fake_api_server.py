"""An API server that knows EndpointSlices only, over real HTTP, and misbehaves as told."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from tests.router.journal import Journal

NAMESPACE = "here"
PATH = f"/apis/discovery.k8s.io/v1/namespaces/{NAMESPACE}/endpointslices"
TOKEN = "first-token"


def endpoint(address: str, **conditions: bool | None) -> dict[str, Any]:
    return {"addresses": [address], "conditions": conditions}


def slice_object(
    name: str, service: str, *endpoints: dict[str, Any], port: int = 50051, **fields: Any
) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4",
        "ports": [{"name": "metrics", "port": 9090}, {"name": "grpc", "port": port}],
        "endpoints": list(endpoints),
        **fields,
    }


class FakeApiServer:
    """Attributes to script it.

    token: What it takes for one of its own.
    refusal: (status, message) with which it answers everything, or None.
    headers: More headers for refusals.
    refuse_watches: `refusal` is for watches only.
    silent: Watches begin and then say nothing, not even that their time is over.
    forgets: Watches from a version before this one are expired...
    expire_late: ... which is told by an event after 200, as busy servers do.
    bookmark: A version to tell at the beginning of every watch.
    piece: Bytes of one write of a watch; 0 writes whole events.
    garbage: Sent at the beginning of the next watch.
    ends_at_once: Watches end as soon as they have said what there is.
    """

    def __init__(self) -> None:
        self.journal = Journal()
        self.token = TOKEN
        self.refusal: tuple[int, str] | None = None
        self.headers: dict[str, str] = {}
        self.refuse_watches = False
        self.silent = False
        self.forgets = 0
        self.expire_late = False
        self.bookmark = 0
        self.piece = 0
        self.garbage = b""
        self.ends_at_once = False
        self.port = 0
        self._version = 100
        self._slices: dict[str, dict[str, Any]] = {}
        self._history: list[tuple[int, str, dict[str, Any]]] = []
        self._moved = asyncio.Event()
        self._ended = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Gone at once; what it knows stays, as in etcd."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def num_connections(self) -> int:
        return len(self._writers)

    def cut(self) -> None:
        """Break every connection."""
        for writer in self._writers:
            writer.transport.abort()

    def end_watches(self) -> None:
        """As after their time."""
        self._ended.set()
        self._ended = asyncio.Event()

    def compact(self) -> None:
        """From now on what was told so far is too old to go on from."""
        self._version += 100
        self.forgets = self._version

    def put(self, told: dict[str, Any]) -> None:
        name = told["metadata"]["name"]
        self._note("MODIFIED" if name in self._slices else "ADDED", told)
        self._slices[name] = told

    def remove(self, name: str) -> None:
        self._note("DELETED", self._slices.pop(name))

    def _note(self, kind: str, told: dict[str, Any]) -> None:
        self._version += 1
        told["metadata"]["resourceVersion"] = str(self._version)
        self._history.append((self._version, kind, json.loads(json.dumps(told))))
        self._moved.set()
        self._moved = asyncio.Event()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                first, *lines = head.strip().split("\r\n")
                headers = {
                    name.lower(): value.strip()
                    for name, _, value in (line.partition(":") for line in lines)
                }
                await self._answer(reader, writer, first.split(" ")[1], headers)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _answer(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        target: str,
        headers: dict[str, str],
    ) -> None:
        parts = urlsplit(target)
        parameters = dict(parse_qsl(parts.query))
        word = "watch" if "watch" in parameters else "list"
        self.journal.note(word, parameters)
        self.journal.note("at", asyncio.get_running_loop().time())
        if parts.path != PATH:
            self._refuse(writer, 404, f"no such path: {parts.path}")
        elif headers.get("authorization") != f"Bearer {self.token}":
            self._refuse(writer, 401, "Unauthorized")
        elif self.refusal is not None and (word == "watch" or not self.refuse_watches):
            self._refuse(writer, *self.refusal)
        elif word == "list":
            self._write(writer, 200, self._listing())
        elif int(parameters["resourceVersion"]) < self.forgets and not self.expire_late:
            self._refuse(writer, 410, "too old resource version")
        else:
            await self._watch(reader, writer, parameters)

    def _listing(self) -> dict[str, Any]:
        items = [json.loads(json.dumps(told)) for told in self._slices.values()]
        # Empty lists are null in Go.
        return {"metadata": {"resourceVersion": str(self._version)}, "items": items or None}

    def _refuse(self, writer: asyncio.StreamWriter, status: int, message: str) -> None:
        body = {"kind": "Status", "code": status, "message": message}
        self._write(writer, status, body, self.headers)

    def _write(
        self,
        writer: asyncio.StreamWriter,
        status: int,
        body: dict[str, Any],
        headers: dict[str, str] | None = None,
    ) -> None:
        data = json.dumps(body).encode()
        more = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
        head = f"HTTP/1.1 {status} Said\r\nContent-Length: {len(data)}\r\n{more}\r\n"
        writer.write(head.encode() + data)

    async def _watch(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        parameters: dict[str, str],
    ) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        version = int(parameters["resourceVersion"])
        if self.garbage:
            self._chunk(writer, self.garbage)
            self.garbage = b""
        if version < self.forgets:
            expired = {"kind": "Status", "code": 410, "message": "too old resource version"}
            self._event(writer, "ERROR", expired)
        else:
            if self.bookmark:
                told = {"metadata": {"resourceVersion": str(self.bookmark)}}
                self._event(writer, "BOOKMARK", told)
            # A client in a watch has nothing to say: what can be read is its end.
            gone: asyncio.Future[Any] = asyncio.ensure_future(reader.read(1))
            ended: asyncio.Future[Any] = asyncio.ensure_future(self._ended.wait())
            try:
                async with asyncio.timeout(float(parameters["timeoutSeconds"])):
                    await self._tell(writer, version, gone, ended)
            except TimeoutError:
                pass
            finally:
                gone.cancel()
                ended.cancel()
                await asyncio.wait({gone, ended})
        writer.write(b"0\r\n\r\n")
        await writer.drain()

    async def _tell(
        self,
        writer: asyncio.StreamWriter,
        version: int,
        gone: asyncio.Future[Any],
        ended: asyncio.Future[Any],
    ) -> None:
        if self.silent:
            await gone
        while not (ended.done() or gone.done()):
            moved = asyncio.ensure_future(self._moved.wait())
            for at, kind, told in self._history:
                if at > version:
                    version = at
                    self._event(writer, kind, told)
            if self.ends_at_once:
                moved.cancel()
                return
            await asyncio.wait({ended, moved, gone}, return_when=asyncio.FIRST_COMPLETED)
            moved.cancel()

    def _event(self, writer: asyncio.StreamWriter, kind: str, told: dict[str, Any]) -> None:
        event = {"type": kind, "object": told}
        # As Go writes it: what is not ASCII stays as it is.
        self._chunk(writer, json.dumps(event, ensure_ascii=False).encode() + b"\n")

    def _chunk(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        size = self.piece or len(data)
        for start in range(0, len(data), size):
            piece = data[start : start + size]
            writer.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
