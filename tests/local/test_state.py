from __future__ import annotations

import stat
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from redserve.errors import ConfigError, Unavailable
from redserve.local.state import (
    ProcessState,
    ServiceState,
    find_service,
    hold,
    running_services,
    with_processes,
)

if TYPE_CHECKING:
    from pathlib import Path

    from redserve.local.state import Phase


def process(phase: Phase, name: str = "llm-0") -> ProcessState:
    return ProcessState(name, "llm", phase, 1, "127.0.0.1:1", "127.0.0.1:2", 0, "llm-0.log")


def state(service: str = "demo", pid: int = 1) -> ServiceState:
    return ServiceState(
        service, pid, "x.yaml", 12.5, "starting", "127.0.0.1:1", None, (process("ready"),)
    )


def test_what_is_written_is_found(tmp_path: Path) -> None:
    root = tmp_path / "run"
    assert running_services(root) == ()
    with hold(root, "demo") as folder:
        folder.write(state())
        assert running_services(root) == (state(),)
        assert find_service(root) == state()
        assert find_service(root, "demo") == state()
        assert folder.log_path("llm-0").parent.is_dir()
    assert running_services(root) == ()
    assert folder.log_path("llm-0").parent.is_dir()


def test_the_folder_is_private(tmp_path: Path) -> None:
    root = tmp_path / "a" / "run"
    with hold(root, "demo"):
        assert stat.S_IMODE(root.stat().st_mode) == 0o700


def test_a_folder_of_somebody_else_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.getuid", lambda: 12345)
    with pytest.raises(Unavailable, match="set XDG_RUNTIME_DIR"), hold(tmp_path, "demo"):
        pass


def test_a_name_is_held_once(tmp_path: Path) -> None:
    with hold(tmp_path, "demo") as folder:
        folder.write(state(pid=77))
        with (
            pytest.raises(ConfigError, match=r"'demo' runs already \(process 77\)"),
            hold(tmp_path, "demo"),
        ):
            pass
        with hold(tmp_path, "other"):
            pass


def test_what_a_killed_supervisor_left_is_not_running(tmp_path: Path) -> None:
    code = f"""
import sys
from pathlib import Path
sys.path.insert(0, ".")
from redserve.local.state import hold
from tests.local.test_state import state
with hold(Path({str(tmp_path)!r}), "demo") as folder:
    folder.write(state())
    print("held", flush=True)
    sys.stdin.read()
"""
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"held\n"
    assert [one.service for one in running_services(tmp_path)] == ["demo"]
    child.kill()
    child.communicate()
    assert (tmp_path / "demo" / "state.json").exists()
    assert running_services(tmp_path) == ()
    with pytest.raises(ConfigError, match="no service runs here; start one with 'redserve up"):
        find_service(tmp_path)
    with hold(tmp_path, "demo"):
        pass


def test_several_services_need_a_choice(tmp_path: Path) -> None:
    with hold(tmp_path, "a") as first, hold(tmp_path, "b") as second:
        first.write(state("a"))
        second.write(state("b"))
        with pytest.raises(
            ConfigError, match="choose a service with --service NAME; running: a, b"
        ):
            find_service(tmp_path)
        assert find_service(tmp_path, "b").service == "b"
        with pytest.raises(ConfigError, match="no service named 'c' runs here; running: a, b"):
            find_service(tmp_path, "c")


def test_a_state_of_another_release_is_not_trusted(tmp_path: Path) -> None:
    with hold(tmp_path, "demo"):
        (tmp_path / "demo" / "state.json").write_text('{"service": "demo", "new": 1}')
        assert running_services(tmp_path) == ()


@pytest.mark.parametrize(
    ("before", "processes", "after"),
    [
        ("starting", ["ready", "starting"], "starting"),
        ("starting", ["ready", "ready"], "ready"),
        ("ready", ["ready", "restarting"], "unready"),
        ("unready", ["ready", "ready"], "ready"),
        ("draining", ["ready", "ready"], "draining"),
    ],
)
def test_the_whole_is_ready_when_all_are(
    before: Phase, processes: list[Phase], after: Phase
) -> None:
    base = ServiceState("demo", 1, "x.yaml", 0.0, before, "", None)
    assert with_processes(base, [process(phase) for phase in processes]).phase == after
