from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from redserve.errors import ConfigError
from redserve.modeling.devices import free_bytes, select_device, total_bytes


@pytest.mark.parametrize("name", ["cpu", "CPU", " cpu "])
def test_cpu(name: str) -> None:
    assert select_device(name) == torch.device("cpu")


def test_auto_takes_what_is_there() -> None:
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert select_device("Auto").type == expected


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:x", "cpu:0", "", "cuda:-1"])
def test_unknown_names_are_refused_with_the_choices(name: str) -> None:
    with pytest.raises(ConfigError, match=r"write Auto, cpu or cuda:N|is not there"):
        select_device(name)


def test_a_device_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match="is not there"):
        select_device(f"cuda:{torch.cuda.device_count() + 1}")


def test_cpu_memory_is_plausible() -> None:
    device = torch.device("cpu")
    assert 0 < free_bytes(device) <= total_bytes(device)


def test_cpu_memory_that_is_taken_is_not_free() -> None:
    # In a process of its own: this one may answer from memory that it was given long ago.
    script = (
        "import time, torch\n"
        "from redserve.modeling.devices import free_bytes\n"
        "device = torch.device('cpu')\n"
        "before = free_bytes(device)\n"
        "block = torch.ones(128 * 2**20)\n"  # 512 MiB, touched
        "end_s = time.monotonic() + 20\n"
        "while before - free_bytes(device) <= 128 * 2**20:\n"  # the kernel's figures may lag
        "    assert time.monotonic() < end_s\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=50
    )
    assert done.returncode == 0, done.stderr
