"""`redserve down`: stop a service that runs on this machine."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import TYPE_CHECKING, Final

from redserve.errors import Unavailable
from redserve.local.state import find_service, running_services
from redserve.spec.settings import runtime_directory

if TYPE_CHECKING:
    import argparse

    from redserve.cli.common import Subparsers

_POLL_S: Final = 0.1


def add_parser(commands: Subparsers) -> None:
    """Add the command."""
    parser = commands.add_parser("down", help="stop a service that runs on this machine")
    parser.add_argument("--service", metavar="NAME", help="which one, if there are several")
    parser.add_argument(
        "--timeout",
        type=float,
        default=600.0,
        metavar="SECONDS",
        help="longest wait for running streams (default: 600)",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Ask the supervisor to drain and wait until it is gone."""
    root = runtime_directory()
    state = find_service(root, arguments.service)
    with contextlib.suppress(ProcessLookupError):
        os.kill(state.pid, signal.SIGTERM)
    deadline_s = time.monotonic() + arguments.timeout
    while any(other.pid == state.pid for other in running_services(root)):
        if time.monotonic() > deadline_s:
            raise Unavailable(
                f"{state.service} (process {state.pid}) still drains after {arguments.timeout:g} s"
            )
        time.sleep(_POLL_S)
    print(f"{state.service} stopped")
    return 0
