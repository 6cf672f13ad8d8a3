"""`redserve top`: promises, latencies, traffic and replicas, live."""

from __future__ import annotations

import argparse
import asyncio
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from redserve.cli.common import add_target
from redserve.cli.top_frame import Fitted, frame
from redserve.errors import RedServeError
from redserve.local.state import find_service
from redserve.spec.settings import runtime_directory
from redserve.wire.router_client import RouterClient

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import RenderableType

    from redserve.cli.common import Subparsers

MIN_WIDTH: Final = 110
"""Columns of a frame that no terminal shows: a cut address is of no use."""
DEFAULT_INTERVAL_S: Final = 1.0
MIN_INTERVAL_S: Final = 0.1
_QUERY_TIMEOUT_S: Final = 3.0


@dataclass(frozen=True, slots=True)
class Target:
    """Whose figures: a router's gRPC address, and names of processes by address."""

    address: str
    names: Mapping[str, str]


def add_parser(commands: Subparsers) -> None:
    """Add the command."""
    parser = commands.add_parser("top", help="watch promises, latencies, traffic and replicas")
    parser.add_argument("--once", action="store_true", help="one look instead of many")
    parser.add_argument("--json", action="store_true", help="one look, for machines")
    parser.add_argument(
        "--interval",
        type=_interval,
        default=DEFAULT_INTERVAL_S,
        metavar="SECONDS",
        help=f"time between looks (default: {DEFAULT_INTERVAL_S:g})",
    )
    add_target(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Show one frame, or one after the other until Ctrl-C."""
    target = _target(arguments)
    console = Console(highlight=False)
    if arguments.json or arguments.once or not console.is_terminal:
        asyncio.run(_once(target, console, as_json=arguments.json))
        return 0
    try:
        asyncio.run(_watch(target, console, arguments.interval))
    except KeyboardInterrupt:
        return 0  # the way out, not an accident
    return 0


def _target(arguments: argparse.Namespace) -> Target:
    if arguments.address is not None:
        return Target(arguments.address, {})
    state = find_service(runtime_directory(), arguments.service)
    return Target(state.grpc_address, {one.address: one.name for one in state.processes})


async def _once(target: Target, console: Console, *, as_json: bool) -> None:
    async with RouterClient(target.address) as client:
        overview = await client.overview(_QUERY_TIMEOUT_S)
    if as_json:
        print(json.dumps(overview.to_dict(), indent=1))
        return
    if not console.is_terminal:
        console.width = max(console.width, MIN_WIDTH)
    console.print(frame(overview, target.address, target.names))


async def _watch(target: Target, console: Console, interval_s: float) -> None:
    """A router that is away for a while does not end it: its last figures stay, with the reason."""
    shown: RenderableType = Text("")
    async with RouterClient(target.address) as client:
        with Live(console=console, screen=True, auto_refresh=False) as live:
            while True:
                try:
                    overview = await client.overview(_QUERY_TIMEOUT_S)
                    shown = frame(overview, target.address, target.names)
                    live.update(Fitted(shown), refresh=True)
                except RedServeError as error:
                    why = f"the router at {target.address} does not answer: {error}"
                    told = Group(Text(why, style="red"), Text(), shown)
                    live.update(Fitted(told), refresh=True)
                await asyncio.sleep(interval_s)


def _interval(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not MIN_INTERVAL_S <= seconds <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r}: write seconds, {MIN_INTERVAL_S:g} to 3600")
    return seconds
