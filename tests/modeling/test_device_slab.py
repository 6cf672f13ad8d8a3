"""Device memory under a pool; the CPU's memory takes the part of a device's."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
import torch

from redserve.modeling.device_slab import CudaMemory, DeviceSlab, device_memory
from redserve.transport.buffer import RegionList, read, write
from redserve.transport.nixl.endpoint import Endpoint
from redserve.transport.nixl.library import AgentError
from redserve.transport.pool import Pool

CPU = torch.device("cpu")
NEEDS_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
DEVICES = [
    CPU,
    pytest.param(torch.device("cuda", 0), marks=[pytest.mark.gpu, NEEDS_CUDA]),
]


class CountingDriver:
    """Counts flushes."""

    def __init__(self, options: int) -> None:
        self.options = options
        self.flushed: list[int] = []
        self.entered: list[tuple[int, str]] = []

    def attribute(self, device: int, number: int) -> int:
        return self.options

    def flush(self, device: int) -> None:
        self.flushed.append(device)

    def enter_thread(self, device: int) -> None:
        self.entered.append((device, threading.current_thread().name))


def pool_on(device: torch.device, num_bytes: int = 1 << 20) -> Pool:
    return Pool(num_bytes, make_slab=lambda size: DeviceSlab(size, device))


@pytest.mark.parametrize("device", DEVICES, ids=str)
def test_what_is_written_is_read_across_pieces(device: torch.device) -> None:
    pool = pool_on(device)
    first, gap, second = pool.alloc(5000), pool.alloc(1), pool.alloc(4097)
    pieces = RegionList([first, second])
    data = np.random.default_rng(1).integers(0, 256, pieces.num_bytes, np.uint8).tobytes()
    write(pieces, 0, data[:4999])
    write(pieces, 4999, data[4999:])
    assert bytes(read(pieces, 0, pieces.num_bytes)) == data
    assert bytes(read(pieces, 4998, 5003)) == data[4998:5003]
    slab = pool.slab
    assert isinstance(slab, DeviceSlab)
    assert bytes(slab.tensor[second.offset : second.offset + 4097].cpu().numpy()) == data[5000:]
    assert bytes(read(gap, 0, 1)) == b"\0"


@pytest.mark.parametrize("device", DEVICES, ids=str)
def test_a_piece_is_the_memory_itself_and_an_array_is_a_copy(device: torch.device) -> None:
    slab = DeviceSlab(4096, device)
    piece = slab.piece(100, 200)
    copied = np.asarray(piece)
    piece.tensor().fill_(7)
    assert not copied.any()
    assert np.asarray(piece).tolist() == [7] * 100
    assert int(slab.tensor.sum()) == 700
    with pytest.raises(ValueError, match="no view"):
        np.array(piece, copy=False)


@pytest.mark.parametrize("device", DEVICES, ids=str)
def test_it_says_of_itself_what_a_backend_registers(device: torch.device) -> None:
    slab = DeviceSlab(12_345, device)
    assert (slab.memory, slab.device_id, slab.num_bytes, slab.host) == ("vram", 0, 12_345, None)
    assert slab.address == slab.tensor.data_ptr()
    assert slab.address % 65_536 == 0
    assert slab.tensor.is_contiguous()


def test_it_has_no_view_on_the_host() -> None:
    pool = pool_on(CPU)
    with pytest.raises(TypeError):
        _ = pool.alloc(10).view


def test_what_a_nic_wrote_is_flushed_before_it_is_read() -> None:
    driver = CountingDriver(options=1)
    slab = DeviceSlab(4096, CPU, driver)
    slab.write(0, b"abc")
    assert not driver.flushed
    slab.piece(0, 3).tensor()
    slab.read(0, 3)
    np.asarray(slab.piece(0, 3))
    assert driver.flushed == [0, 0, 0]


def test_the_thread_that_owns_the_agent_has_the_devices_context() -> None:
    driver = CountingDriver(options=1)
    pool = Pool(4096, make_slab=lambda size: DeviceSlab(size, CPU, driver))
    with suppress(AgentError):  # it is not really a GPU's memory
        Endpoint(pool, "agent-of-a-test", serves=True).close()
    assert driver.entered == [(0, "nixl")]


def test_nothing_is_flushed_where_the_device_cannot() -> None:
    driver = CountingDriver(options=0)
    DeviceSlab(4096, CPU, driver).piece(0, 3).tensor()
    assert not driver.flushed


def test_a_model_on_the_cpu_has_no_device_memory() -> None:
    assert device_memory(CPU) is None


def test_without_a_driver_no_nic_reaches_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_library(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr("redserve.modeling.gpu_direct.ctypes.CDLL", no_library)
    why = CudaMemory(torch.device("cuda", 0)).why_unreachable()
    assert why is not None
    assert "driver cannot be loaded" in why


@pytest.mark.gpu
@NEEDS_CUDA
def test_the_driver_of_a_gpu_answers_and_flushes_in_any_thread() -> None:
    from concurrent.futures import ThreadPoolExecutor

    from redserve.modeling.gpu_direct import CudaDriver, can_flush

    driver = CudaDriver()
    if not can_flush(driver, 0):
        pytest.skip("this GPU has no flush from the host")
    with ThreadPoolExecutor(1) as thread:
        thread.submit(driver.flush, 0).result()
    driver.flush(0)


@pytest.mark.gpu
@NEEDS_CUDA
def test_copies_do_not_wait_for_the_models_stream() -> None:
    device = torch.device("cuda", 0)
    slab = DeviceSlab(1 << 20, device)
    slab.write(0, b"x" * 1024)  # whatever is slow the first time
    cuda: Any = torch.cuda
    done = cuda.Event()
    cuda._sleep(2_000_000_000)  # a second of the default stream
    done.record()
    slab.write(0, b"y" * 1024)
    assert bytes(slab.read(0, 1024)) == b"y" * 1024
    assert not done.query()
    torch.cuda.synchronize(device)
