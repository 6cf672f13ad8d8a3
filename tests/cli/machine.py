"""A machine on which tests run `redserve up` with processes that need no model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import yaml

from tests.local.fakes import ROOT
from tests.spec.manifests import MINIMAL

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LIMIT_S = 40.0


class Machine:
    """A folder with a manifest, a runtime directory and a checkpoint that nobody loads."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest = folder / "redservice.yaml"
        self.env = {
            **os.environ,
            "XDG_RUNTIME_DIR": str(folder / "run"),
            "PYTHONPATH": str(ROOT),
            "CUDA_VISIBLE_DEVICES": "",
        }
        model = folder / "model"
        model.mkdir()
        (model / "config.json").write_text(json.dumps({"model_type": "llava"}))
        (model / "model.safetensors").write_bytes(b"")
        self.write()

    def write(self, **spec: Any) -> None:
        router = {"http": {"port": 0}, "grpc": {"port": 0}}
        made = {**MINIMAL, "spec": {**MINIMAL["spec"], "router": router, **spec}}
        self.manifest.write_text(yaml.safe_dump(made))

    def start(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(*words),
            cwd=self.folder,
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*words),
            cwd=self.folder,
            env=self.env,
            capture_output=True,
            text=True,
            check=False,
            timeout=LIMIT_S,
        )

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "tests.cli.redserve_with_fakes", *words]

    @property
    def state(self) -> dict[str, Any]:
        loaded: dict[str, Any] = json.loads(
            (self.folder / "run/redserve/demo/state.json").read_text()
        )
        return loaded

    def place(self, words: str) -> str:
        """FILE:LINE:COLUMN of the value after `words`, or of `words` if they end the line."""
        for number, line in enumerate(self.manifest.read_text().splitlines(), 1):
            if words in line:
                begins = line.index(words)
                key = words.split(": ")[0]
                is_value = not words.endswith(":")
                column = begins + (len(key) + 2 if is_value else 0) + 1
                return f"{self.manifest}:{number}:{column}"
        raise AssertionError(words)

    def phases(self) -> set[str]:
        try:
            return {one["phase"] for one in self.state["processes"] if one["pid"] is not None}
        except FileNotFoundError:
            return set()

    def pids(self) -> list[int]:
        return [one["pid"] for one in self.state["processes"] if one["pid"] is not None]


def read_until(process: subprocess.Popen[str], begins: str) -> list[str]:
    """Lines of its output up to one that begins like this."""
    assert process.stdout is not None
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line.rstrip("\n"))
        if line.startswith(begins):
            return lines
    raise AssertionError(f"no line begins with {begins!r}: {lines} {process.communicate()}")


def wait_until(holds: Callable[[], bool]) -> None:
    """For what other processes do: nothing tells us."""
    end_s = time.monotonic() + LIMIT_S
    while not holds():
        assert time.monotonic() < end_s
        time.sleep(0.02)
