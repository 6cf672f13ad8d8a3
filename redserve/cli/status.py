"""`redserve status`: what runs, how loaded it is, and how embeddings travel."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console
from rich.table import Table

from redserve.cli.common import add_target
from redserve.cli.pool_tables import pair_lines, pair_table, replica_table
from redserve.errors import RedServeError
from redserve.local.state import find_service, running_services
from redserve.spec.settings import runtime_directory
from redserve.wire.router_client import Pools, RouterClient

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from redserve.cli.common import Subparsers
    from redserve.local.state import ServiceState

MIN_WIDTH: Final = 110
"""Columns that are used even if the terminal has fewer: a cut address is of no use."""
_QUERY_TIMEOUT_S: Final = 3.0


@dataclass(frozen=True, slots=True)
class Report:
    """One service.

    Attributes:
        address: gRPC address of its router.
        state: What its supervisor wrote; None for a router that was named by address.
        pools: What its router says.
        error: Why the router says nothing; None when it does.
    """

    address: str
    state: ServiceState | None
    pools: Pools
    error: str | None

    def to_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "grpc_address": self.address,
            "service": self.state.to_dict() if self.state else None,
            "replicas": [asdict(replica) for replica in self.pools.replicas],
            "pair_checks": [asdict(pair) for pair in self.pools.pairs],
            "router_error": self.error,
        }


def add_parser(commands: Subparsers) -> None:
    """Add the command."""
    parser = commands.add_parser("status", help="show processes, replicas and their load")
    parser.add_argument("--json", action="store_true", help="for machines")
    add_target(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the state of one service, or of all that run here."""
    if arguments.address is not None:
        targets: list[tuple[str, ServiceState | None]] = [(arguments.address, None)]
    else:
        root = runtime_directory()
        states = running_services(root)
        if arguments.service is not None or not states:
            states = (find_service(root, arguments.service),)
        targets = [(state.grpc_address, state) for state in states]
    reports = asyncio.run(_gather(targets))
    if arguments.json:
        print(json.dumps([report.to_dict() for report in reports], indent=1))
    else:
        console = Console(highlight=False, soft_wrap=True)
        console.width = max(console.width, MIN_WIDTH)
        for report in reports:
            _show(report, console)
    failed = any(report.error and report.state is None for report in reports)
    return 1 if failed else 0


async def _gather(targets: Sequence[tuple[str, ServiceState | None]]) -> list[Report]:
    return list(await asyncio.gather(*(_ask(address, state) for address, state in targets)))


async def _ask(address: str, state: ServiceState | None) -> Report:
    try:
        async with RouterClient(address) as client:
            return Report(address, state, await client.pools(_QUERY_TIMEOUT_S), None)
    except RedServeError as error:
        return Report(address, state, Pools((), ()), str(error))


def _show(report: Report, console: Console) -> None:
    names: dict[str, str] = {}
    if report.state is not None:
        names = {process.address: process.name for process in report.state.processes}
        _show_state(report.state, console)
    if report.error is not None:
        console.print(f"the router at {report.address} does not answer: {report.error}")
        return
    if report.pools.replicas:
        console.print("[bold]what the router sees[/]")
        console.print(replica_table(report.pools.replicas, names))
    if report.pools.pairs:
        console.print("[bold]how embeddings travel[/]")
        console.print(pair_table(report.pools.pairs, names))
        for line in pair_lines(report.pools.pairs):
            console.print(line)


def _show_state(state: ServiceState, console: Console) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("PROCESS", "PHASE", "GRPC", "METRICS", "PID", "RESTARTS"):
        table.add_column(column, no_wrap=True)
    console.print(f"[bold]{state.service}[/] is {state.phase} (manifest {state.manifest})")
    console.print(f"gRPC {state.grpc_address}   HTTP {state.http_address or 'disabled'}")
    for process in state.processes:
        table.add_row(
            process.name,
            process.phase,
            process.address,
            process.metrics_address or "-",
            str(process.pid or "-"),
            str(process.num_restarts),
        )
    console.print(table)
    if state.processes:
        console.print(f"logs {Path(state.processes[0].log).parent}")
