"""`redserve up --detach`: a supervisor of its own, in the background."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import TYPE_CHECKING, Final

from redserve.cli.up_display import ready_text
from redserve.errors import Unavailable
from redserve.local.state import find_service, hold, running_services

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

_POLL_S: Final = 0.1
_TAIL_LINES: Final = 5


def start_detached(arguments: argparse.Namespace, service: str, root: Path) -> int:
    """Start `redserve up` again without a terminal; return when it is ready.

    Returns:
        0, or its exit status when it ended before it was ready.
    """
    with hold(root, service):
        pass  # the name is free: the error for a taken one belongs to this terminal
    log_path = root / service / "up.log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            [*_program(), *_command_line(arguments)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    while process.poll() is None:
        state = next((s for s in running_services(root) if s.pid == process.pid), None)
        if state is not None and state.phase == "ready":
            print(ready_text(find_service(root, service)))
            return 0
        time.sleep(_POLL_S)
    tail = log_path.read_text(encoding="utf-8", errors="replace").splitlines()[-_TAIL_LINES:]
    print("\n".join(tail), file=sys.stderr)
    if process.returncode in (0, None):
        raise Unavailable(f"{service} ended before it was ready; see {log_path}")
    return process.returncode


def _program() -> list[str]:
    """How this program was started, without its arguments: as a script or by `-m`."""
    num_words = len(sys.orig_argv) - len(sys.argv) + 1
    return [sys.executable, *sys.orig_argv[1:num_words]]


def _command_line(arguments: argparse.Namespace) -> list[str]:
    words = ["up", "--quiet", "-f", str(arguments.file.resolve())]
    words += ["--start-timeout", str(arguments.start_timeout)]
    for name in ("http_host", "http_port", "grpc_host", "grpc_port"):
        value = getattr(arguments, name)
        if value is not None:
            words += [f"--{name.replace('_', '-')}", str(value)]
    return words
