"""The house rules hold, and each of them can fail: every import contract is broken once."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = {
    "redserve": ROOT / "redserve",
    "redserve_operator": ROOT / "operator/redserve_operator",
    "redserve_router": ROOT / "services/router/redserve_router",
    "redserve_encoder": ROOT / "services/encoder/redserve_encoder",
    "redserve_llm": ROOT / "services/llm/redserve_llm",
}


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [
        str(Path(sys.executable).parent / "lint-imports"),
        "--config",
        str(ROOT / "pyproject.toml"),
        "--no-cache",
        "--no-logo",
    ]
    env = {**os.environ, "PYTHONPATH": str(folder)}
    return subprocess.run(
        command, cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=60
    )


@pytest.fixture(scope="module")
def copy_of_the_code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("house")
    for name, source in PACKAGES.items():
        shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


BREAKS = [
    ("Deployables stand side by side", "redserve_router", "import redserve_llm"),
    ("The library is layered", "redserve/scheduling", "import redserve.wire"),
    ("The core is pure Python", "redserve/routing", "import asyncio"),
    ("The core is pure Python", "redserve/slo", "import time"),
    ("The library is layered", "redserve/observability", "import redserve.cluster"),
    ("Rules are made without clocks or I/O", "redserve/observability", "import asyncio"),
    ("The core is pure Python", "redserve/bench/report", "import time"),
    ("Only the wire, gRPC transport", "redserve/local", "import redserve.v1.types_pb2"),
    ("torch stays in modeling", "redserve/telemetry", "import torch"),
]


@pytest.mark.parametrize(
    ("contract", "package", "line"), BREAKS, ids=[f"{b[0]}, {b[1]}" for b in BREAKS]
)
def test_each_import_contract_fails_when_broken(
    copy_of_the_code: Path, contract: str, package: str, line: str
) -> None:
    intruder = copy_of_the_code / package / "intruder.py"
    intruder.write_text(f"{line}  # noqa: F401\n")
    try:
        result = lint_imports(copy_of_the_code)
    finally:
        intruder.unlink()
    broken = [row for row in result.stdout.splitlines() if row.rstrip().endswith("BROKEN")]
    assert result.returncode != 0
    assert any(row.startswith(contract) for row in broken), result.stdout + result.stderr


def test_operator_folder_never_shadows_the_standard_library() -> None:
    assert not (ROOT / "operator/__init__.py").exists()
    done = subprocess.run(
        [sys.executable, "-c", "import operator; print(operator.itemgetter)"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_makefile_documents_its_targets() -> None:
    done = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    targets = ("setup", "demo", "test", "check", "protos", "protos-check", "bench", "demo-model")
    for target in targets:
        assert f"  {target} " in done.stdout
