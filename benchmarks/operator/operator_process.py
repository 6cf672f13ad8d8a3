"""The operator as a process of its own, watched from outside."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp

from redserve.local.ports import LOOPBACK, free_ports
from redserve.spec.settings import OperatorSettings, base_environment

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@dataclass(frozen=True, slots=True)
class Running:
    """A ready operator.

    Attributes:
        pid: Its process.
        started_s: From its start until it was ready and had looked at what was asked for, seconds.
    """

    pid: int
    started_s: float


@asynccontextmanager
async def operator_process(
    config: Path, log: Path, *, namespace: str, resynced: int = 0
) -> AsyncIterator[Running]:
    """A ready operator; with `resynced`, one that has looked at so many services."""
    port = next(free_ports())
    settings = OperatorSettings.model_validate(
        {
            "identity": "bench",
            "namespace": namespace,
            "kubeconfig": str(config),
            "http_host": LOOPBACK,
            "http_port": port,
            "lease_duration_s": 5.0,
            "lease_renew_s": 1.0,
        }
    )
    began = time.monotonic()
    process = _spawn(settings, log)
    try:
        await _until_operator(process, log, f"http://{LOOPBACK}:{port}", resynced)
        yield Running(process.pid, time.monotonic() - began)
    finally:
        process.terminate()
        process.wait(30)


def _spawn(settings: OperatorSettings, log: Path) -> subprocess.Popen[bytes]:
    with log.open("w") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "redserve_operator"],
            env=base_environment(settings.to_env()),
            stdout=output,
            stderr=output,
        )


async def _until_operator(
    process: subprocess.Popen[bytes], log: Path, address: str, resynced: int
) -> None:
    async with aiohttp.ClientSession() as session:
        while True:
            if process.poll() is not None:
                raise RuntimeError(f"the operator ended with {process.returncode}: {_tail(log)}")
            try:
                async with session.get(f"{address}/readyz") as answer:
                    ready = answer.status == 200
                if ready and (not resynced or await _num_reconciled(session, address) >= resynced):
                    return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.1)


async def _num_reconciled(session: aiohttp.ClientSession, address: str) -> int:
    async with session.get(f"{address}/metrics") as answer:
        lines = (await answer.text()).splitlines()
    return sum(
        int(float(line.rsplit(" ", 1)[1]))
        for line in lines
        if line.startswith("redserve_operator_reconcile_total")
    )


def resident_mb(pid: int) -> tuple[float, float]:
    """Resident memory now and at its peak, MiB."""
    found = {}
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(("VmRSS:", "VmHWM:")):
            found[line.split(":")[0]] = int(line.split()[1]) / 1024
    return found["VmRSS"], found["VmHWM"]


def _tail(log: Path) -> str:
    return "\n".join(log.read_text().splitlines()[-20:])
