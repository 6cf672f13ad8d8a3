"""How processes end: at once, and with everything said."""

from __future__ import annotations

import subprocess
import sys

import pytest

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


def run(before: str = "") -> subprocess.CompletedProcess[str]:
    script = SCRIPT.format(before=before)
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60
    )


def test_what_was_said_is_heard_and_nothing_is_waited_for() -> None:
    done = run()
    assert (done.returncode, done.stdout, done.stderr) == (3, "said", "and heard")


@pytest.mark.parametrize("before", ["sys.stdout.close()", "import os; os.close(1)"])
def test_nobody_who_listens_is_no_reason_to_stay(before: str) -> None:
    assert run(before).returncode == 3
