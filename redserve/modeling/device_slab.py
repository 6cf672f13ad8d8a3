"""Memory of a device as the memory of a pool (`redserve.transport.slab.Slab`).

Chosen where a NIC reads and writes it by RDMA; see `redserve.transport.placement`.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
import torch

from redserve.errors import ConfigError
from redserve.modeling.gpu_direct import CudaDriver, can_flush, why_unreachable

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from numpy.typing import NDArray
    from torch import Tensor

    from redserve.modeling.gpu_direct import Driver

_ALIGNMENT: Final = 64 << 10
"""Bytes; a page of a GPU, as a NIC maps it."""

_FOR_EVER: Final[list[Tensor]] = []
"""A peer may read and write by RDMA until the process ends, whoever has let go of the slab."""


class DeviceSlab:
    """Bytes in the memory of a device. Thread-safe where nobody touches the same bytes.

    Copies from and to the host have a stream of their own: on the model's they would wait for the
    step that is computed.

    Args:
        num_bytes: Size.
        device: CUDA, or for tests the CPU, whose memory is then treated like a device's.
        driver: Of CUDA; for a device that needs one.

    Attributes:
        tensor: The bytes, uint8 of shape [num_bytes]. Whoever writes them synchronises its stream
            before anybody is told: a NIC does not wait for streams. For what a NIC has written,
            see `piece`.

    Raises:
        ConfigError: The device has no room for it.
    """

    memory: Literal["dram", "vram"] = "vram"
    host: NDArray[np.uint8] | None = None

    def __init__(self, num_bytes: int, device: torch.device, driver: Driver | None = None) -> None:
        try:
            memory = torch.zeros(num_bytes + _ALIGNMENT, dtype=torch.uint8, device=device)
        except torch.OutOfMemoryError as error:
            raise ConfigError(
                f"{device} has no room for {num_bytes} bytes of embeddings; lower pool_bytes or "
                "arena_bytes, or what else uses the device"
            ) from error
        start = -memory.data_ptr() % _ALIGNMENT
        self.tensor = memory[start : start + num_bytes]
        self.num_bytes = num_bytes
        self.address = self.tensor.data_ptr()
        self.device_id = device.index or 0
        self._stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            _FOR_EVER.append(memory)
            torch.cuda.synchronize(device)  # the zeros are there before anybody writes
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            driver = driver or CudaDriver()
        self._driver = driver
        self._flushes = driver is not None and can_flush(driver, self.device_id)

    def enter_thread(self) -> None:
        """Make the device's context current in the calling thread.

        Raises:
            RuntimeError: The device does not answer.
        """
        if self._driver is not None:
            self._driver.enter_thread(self.device_id)

    def read(self, start: int, end: int) -> memoryview:
        """A copy on the host; blocks until it is there."""
        self.flush()
        with self._on_stream():
            copy = self.tensor[start:end].to("cpu", copy=True)
        return copy.numpy().data

    def write(self, start: int, data: bytes | memoryview) -> None:
        """Copy from the host; blocks until it is there for every stream."""
        source = torch.from_numpy(np.frombuffer(data, np.uint8).copy())
        with self._on_stream():
            self.tensor[start : start + len(source)].copy_(source)
            if self._stream is not None:
                self._stream.synchronize()

    def piece(self, start: int, end: int) -> DevicePiece:
        """Bytes [start, end) as somebody else may have written them."""
        return DevicePiece(self, start, end)

    def flush(self) -> None:
        """What a NIC has finished writing is visible to all work that is submitted after this.

        Raises:
            RuntimeError: The device does not answer.
        """
        if self._flushes and self._driver is not None:
            self._driver.flush(self.device_id)

    def _on_stream(self) -> AbstractContextManager[Any]:
        return nullcontext() if self._stream is None else torch.cuda.stream(self._stream)


@dataclass(frozen=True, slots=True)
class DevicePiece:
    """Bytes [start, end) of a slab, into which a NIC may have written."""

    slab: DeviceSlab
    start: int
    end: int

    def tensor(self) -> Tensor:
        """The memory itself, uint8 of shape [end - start], for work submitted from now on.

        Raises:
            RuntimeError: The device does not answer.
        """
        self.slab.flush()
        return self.slab.tensor[self.start : self.end]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[np.uint8]:
        """A copy on the host, for whoever computes there."""
        if copy is False:
            raise ValueError("device memory has no view on the host")
        return np.frombuffer(self.slab.read(self.start, self.end), np.uint8)


class CudaMemory:
    """Memory of the CUDA device that a model computes on, for a pool.

    Args:
        device: Which.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def why_unreachable(self) -> str | None:
        """Why a NIC cannot read and write it, and have it seen; None if it can."""
        try:
            return why_unreachable(CudaDriver(), self._device.index or 0)
        except RuntimeError as error:
            return str(error)

    def make_slab(self, num_bytes: int) -> DeviceSlab:
        """Take it. Raises ConfigError: there is no room."""
        return DeviceSlab(num_bytes, self._device)


def device_memory(device: torch.device) -> CudaMemory | None:
    """Memory near a model that computes on `device`; None when that is the host's."""
    return CudaMemory(device) if device.type == "cuda" else None
