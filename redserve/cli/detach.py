"""`redserve up --detach`: a supervisor of its own, in the background."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from redserve.cli.up_display import ready_text
from redserve.errors import Unavailable
from redserve.local.state import find_service, hold, running_services

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator
    from pathlib import Path

_POLL_S: Final = 0.1
_TAIL_LINES: Final = 5


def start_detached(arguments: argparse.Namespace, service: str, root: Path) -> int:
    """Start `redserve up` again without a terminal; return when it is ready.

    Returns:
        0; its exit status when it ended before it was ready; 130 or 143 when SIGINT or SIGTERM
        stopped it before.
    """
    with hold(root, service):
        pass  # the name is free: the error for a taken one belongs to this terminal
    log_path = root / service / "up.log"
    # Heard from before there is a process on: otherwise a signal could leave it behind.
    with _heard() as signals, log_path.open("wb") as log:
        process = subprocess.Popen(
            [*_program(), *_command_line(arguments)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        if _await_ready(process, root, signals):
            print(ready_text(find_service(root, service)))
            return 0
    if signals:
        print(f"redserve: {service} was stopped before it was ready", file=sys.stderr)
        return 128 + signals[0]
    tail = log_path.read_text(encoding="utf-8", errors="replace").splitlines()[-_TAIL_LINES:]
    print("\n".join(tail), file=sys.stderr)
    if process.returncode in (0, None):
        raise Unavailable(f"{service} ended before it was ready; see {log_path}")
    return process.returncode


def _await_ready(process: subprocess.Popen[bytes], root: Path, signals: list[int]) -> bool:
    """True when it is ready; False when it has ended, on its own or because of a signal.

    Every signal is passed on: the first asks the supervisor to stop, the second to do so at once.
    """
    num_passed_on = 0
    while process.poll() is None:
        if len(signals) > num_passed_on:
            num_passed_on = len(signals)
            process.terminate()
        state = next((s for s in running_services(root) if s.pid == process.pid), None)
        if state is not None and state.phase == "ready" and not signals:
            return True
        time.sleep(_POLL_S)
    return False


@contextmanager
def _heard() -> Iterator[list[int]]:
    """Collects SIGINT and SIGTERM instead of dying of them; what is ignored stays ignored."""
    signals: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        for number, handler in before.items():
            if handler is not signal.SIG_IGN:
                signal.signal(number, lambda heard, _frame: signals.append(heard))
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


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
