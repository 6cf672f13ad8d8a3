"""The memory of a pool: one contiguous piece, on the host or on a device.

A backend registers it once with its NIC, and it is never unmapped while the process lives: memory
that a peer may still read or write must not vanish.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import weakref
from typing import TYPE_CHECKING, Final, Literal, Protocol

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

Memory = Literal["dram", "vram"]

_ALIGNMENT: Final = 4096
"""Bytes; a host slab starts on a memory page, so every page of a pool is aligned to it."""


class Slab(Protocol):
    """Bytes [0, num_bytes) that a pool hands out."""

    @property
    def num_bytes(self) -> int:
        """Size."""
        ...

    @property
    def address(self) -> int:
        """Virtual address of the first byte."""
        ...

    @property
    def memory(self) -> Memory:
        """Host or device."""
        ...

    @property
    def device_id(self) -> int:
        """Number of the device; 0 for host memory."""
        ...

    @property
    def host(self) -> NDArray[np.uint8] | None:
        """The bytes, uint8 of shape [num_bytes]; None when they are not host memory."""
        ...

    def enter_thread(self) -> None:
        """Prepare the calling thread for work with this memory, for good.

        Raises:
            RuntimeError: The device does not answer.
        """
        ...

    def read(self, start: int, end: int) -> memoryview:
        """Bytes [start, end): the memory itself on the host, a copy of a device's."""
        ...

    def write(self, start: int, data: bytes | memoryview) -> None:
        """Put `data` at `start`; it is there when this returns."""
        ...


class _HostBytes:
    """What all host memory has in common."""

    memory: Memory = "dram"
    device_id: int = 0

    def __init__(self, host: NDArray[np.uint8]) -> None:
        self.host: NDArray[np.uint8] = host
        self.num_bytes = len(host)
        self.address = host.ctypes.data

    def enter_thread(self) -> None:
        """See `Slab`."""

    def read(self, start: int, end: int) -> memoryview:
        """See `Slab`."""
        return self.host[start:end].data

    def write(self, start: int, data: bytes | memoryview) -> None:
        """See `Slab`."""
        self.host[start : start + len(data)].data[:] = data


class HostSlab(_HostBytes):
    """Host memory.

    Args:
        num_bytes: Size. Touched now, so that no transfer waits for the kernel to map pages.
    """

    def __init__(self, num_bytes: int) -> None:
        memory = np.empty(num_bytes + _ALIGNMENT, np.uint8)
        start = -memory.ctypes.data % _ALIGNMENT
        super().__init__(memory[start : start + num_bytes])
        self.host.fill(0)


class SharedSlab(_HostBytes):
    """Host memory that another process can map as well, by its file descriptor.

    It has no name: whoever is not given the descriptor cannot find it, and the kernel takes the
    memory back with the last process that maps it.

    Args:
        num_bytes: Size, of whole memory pages. The kernel maps, and zeroes, all of them now.
        descriptor: Of a slab that another process made, to map that one and only read it; the
            caller keeps it.

    Attributes:
        descriptor: What to pass on; closed with the slab that made it.

    Raises:
        OSError: The kernel has no such memory, or `descriptor` is not of such a slab.
    """

    def __init__(self, num_bytes: int, descriptor: int | None = None) -> None:
        if descriptor is None:
            self.descriptor = os.memfd_create(
                "redserve-pool", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
            )
            weakref.finalize(self, os.close, self.descriptor)
            os.ftruncate(self.descriptor, num_bytes)
            # Nobody who maps it can have it shrink under the others, who would die of it.
            seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
            fcntl.fcntl(self.descriptor, fcntl.F_ADD_SEALS, seals)
        else:
            self.descriptor = descriptor
        how = mmap.MAP_SHARED | mmap.MAP_POPULATE
        may = mmap.PROT_READ if descriptor is not None else mmap.PROT_READ | mmap.PROT_WRITE
        memory = mmap.mmap(self.descriptor, num_bytes, how, may)
        memory.madvise(mmap.MADV_DONTDUMP)  # embeddings are as confidential as their pictures
        super().__init__(np.frombuffer(memory, np.uint8))
