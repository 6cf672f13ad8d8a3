from __future__ import annotations

import stat
from typing import TYPE_CHECKING

import pytest

from redserve.errors import ConfigError
from tools.kubernetes import build, programs

if TYPE_CHECKING:
    from pathlib import Path

FAKE_GO = """#!/bin/sh
if [ "$1" = version ]; then echo "go version go{version} linux/amd64"; exit; fi
echo "$PWD $*" >>{log}
while [ "$1" != -o ]; do shift; done
[ {fails} = yes ] && {{ echo partial >"$2"; exit 1; }}
echo built >"$2"; chmod +x "$2"
"""


def executable(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.fixture
def go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Go that says what it was asked for; returns its log. Caches are empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(programs.ASSETS_VARIABLE, raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    log = tmp_path / "log"
    fake_go(tmp_path, log)
    return log


def fake_go(folder: Path, log: Path, *, version: str = "1.99.1", fails: bool = False) -> None:
    text = FAKE_GO.format(version=version, log=log, fails="yes" if fails else "no")
    executable(folder / "bin/go", text)


def test_versions_come_from_the_modules() -> None:
    assert programs.MODULE["k8s"].version.startswith("v1.")
    assert programs.MODULE["helm"].version.startswith("v4.")
    assert programs.MODULE["etcd"].go_version >= (1, 24)
    prometheus = programs.MODULE["prometheus"]
    assert prometheus.version.startswith("v0.3")  # that of a Go module: 3.x is v0.3xx
    assert f"version.Version={prometheus.version}" in prometheus.link_flags
    version = programs.MODULE["k8s"].version
    assert f"gitVersion={version}" in programs.MODULE["k8s"].link_flags
    assert f"gitMinor={version.split('.')[1]}" in programs.MODULE["k8s"].link_flags


def test_what_is_missing_is_built_once(go: Path) -> None:
    built = build.build(["etcd", "kubectl"])
    assert built["etcd"].read_text() == "built\n"
    assert len(go.read_text().splitlines()) == 2
    assert build.build(["etcd", "kubectl"]) == built
    assert len(go.read_text().splitlines()) == 2


def test_assets_come_first(go: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = executable(tmp_path / "assets/etcd")
    monkeypatch.setenv(programs.ASSETS_VARIABLE, str(given.parent))
    built = build.build(["etcd", "helm"])
    assert built["etcd"] == given
    assert "helm.sh" in go.read_text()
    assert "etcd" not in go.read_text()


def test_another_module_is_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, go: Path
) -> None:
    before = programs.MODULE["etcd"].cache
    folder = tmp_path / "modules/etcd"
    folder.mkdir(parents=True)
    source = programs.MODULE["etcd"].folder
    monkeypatch.setattr(programs, "MODULES", tmp_path / "modules")
    for name in ("go.mod", "go.sum"):
        (folder / name).write_bytes((source / name).read_bytes())
    assert programs.MODULE["etcd"].cache == before
    with (folder / "go.sum").open("a") as sums:
        sums.write("another\n")
    assert programs.MODULE["etcd"].cache != before


def test_a_failed_build_leaves_nothing(go: Path, tmp_path: Path) -> None:
    fake_go(tmp_path, go, fails=True)
    with pytest.raises(ConfigError, match="could not build etcd"):
        build.build(["etcd"])
    assert not list((tmp_path / "cache").rglob("etcd"))
    with pytest.raises(ConfigError, match=r"tools\.kubernetes\.build etcd"):
        programs.locate("etcd")


def test_an_old_go_is_named(go: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fake_go(tmp_path, go, version="1.19.8")
    assert build.main(["etcd"]) == 2
    said = capsys.readouterr().err
    assert "or newer builds the control plane, but" in said
    assert "go1.19.8" in said


def test_no_go_is_said(go: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    with pytest.raises(ConfigError, match="no `go` is on PATH; install it, or name a folder"):
        build.build(["etcd"])


def test_unknown_names_are_refused(go: Path) -> None:
    with pytest.raises(SystemExit):
        build.main(["kubectll"])
