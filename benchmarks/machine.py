"""What the machine is, whether it is quiet, and which commit is measured."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from pathlib import Path


def hardware() -> str:
    """One line: cores, processor, memory."""
    names = [
        line.split(":", 1)[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cores = len(os.sched_getaffinity(0))
    return f"{cores} cores of {names[0] if names else platform.machine()}, {memory:.0f} GiB"


def commit() -> str:
    """Short hash of HEAD, with a plus sign when the tree differs from it."""
    root = Path(__file__).resolve().parents[1]
    head = _git(root, "rev-parse", "--short", "HEAD")
    dirty = _git(root, "status", "--porcelain", "--untracked-files=no")
    return f"{head}{'+' if dirty else ''}"


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def idle_share(window_s: float = 0.5) -> float:
    """Share of all cores' time that was idle during the next `window_s` seconds."""
    idle_before, total_before = _cpu_times()
    time.sleep(window_s)
    idle_after, total_after = _cpu_times()
    return (idle_after - idle_before) / max(1, total_after - total_before)


def wait_until_quiet(share: float = 0.9, limit_s: float = 60.0) -> bool:
    """Wait until the machine is idle; False when it was not within `limit_s` seconds."""
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        if idle_share() >= share:
            return True
    return False


def _cpu_times() -> tuple[int, int]:
    fields = [int(x) for x in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
    return fields[3] + fields[4], sum(fields)
