"""What is called RDMA, on machines that are made of files."""

from __future__ import annotations

import resource
from typing import TYPE_CHECKING

import pytest

from redserve.spec.ucx import ucx_environment
from redserve.transport.nixl import rdma

if TYPE_CHECKING:
    from pathlib import Path

OURS = ucx_environment("rdma")["UCX_TLS"]


class Machine:
    """What the kernel shows of RDMA."""

    def __init__(self, folder: Path) -> None:
        self.devices, self.verbs = folder / "infiniband", folder / "dev"
        self.status = folder / "status"
        self.status.write_text(f"CapEff:\t{1 << 14:016x}\n")  # may lock what it likes

    def add(self, device: str, *states: str) -> None:
        """A device with its ports, and the file by which it is used."""
        for number, state in enumerate(states, 1):
            port = self.devices / device / "ports" / str(number)
            port.mkdir(parents=True)
            (port / "state").write_text(f"{state}\n")
        self.verbs.mkdir(exist_ok=True)
        (self.verbs / "uverbs0").touch()

    def lacks(self, transports: str = OURS, net_devices: str = "") -> str | None:
        return rdma.missing(
            4096,
            transports,
            net_devices,
            devices=self.devices,
            verbs=self.verbs,
            status=self.status,
        )


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    made = Machine(tmp_path)
    made.add("mlx5_0", "4: ACTIVE")
    return made


@pytest.mark.parametrize(
    "transports",
    [
        OURS,
        "ib",
        "rc_mlx5,ud_mlx5",
        "\\rc_x,ud:aux",
        "srd,self",
        "rc, cuda, gdr_copy",
        "dc_x,rocm_copy,rocm_ipc",
    ],
)
def test_lists_of_rdma(machine: Machine, transports: str) -> None:
    assert machine.lacks(transports) is None


@pytest.mark.parametrize(
    "transports",
    [
        "",
        "all",
        "tcp",
        "rc,tcp",
        "rc,\\tcp",
        "rc, \\tcp",
        "rc,t*p",
        "rc,tcp:aux",
        "rc,*",
        "rc,",
        "rc,sm",
        "rc,shm",
        "rc,posix",
        "rc,sysv",
        "rc,cma",
        "rc,knem",
        "rc,xpmem",
        "rc,carrier_pigeon",
        "sm,self",
        "cma,posix,self",
        "self",
        "cuda_copy",
        "ud:aux",
        "^tcp",
        "^sm,self",
    ],
)
def test_lists_that_may_be_something_else(machine: Machine, transports: str) -> None:
    problem = machine.lacks(transports)
    assert problem is not None
    assert problem.startswith(f"UCX_TLS={transports or '(not set)'} ")
    assert "remove it from the pool's env" in problem


def test_the_culprit_is_named(machine: Machine) -> None:
    assert "(tcp, sysv)" in str(machine.lacks("rc,\\tcp,sysv"))


def test_no_device(tmp_path: Path) -> None:
    assert str(Machine(tmp_path).lacks()).startswith("no RDMA device")


@pytest.mark.parametrize("state", ["1: DOWN", "2: INIT", "5: ACTIVE_DEFER"])
def test_a_port_that_carries_nothing(tmp_path: Path, state: str) -> None:
    machine = Machine(tmp_path)
    machine.add("mlx5_0", state)
    assert f"no port of an RDMA device is active (mlx5_0:1 is {state[3:]})" in str(machine.lacks())


@pytest.mark.parametrize("net_devices", ["", "all", "mlx5_1:2", "lo,mlx5_*", "^mlx5_0:1"])
def test_one_active_port_is_enough(tmp_path: Path, net_devices: str) -> None:
    machine = Machine(tmp_path)
    machine.add("mlx5_0", "1: DOWN")
    machine.add("mlx5_1", "1: DOWN", "4: ACTIVE")
    assert machine.lacks(net_devices=net_devices) is None


def test_it_must_be_among_those_that_ucx_may_use(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.add("mlx5_0", "1: DOWN")
    machine.add("mlx5_1", "4: ACTIVE")
    assert "(mlx5_0:1 is DOWN)" in str(machine.lacks(net_devices="mlx5_0:1"))
    assert "(mlx5_0:1 is DOWN)" in str(machine.lacks(net_devices="^mlx5_1:1"))
    problem = str(machine.lacks(net_devices="eth0"))
    assert problem.startswith("UCX_NET_DEVICES=eth0 names no port of an RDMA device")
    assert problem.endswith("there are mlx5_0:1, mlx5_1:1")


def test_a_device_that_the_container_has_not_got(machine: Machine) -> None:
    (machine.verbs / "uverbs0").unlink()
    assert "the node has mlx5_0, but no /dev/infiniband/uverbs*" in str(machine.lacks())


def test_memory_that_must_not_be_locked(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 1024))
    assert machine.lacks() is None  # the capability lifts the limit
    machine.status.write_text("CapEff:\t0000000000000000\n")
    assert "4096 bytes must be locked and the limit is 1024" in str(machine.lacks())
