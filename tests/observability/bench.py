"""A real `redserve bench` against a service of the tests."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from tests.e2e.service import Service


class Bench:
    """Runs from the beginning; `result` waits for it.

    Args:
        service: Which is asked by gRPC.
        folder: For its output.
        options: Of `redserve bench`.
    """

    def __init__(self, service: Service, folder: Path, *options: str) -> None:
        self._said = folder / "bench.json"
        self._log = folder / "bench.log"
        command = [
            sys.executable, "-m", "redserve.cli.main", "bench", "--json",
            "--address", service.state()["grpc_address"], "-f", str(service.manifest), *options,
        ]  # fmt: skip
        with self._said.open("wb") as said, self._log.open("wb") as log:
            self._process = subprocess.Popen(command, env=service.env, stdout=said, stderr=log)

    @property
    def is_running(self) -> bool:
        """Whether it goes on."""
        return self._process.poll() is None

    def result(self, limit_s: float) -> dict[str, Any]:
        """What it prints at its end."""
        assert self._process.wait(limit_s) == 0, self._log.read_text()
        made: dict[str, Any] = json.loads(self._said.read_text())
        return made

    def close(self) -> None:
        """End it, if it goes on."""
        if self.is_running:
            self._process.kill()
            self._process.wait()
