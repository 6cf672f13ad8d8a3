"""Which device a process computes on, and how much memory it has."""

from __future__ import annotations

from pathlib import Path

import torch

from redserve.errors import ConfigError

_CGROUP_LIMITS = (
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (
        Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
        Path("/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ),
)


def select_device(name: str = "Auto") -> torch.device:
    """The device that `Auto`, `cpu`, `cuda` or `cuda:N` means on this machine.

    `Auto` is the first CUDA device if there is one, else the CPU.

    Raises:
        ConfigError: The name has another form, or the machine has no such device.
    """
    wanted = name.strip().lower()
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    if wanted == "cpu":
        return torch.device("cpu")
    kind, _, index = wanted.partition(":")
    if kind != "cuda" or (index and not index.isdigit()):
        raise ConfigError(f"device {name!r} is unknown: write Auto, cpu or cuda:N")
    num_devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if int(index or 0) >= num_devices:
        raise ConfigError(f"device {name!r} is not there: this machine has {num_devices} of cuda")
    return torch.device("cuda", int(index or 0))


def free_bytes(device: torch.device) -> int:
    """Bytes that may still be allocated on `device` (CPU: also within the container's limit)."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    free = _meminfo_bytes("MemAvailable")
    for limit_file, usage_file in _CGROUP_LIMITS:
        limit = _read_int(limit_file)
        if limit is not None:
            free = min(free, limit - (_read_int(usage_file) or 0))
    return max(free, 0)


def total_bytes(device: torch.device) -> int:
    """Bytes of memory of `device` (CPU: of the machine, or the container's limit)."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[1])
    limits = [_read_int(limit_file) for limit_file, _ in _CGROUP_LIMITS]
    return min([_meminfo_bytes("MemTotal"), *(limit for limit in limits if limit is not None)])


def _meminfo_bytes(key: str) -> int:
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise ConfigError(f"/proc/meminfo has no {key}: free memory cannot be told on this system")


def _read_int(file: Path) -> int | None:
    try:
        return int(file.read_text(encoding="ascii"))
    except (OSError, ValueError):  # no such controller, or the word "max"
        return None
