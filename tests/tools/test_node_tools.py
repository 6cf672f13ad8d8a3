"""The parts of the real node's tools that need neither root nor a node."""

from __future__ import annotations

import configparser
import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

from tools.kubernetes import node_space
from tools.kubernetes.images import ROOT
from tools.kubernetes.node_images import pip_settings
from tools.kubernetes.node_packages import closure, files, metadata_files
from tools.requirements import requirements


def names(wanted: list[str]) -> set[str]:
    return {canonicalize_name(one.name) for one in closure(wanted)}


def test_packages_are_those_that_are_asked_for_and_what_they_need() -> None:
    heavy = names(requirements((ROOT / "pyproject.toml").read_text(), ["encoder", "llm"]))
    assert {"torch", "transformers", "grpcio", "pydantic-core"} <= heavy
    assert not heavy & {"pytest", "mypy", "kopf", "uvicorn"}


def test_a_package_that_is_not_installed() -> None:
    with pytest.raises(PackageNotFoundError):
        closure(["not-a-package-of-this-environment"])


def test_a_requirement_for_another_platform_is_none() -> None:
    assert names(["not-a-package; sys_platform == 'plan9'"]) == set()


def test_hidden_folders_come_along() -> None:
    """NIXL keeps its plugins in one."""
    paths = [path for path, _ in files(closure(["nixl-cu13"]))]
    assert any(path.startswith(".nixl_cu13") and "UCX" in path for path in paths)


def test_files_come_after_their_folders_and_stay_below_the_packages() -> None:
    found = files(closure(["pydantic"]))
    paths = [path for path, _ in found]
    assert "pydantic/__init__.py" in paths
    assert not [path for path in paths if path.startswith(("..", "/"))]
    seen = set()
    for path, file in found:
        assert file.exists()
        parent = str(Path(path).parent)
        assert parent == "." or parent in seen
        seen.add(path)


def test_metadata_is_what_pip_looks_for() -> None:
    paths = [path for path, _ in metadata_files(closure(["structlog"]))]
    assert any(path.endswith(".dist-info/METADATA") for path in paths)
    assert all(".dist-info" in path for path in paths)


def test_a_missing_program_is_named_with_the_line_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setenv("PATH", str(tmp_path))
    (why,) = node_space.problems()
    assert "missing: buildah, conntrack, containerd" in why
    assert "apt-get install -y buildah" in why


def test_without_root_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert node_space.problems() == ["nodes need root (namespaces, mounts, cgroups)"]


def test_what_cannot_be_run_inside_is_run_outside_and_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    command = [sys.executable, "-m", "tools.kubernetes.node_space", "--"]
    done = subprocess.run(
        [*command, sys.executable, "-c", "print('ran')"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0
    assert done.stdout == "ran\n"
    assert "No real nodes here" in done.stderr


def test_pip_in_a_build_is_told_what_pip_here_is_told() -> None:
    said = "global.cert='/a.pem'\nglobal.timeout='15'\n:env:.timeout='60'\n:env:.no-index=''\n"
    said += "global.find-links='/one\\n/two'\n"
    parsed = configparser.ConfigParser()
    parsed.read_string(pip_settings(said))
    assert dict(parsed["global"]) == {
        "cert": "/a.pem",
        "timeout": "60",
        "find-links": "/one\n/two",
    }
