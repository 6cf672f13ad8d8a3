"""`redserve up`: the whole service on this machine."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

from redserve.cli.common import add_manifest, port_number
from redserve.cli.detach import start_detached
from redserve.cli.up_display import make_display
from redserve.local.checks import check_runnable_here
from redserve.local.machine import inspect_machine
from redserve.local.model import resolve_model
from redserve.local.plan import Listen, plan
from redserve.local.session import run_session
from redserve.spec.manifest import open_manifest
from redserve.spec.settings import runtime_directory

if TYPE_CHECKING:
    import argparse

    from redserve.cli.common import Subparsers
    from redserve.local.plan import LocalPlan
    from redserve.spec.service import RedService


def add_parser(commands: Subparsers) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "up",
        help="run a service on this machine",
        description="Start every process of a service, wait until it answers, and keep it running "
        "until Ctrl-C. A second Ctrl-C does not wait for running requests.",
    )
    add_manifest(parser)
    parser.add_argument("--http-host", metavar="HOST", help="instead of spec.router.http.host")
    parser.add_argument(
        "--http-port", type=port_number, metavar="PORT", help="instead of spec.router.http.port"
    )
    parser.add_argument("--grpc-host", metavar="HOST", help="instead of spec.router.grpc.host")
    parser.add_argument(
        "--grpc-port", type=port_number, metavar="PORT", help="instead of spec.router.grpc.port"
    )
    parser.add_argument(
        "--detach", action="store_true", help="return when it is ready; 'redserve down' stops it"
    )
    parser.add_argument(
        "--quiet", action="store_true", help="write what processes say into their log files only"
    )
    parser.add_argument(
        "--start-timeout",
        type=float,
        default=1800.0,
        metavar="SECONDS",
        help="longest wait until all processes are ready (default: 1800)",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Check everything, then start, then wait for a signal."""
    manifest = open_manifest(arguments.file)
    with manifest.pointing():
        return _run(arguments, manifest.service)


def _run(arguments: argparse.Namespace, service: RedService) -> int:
    made = _make_plan(arguments, service)
    if arguments.detach:
        return start_detached(arguments, service.name, runtime_directory())
    with make_display(made, quiet=arguments.quiet) as display:
        asyncio.run(
            run_session(
                made,
                arguments.file,
                runtime_directory(),
                display,
                start_timeout_s=arguments.start_timeout,
            )
        )
    return 0


def _make_plan(arguments: argparse.Namespace, service: RedService) -> LocalPlan:
    check_runnable_here(service)  # before a model is downloaded that cannot be served
    if service.spec.model.scheme == "hf":
        print(f"fetching {service.spec.model.uri}, unless it is there already", file=sys.stderr)
    model_uri = resolve_model(service, arguments.file.resolve().parent)
    listen = Listen(
        http_host=arguments.http_host,
        http_port=arguments.http_port,
        grpc_host=arguments.grpc_host,
        grpc_port=arguments.grpc_port,
    )
    return plan(service, inspect_machine(), listen, model_uri)
