from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tools.kubernetes import netns

ROOT = Path(__file__).resolve().parents[2]
LISTEN = """
import os, socket
with socket.create_server(("10.244.7.9", 0)) as server:
    with socket.create_connection(server.getsockname(), timeout=5) as client:
        print(client.getpeername()[0], os.getuid(), len(socket.if_nameindex()))
"""

# A process that changed its user may not write its own maps before it says that it may be traced.
AS_NOBODY = """
import ctypes, os
from tools.kubernetes import netns
os.setgid(65534)
os.setuid(65534)
ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)
netns.enter()
print(netns.pods_are_local(), os.getuid())
"""


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tools.kubernetes.netns", *command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


def test_pods_have_addresses_inside() -> None:
    done = run("--", sys.executable, "-c", LISTEN)
    if "cannot make a network namespace" in done.stderr:
        pytest.skip(done.stderr)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["10.244.7.9", "0", "1"]


def test_a_user_namespace_serves_those_who_are_not_root() -> None:
    if os.getuid() != 0:
        pytest.skip("the test above shows it")
    done = subprocess.run(
        [sys.executable, "-c", AS_NOBODY],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    if "cannot make a network namespace" in done.stderr:
        pytest.skip(done.stderr)
    assert done.stdout.split() == ["True", "0"], done.stderr


def test_outside_they_have_none() -> None:
    if netns.pods_are_local():
        pytest.skip("already inside")
    assert run().returncode == 2
    assert "usage" in run().stderr
    assert "error" in run("--", "/no/such/program").stderr
