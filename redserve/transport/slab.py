"""The memory of a pool: one contiguous piece, on the host or on a device.

A backend registers it once with its NIC, and it is never unmapped while the process lives: memory
that a peer may still read or write must not vanish.
"""

from __future__ import annotations

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


class HostSlab:
    """Host memory.

    Args:
        num_bytes: Size. Touched now, so that no transfer waits for the kernel to map pages.
    """

    memory: Memory = "dram"
    device_id: int = 0

    def __init__(self, num_bytes: int) -> None:
        memory = np.empty(num_bytes + _ALIGNMENT, np.uint8)
        start = -memory.ctypes.data % _ALIGNMENT
        self.host: NDArray[np.uint8] = memory[start : start + num_bytes]
        self.host.fill(0)
        self.num_bytes = num_bytes
        self.address = self.host.ctypes.data

    def enter_thread(self) -> None:
        """See `Slab`."""

    def read(self, start: int, end: int) -> memoryview:
        """See `Slab`."""
        return self.host[start:end].data

    def write(self, start: int, data: bytes | memoryview) -> None:
        """See `Slab`."""
        self.host[start : start + len(data)].data[:] = data
