"""How processes end: at once, and with everything said."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

SCRIPT = """
import atexit, sys, threading
from redserve.transport.leave import leave

atexit.register(print, "taken apart")
threading.Thread(target=threading.Event().wait).start()  # the interpreter would wait for it
print("said", end="")
print("and heard", end="", file=sys.stderr)
{before}
leave(3)
"""

IN_THE_MIDDLE = """
import threading
from dataclasses import dataclass
from redserve.transport import leave
from redserve.transport.base import Descriptor, PeerInfo
from redserve.transport.buffer import Segment
from redserve.transport.nixl.endpoint import Endpoint
from redserve.transport.pool import Pool
from tests.transport.agents import Record

begun = threading.Event()

@dataclass
class Told(Record):  # an agent whose read ends some looks after nobody wants it any more
    looks: int = 3

    def start(self, peer, batch):
        begun.set()
        return super().start(peer, batch)

    def is_done(self, handle):
        self.looks -= endpoint.closing
        return self.looks == 0

    def release(self, handle):
        print("the last byte has landed")
        super().release(handle)

    def remove_peer(self, name):
        print("disconnected")

    def close(self):
        print("closed")

pool = Pool(4096)
endpoint = Endpoint(pool, "me", Told(slow=True), serves={serves})
region = pool.alloc(100)
region.hold()
lease = Descriptor("a", (Segment(0, 100),), 1, 30.0, None)
endpoint.read(PeerInfo("a", "nixl", ""), lease, region, lambda _: print("failed"))
assert begun.wait(60)
leave._CLOSE_TIMEOUT_S = {patience_s}
leave.leave(3)
"""

LINE_IN_STORE = """
import logging, logging.handlers
stored = logging.handlers.MemoryHandler(100, target=logging.StreamHandler())
logging.getLogger().addHandler(stored)
logging.warning("the last line")
"""


def run(before: str = "") -> subprocess.CompletedProcess[str]:
    return run_script(SCRIPT.format(before=before))


def run_script(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd=ROOT,
    )


def test_what_was_said_is_heard_and_nothing_is_waited_for() -> None:
    done = run()
    assert (done.returncode, done.stdout, done.stderr) == (3, "said", "and heard")


@pytest.mark.parametrize("before", ["sys.stdout.close()", "import os; os.close(1)"])
def test_nobody_who_listens_is_no_reason_to_stay(before: str) -> None:
    assert run(before).returncode == 3


def test_what_waits_to_be_logged_is_logged() -> None:
    done = run(LINE_IN_STORE)
    assert done.returncode == 3
    assert done.stderr.splitlines()[-1].endswith("the last line")


def test_reads_end_before_their_reader_does() -> None:
    """Whoever is read from would not survive it otherwise."""
    done = run_script(IN_THE_MIDDLE.format(serves=False, patience_s=50))
    assert done.stdout.splitlines() == [
        "failed",
        "the last byte has landed",
        "disconnected",
        "closed",
    ], done.stderr
    assert done.returncode == 3


def test_whoever_is_read_from_stays_connected_to_its_end() -> None:
    """Others may be reading: that is not to be seen from here."""
    done = run_script(IN_THE_MIDDLE.format(serves=True, patience_s=50))
    assert (done.stdout, done.returncode) == ("", 3), done.stderr
