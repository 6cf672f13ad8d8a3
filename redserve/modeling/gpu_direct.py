"""Whether a NIC can reach a GPU's memory, and how what it wrote there becomes visible (GPUDirect).

A read by RDMA is complete for the CPU when the NIC says so. Its bytes took another way, to the GPU:
CUDA orders them before work that the CPU submits later only where the platform says that it does
(`GPU_DIRECT_RDMA_WRITES_ORDERING`), and else after a flush. Neither UCX nor NIXL flushes for the
reader. So we flush before every use, which is nothing where it is not needed, and keep embeddings
in memory of the host where neither can be had.
"""

from __future__ import annotations

import ctypes
import platform
from pathlib import Path
from typing import Final, Protocol

_RDMA_SUPPORTED: Final = 116
_FLUSH_OPTIONS: Final = 117
_WRITES_ORDERING: Final = 118
_DMA_BUF_SUPPORTED: Final = 124
"""Numbers of CUdevice_attribute."""
_FLUSH_BY_HOST: Final = 1
_ORDERED_FOR_OWNER: Final = 100
_CURRENT_CONTEXT: Final = 0
_TO_ALL_DEVICES: Final = 200
"""Values of the flush options, of the ordering, and of the flush's target and scope."""
_PEERMEM: Final = Path("/sys/module/nvidia_peermem")


class Driver(Protocol):
    """What is asked of CUDA's driver; devices by their number in this process."""

    def attribute(self, device: int, number: int) -> int:
        """An attribute of a device. Raises RuntimeError: the driver does not know it."""
        ...

    def flush(self, device: int) -> None:
        """Make what NICs wrote visible. Raises RuntimeError: it cannot."""
        ...

    def enter_thread(self, device: int) -> None:
        """Make torch's context of a device current in this thread. Raises RuntimeError."""
        ...


def why_unreachable(
    driver: Driver, device: int, *, machine: str = platform.machine(), peermem: Path = _PEERMEM
) -> str | None:
    """Why embeddings cannot lie in the memory of a GPU that a NIC shall reach; None if they can.

    Args:
        driver: Of CUDA.
        device: Number of the GPU.
        machine: Architecture of the host.
        peermem: Is there when the kernel module is loaded that lets NICs register GPU memory.
    """
    if machine != "x86_64":
        # Grace: the driver promises order for each way alone (NVLink-C2C, PCIe), not across them.
        return f"on {machine} a NIC's bytes and the word of their arrival may take different ways"
    try:
        supported = driver.attribute(device, _RDMA_SUPPORTED)
        dma_buf = driver.attribute(device, _DMA_BUF_SUPPORTED)
        ordering = driver.attribute(device, _WRITES_ORDERING)
    except RuntimeError as error:
        return f"CUDA's driver does not say whether a NIC can reach the GPU: {error}"
    if not supported:
        return "the GPU lets no NIC reach its memory (GPUDirect RDMA is not supported)"
    if not dma_buf and not peermem.exists():
        return (
            "no NIC can register GPU memory: the kernel module nvidia_peermem is not loaded, and "
            "the driver exports no DMA-BUF"
        )
    if ordering < _ORDERED_FOR_OWNER and not can_flush(driver, device):
        return "the GPU neither orders nor flushes what a NIC writes into its memory"
    return None


def can_flush(driver: Driver, device: int) -> bool:
    """Whether `flush` works on a device; where it does not, the order is native."""
    return bool(driver.attribute(device, _FLUSH_OPTIONS) & _FLUSH_BY_HOST)


class CudaDriver:
    """The driver of this machine, thread-safe.

    Raises:
        RuntimeError: There is none.
    """

    def __init__(self) -> None:
        try:
            self._cuda = ctypes.CDLL("libcuda.so.1")
        except OSError as error:
            raise RuntimeError(f"CUDA's driver cannot be loaded: {error}") from error
        self._contexts: dict[int, ctypes.c_void_p] = {}
        self._call("cuInit", ctypes.c_uint(0))

    def attribute(self, device: int, number: int) -> int:
        """See `Driver`."""
        value = ctypes.c_int()
        arguments = (ctypes.byref(value), ctypes.c_int(number), self._handle(device))
        self._call("cuDeviceGetAttribute", *arguments)
        return value.value

    def flush(self, device: int) -> None:
        """See `Driver`. Any thread may call it: the device's context need not be current there."""
        self._call("cuCtxPushCurrent_v2", self._context(device))
        try:
            # To all devices: one step more than the owner needs, and no reliance on fine print.
            scope = ctypes.c_int(_TO_ALL_DEVICES)
            self._call("cuFlushGPUDirectRDMAWrites", ctypes.c_int(_CURRENT_CONTEXT), scope)
        finally:
            self._call("cuCtxPopCurrent_v2", ctypes.byref(ctypes.c_void_p()))

    def enter_thread(self, device: int) -> None:
        """See `Driver`."""
        self._call("cuCtxSetCurrent", self._context(device))

    def _context(self, device: int) -> ctypes.c_void_p:
        """The context that torch computes in; retained once and for ever."""
        context = self._contexts.get(device)
        if context is None:
            context = ctypes.c_void_p()
            handle = self._handle(device)
            self._call("cuDevicePrimaryCtxRetain", ctypes.byref(context), handle)
            self._contexts[device] = context
        return context

    def _handle(self, device: int) -> ctypes.c_int:
        handle = ctypes.c_int()
        self._call("cuDeviceGet", ctypes.byref(handle), ctypes.c_int(device))
        return handle

    def _call(self, name: str, *arguments: object) -> None:
        code = getattr(self._cuda, name)(*arguments)
        if code != 0:
            raise RuntimeError(f"{name} failed with {code}")
