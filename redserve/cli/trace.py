"""`redserve trace`: where the time of a request went."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from redserve.cli.common import add_target, router_address
from redserve.errors import ConfigError
from redserve.telemetry.render import chrome_trace, render_text
from redserve.wire.router_client import RouterClient

if TYPE_CHECKING:
    import argparse

    from redserve.cli.common import Subparsers
    from redserve.telemetry.timeline import Timeline


def add_parser(commands: Subparsers) -> None:
    """Add the command."""
    parser = commands.add_parser("trace", help="show where the time of a request went")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("request_id", nargs="?", default="", metavar="REQUEST_ID")
    which.add_argument(
        "--last", action="store_true", help="the last request that finished (the default)"
    )
    parser.add_argument(
        "--chrome",
        type=Path,
        metavar="FILE",
        help="write a trace for chrome://tracing or ui.perfetto.dev instead",
    )
    add_target(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Fetch the timeline; draw it, or write it to a file."""
    timeline = asyncio.run(_fetch(router_address(arguments), arguments.request_id))
    if arguments.chrome is None:
        print(draw(timeline))
        return 0
    try:
        arguments.chrome.write_text(json.dumps(chrome_trace(timeline)), encoding="utf-8")
    except OSError as error:
        message = f"{arguments.chrome} cannot be written: {error.strerror}"
        raise ConfigError(message, field="--chrome") from error
    print(f"{arguments.chrome}: request {timeline.request_id}, {len(timeline.bars)} bars")
    return 0


def draw(timeline: Timeline) -> str:
    """The timeline in the width of the terminal."""
    return render_text(timeline, width=shutil.get_terminal_size((100, 24)).columns)


async def _fetch(address: str, request_id: str) -> Timeline:
    async with RouterClient(address) as client:
        return await client.timeline(request_id)
