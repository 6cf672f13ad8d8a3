"""A service of the demo model for as long as pictures are taken."""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import yaml

from redserve.local.state import find_service
from redserve.spec.settings import runtime_directory

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT: Final = Path(__file__).resolve().parents[2]
NAME: Final = "screenshots"
SLOS: Final = (
    {"name": "first-token", "indicator": "TimeToFirstToken", "thresholdMilliseconds": 800},
    {"name": "per-token", "indicator": "TimePerOutputToken", "thresholdMilliseconds": 50},
    {"name": "available", "indicator": "Availability", "objectivePercent": "99.9"},
)


@contextmanager
def running_service(folder: Path) -> Iterator[str]:
    """Start it on free ports; gives the address of its page.

    Raises:
        subprocess.CalledProcessError: It did not start, or one of its name runs already.
    """
    manifest = yaml.safe_load((ROOT / "examples/redservice.yaml").read_text("utf-8"))
    spec = manifest["spec"]
    manifest["metadata"]["name"] = NAME
    spec["model"] |= {"name": "demo", "uri": f"file://{ROOT / 'examples/demo-model'}"}
    spec["router"] |= {"http": {"port": 0}, "grpc": {"port": 0}}
    spec["slos"] = list(SLOS)
    path = folder / "redservice.yaml"
    path.write_text(yaml.safe_dump(manifest), "utf-8")
    redserve = [sys.executable, "-m", "redserve.cli.main"]
    subprocess.run([*redserve, "up", "--detach", "-f", path], check=True)
    try:
        yield f"http://{find_service(runtime_directory(), NAME).http_address}"
    finally:
        subprocess.run([*redserve, "down", "--service", NAME], check=True)
