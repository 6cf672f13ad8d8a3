"""What this machine has: cores that we may use, GPUs that we can see. No torch."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from redserve.spec.settings import visible_devices

_CGROUPS: Final = Path("/sys/fs/cgroup")
_NVIDIA_SMI_TIMEOUT_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Machine:
    """What processes can be placed on.

    Attributes:
        num_cores: Cores that this process may use, at least 1.
        num_gpus: CUDA devices that this process can see.
    """

    num_cores: int
    num_gpus: int


def inspect_machine() -> Machine:
    """Look at the machine, within the limits that are set on this process."""
    return Machine(num_cores=count_cores(), num_gpus=count_gpus())


def count_cores(cgroups: Path = _CGROUPS) -> int:
    """Cores by affinity and by the container's quota, whichever is less; at least 1."""
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    quota = _quota_cores(cgroups)
    return max(1, cores if quota is None else min(cores, quota))


def count_gpus() -> int:
    """CUDA devices by `nvidia-smi`, less those that CUDA_VISIBLE_DEVICES hides; 0 without it."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return 0
    try:
        done = subprocess.run(
            [command, "--list-gpus"],
            capture_output=True,
            text=True,
            check=False,
            timeout=_NVIDIA_SMI_TIMEOUT_S,
        )
    except (OSError, subprocess.TimeoutExpired):
        return 0  # a driver that does not answer has no device to offer
    there = sum(line.startswith("GPU ") for line in done.stdout.splitlines())
    visible = visible_devices()
    return there if visible is None else min(there, len(visible))


def _quota_cores(cgroups: Path) -> int | None:
    """Whole cores of the CPU quota, rounded down; None without one."""
    quota, period = _read(cgroups / "cpu.max"), None  # version 2: "max 100000" or "150000 100000"
    if quota:
        first, _, second = quota.partition(" ")
        quota, period = first, second
    else:
        quota = _read(cgroups / "cpu" / "cpu.cfs_quota_us")
        period = _read(cgroups / "cpu" / "cpu.cfs_period_us")
    if not quota or not period or not quota.isdecimal() or not period.isdecimal():
        return None
    return int(quota) // int(period)


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii").strip()
    except OSError:
        return ""
