"""The environment of every process of every example.

`python -m tests.spec.golden_files` rewrites them.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from redserve.spec.manifest import load_manifest
from redserve.spec.placement import Place, Placement, RouterPlace
from redserve.spec.workloads import workloads_for
from tests.spec.manifests import EXAMPLES, ROOT

if TYPE_CHECKING:
    from redserve.spec.service import RedService

GOLDEN = Path(__file__).parent / "golden"
MANIFESTS = (ROOT / "examples/redservice.yaml", EXAMPLES / "minimal.yaml", EXAMPLES / "tuned.yaml")


def placement() -> Placement:
    """Two encoders, an engine and a router in fixed places."""

    def place(name: str, port: int, threads: int = 1, device: str = "") -> Place:
        address = f"127.0.0.1:{port}"
        return Place(name, address, "127.0.0.1", port, address, port + 1, threads, device)

    return Placement(
        router=RouterPlace(place("router", 7000), "127.0.0.1", 7002),
        encoders=(place("encoder-0", 7010), place("encoder-1", 7020, 2, "cuda:1")),
        llms=(place("llm-0", 7030, 4, "cuda:0"),),
        model_uri="file:///models/resolved",
    )


def golden_text(service: RedService) -> str:
    """All workloads, as they go into a golden file."""
    workloads = [asdict(workload) for workload in workloads_for(service, placement())]
    return json.dumps(workloads, indent=1, sort_keys=True) + "\n"


def golden_path(manifest: Path) -> Path:
    """Where the golden file of a manifest is."""
    return GOLDEN / f"{manifest.stem}.json"


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for path in MANIFESTS:
        golden_path(path).write_text(golden_text(load_manifest(path)))
