"""Whether a NIC reaches a GPU's memory: a decision by a few attributes."""

from __future__ import annotations

from pathlib import Path

import pytest

from redserve.modeling.gpu_direct import why_unreachable

GOOD = {116: 1, 117: 1, 118: 100, 124: 1}


class FakeDriver:
    """Answers by a table."""

    def __init__(self, attributes: dict[int, int]) -> None:
        self.attributes = attributes

    def attribute(self, device: int, number: int) -> int:
        if number not in self.attributes:
            raise RuntimeError("cuDeviceGetAttribute failed with 1")
        return self.attributes[number]

    def flush(self, device: int) -> None:
        raise AssertionError("nobody asked for that")

    enter_thread = flush


def why(attributes: dict[int, int], machine: str = "x86_64", peermem: str = "/none") -> str | None:
    driver = FakeDriver({**GOOD, **attributes})
    return why_unreachable(driver, 0, machine=machine, peermem=Path(peermem))


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {118: 0},  # no order, but a flush
        {117: 0},  # no flush, but order for the owner
        {117: 0, 118: 200},
    ],
)
def test_order_or_a_flush_will_do(attributes: dict[int, int]) -> None:
    assert why(attributes) is None


def test_neither_order_nor_flush() -> None:
    assert "neither orders nor flushes" in str(why({117: 2, 118: 0}))


def test_a_gpu_without_gpudirect() -> None:
    assert "GPUDirect RDMA is not supported" in str(why({116: 0}))


def test_one_way_to_register_is_enough(tmp_path: Path) -> None:
    assert "nvidia_peermem" in str(why({124: 0}))
    assert why({124: 0}, peermem=str(tmp_path)) is None


def test_a_host_whose_gpu_is_not_on_pcie_alone() -> None:
    assert "aarch64" in str(why({}, machine="aarch64"))


def test_a_driver_too_old_to_know() -> None:
    assert "does not say" in str(why_unreachable(FakeDriver({116: 1}), 0, machine="x86_64"))
