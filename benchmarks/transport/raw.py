"""The limits of the machine: a copy out of another process's memory, and a socket."""

from __future__ import annotations

import ctypes
import mmap
import os
import socket
import struct
import threading
from typing import TYPE_CHECKING, Final

import numpy as np

from benchmarks.transport import plan
from benchmarks.transport.lines import Child

if TYPE_CHECKING:
    from numpy.typing import NDArray

_REQUEST: Final = struct.Struct("!QQ")
"""Bytes per message, and how many of them."""
_PRODUCER: Final = "benchmarks.transport.producer"


def touched(num_bytes: int) -> NDArray[np.uint8]:
    """Memory whose pages are there."""
    memory = np.empty(num_bytes, np.uint8)
    memory.fill(1)
    return memory


class Memcpy:
    """One thread copies from memory that another process has written and shares."""

    def __init__(self) -> None:
        self._destination = touched(plan.WORKING_SET)
        fd = os.memfd_create("redserve-bench")
        os.ftruncate(fd, plan.WORKING_SET)
        self._producer = Child(_PRODUCER, plan.MEMCPY, str(fd), pass_fds=(fd,))
        self._map = mmap.mmap(fd, plan.WORKING_SET)
        os.close(fd)
        self._source = np.frombuffer(self._map, np.uint8)
        self._num_bytes = 0

    async def prepare(self, num_bytes: int, num_slots: int) -> None:
        """See `DataPath`."""
        self._num_bytes = num_bytes

    async def read(self, slot: int) -> None:
        """See `DataPath`."""
        start = slot * self._num_bytes
        ctypes.memmove(
            self._destination.ctypes.data + start,
            self._source.ctypes.data + start,
            self._num_bytes,
        )

    async def burst(self, slots: list[int]) -> None:
        """See `DataPath`."""
        size, to, source = (
            self._num_bytes,
            self._destination.ctypes.data,
            self._source.ctypes.data,
        )
        for slot in slots:
            ctypes.memmove(to + slot * size, source + slot * size, size)

    async def close(self) -> None:
        """See `DataPath`."""
        self._producer.close()


class Socket:
    """Blocking sendall and recv_into over loopback, nothing else."""

    def __init__(self) -> None:
        self._destination = touched(plan.WORKING_SET).data
        self._producer = Child(_PRODUCER, plan.SOCKET)
        self._socket = socket.create_connection(("127.0.0.1", self._producer.hello["port"]))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._num_bytes = 0

    async def prepare(self, num_bytes: int, num_slots: int) -> None:
        """See `DataPath`."""
        self._num_bytes = num_bytes

    async def read(self, slot: int) -> None:
        """See `DataPath`."""
        await self.burst([slot])

    async def burst(self, slots: list[int]) -> None:
        """See `DataPath`."""
        size = self._num_bytes
        self._socket.sendall(_REQUEST.pack(size, len(slots)))
        for slot in slots:
            position, end = slot * size, (slot + 1) * size
            while position < end:
                received = self._socket.recv_into(self._destination[position:end])
                if not received:
                    raise RuntimeError("the producer hung up")
                position += received

    async def close(self) -> None:
        """See `DataPath`."""
        self._socket.close()
        self._producer.close()


def share_memory(fd: int) -> mmap.mmap:
    """The producer of `Memcpy`: write the memory, so that its pages are there."""
    shared = mmap.mmap(fd, plan.WORKING_SET)
    np.frombuffer(shared, np.uint8)[:] = 2
    return shared


def serve_socket() -> int:
    """The producer of `Socket`, in a thread; returns the port."""
    server = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=_serve_one, args=(server,), daemon=True).start()
    port: int = server.getsockname()[1]
    return port


def _serve_one(server: socket.socket) -> None:
    memory = touched(plan.WORKING_SET).data
    connection, _ = server.accept()
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with server, connection:
        while request := connection.recv(_REQUEST.size, socket.MSG_WAITALL):
            size, count = _REQUEST.unpack(request)
            num_slots = plan.num_slots(size)
            for index in range(count):
                start = index % num_slots * size
                connection.sendall(memory[start : start + size])
