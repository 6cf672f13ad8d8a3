"""`redserve bench`: put load on a service and measure what its clients see."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from redserve import __version__
from redserve.bench.report.page import page
from redserve.bench.room import SPARE_FILES
from redserve.bench.run import MAX_INFLIGHT, Run
from redserve.bench.summary import summarize
from redserve.bench.tables import grids, headline, notes
from redserve.cli.bench_options import add_options, options_of
from redserve.cli.bench_progress import Bar
from redserve.cli.common import show_what_can_be_shown
from redserve.errors import ConfigError
from redserve.telemetry.figures import rate

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping
    from pathlib import Path

    from redserve.bench.clients.base import Client
    from redserve.bench.outcome import Outcome
    from redserve.bench.summary import Summary
    from redserve.cli.common import Subparsers

INTERRUPTED = 130
MIN_WIDTH = 110
_FEW_FILES = (
    "this process may open few files (ulimit -Hn); "
    f"{MAX_INFLIGHT} need {MAX_INFLIGHT + SPARE_FILES}"
)


def add_parser(commands: Subparsers) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "bench",
        help="put load on a service and measure it",
        description="Put load on a service and measure what its clients see: of one that runs "
        "here, of any router by gRPC (--address), of any OpenAI-compatible server (--url).",
    )
    add_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Measure, and tell; after Ctrl-C what was measured until then."""
    show_what_can_be_shown()
    options = options_of(arguments)
    _check_writable(arguments.report)
    room = options.room()
    if room < MAX_INFLIGHT and options.plan.rate_per_s is not None:
        print(f"{room} requests under way at most: {_FEW_FILES}", file=sys.stderr)
    with Bar(options.plan) as bar:
        timeout_s = options.manners.timeout_s
        measured = Run(options.plan, options.workload, timeout_s, bar, max_inflight=room)
        client = options.client()
        interrupted = False
        try:
            asyncio.run(_measure(measured, client))
        except KeyboardInterrupt:
            interrupted = True
    facts = {**options.facts(client.model), "redserve": __version__}
    if interrupted:
        facts["interrupted"] = "yes: what was under way is not counted"
    open_loop = options.plan.rate_per_s is not None
    summary = summarize(measured.outcomes, options.objectives, open_loop=open_loop)
    if measured.warm_up_problem is not None:
        print(f"warm-up: {measured.warm_up_problem.message}", file=sys.stderr)
    if arguments.report is not None:
        arguments.report.write_text(page(summary, measured.outcomes, facts), encoding="utf-8")
    if arguments.json:
        print(json.dumps(_to_dict(summary, measured.outcomes, facts), indent=1))
    else:
        _show(summary, facts)
    if interrupted:
        return INTERRUPTED
    return 0 if summary.num_complete else 1


async def _measure(measured: Run, client: Client) -> None:
    async with client:
        await measured.go(client)


def _check_writable(path: Path | None) -> None:
    """Nobody wants to learn after ten minutes of load that the report has no place.

    Leaves no file behind.

    Raises:
        ConfigError: It cannot be written.
    """
    if path is None:
        return
    try:
        real = path.resolve()
        was_there = real.exists()
        real.open("a").close()
        if not was_there:
            real.unlink()
    except OSError as error:
        message = f"{path} cannot be written: {error.strerror}"
        raise ConfigError(message, field="--report") from error


def _show(summary: Summary, facts: Mapping[str, str]) -> None:
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, MIN_WIDTH)
    console.print(Text.assemble((facts["model"], "bold"), f" at {facts['target']}"))
    console.print(Text(facts["load"]))
    console.print(headline(summary), markup=False)
    good = summary.goodput_per_s
    rates = [rate(summary.requests_per_s, "requests"), rate(summary.tokens_per_s, "tokens")]
    rates += [] if good is None else [f"goodput {rate(good, 'requests')}"]
    console.print("   ".join(rates))
    for note in notes(summary):
        console.print(Text(note, style="yellow"))
    for grid in grids(summary):
        console.print()
        table = Table(box=None, pad_edge=False, header_style="bold")
        for number, name in enumerate(grid.header):
            shown = name.upper()
            left = number == 0 or name == "indicator"
            table.add_column(shown, justify="left" if left else "right", no_wrap=True)
        for index, row in enumerate(grid.rows):
            table.add_row(*row, style="bold red" if index in grid.broken else "")
        console.print(table)


def _to_dict(summary: Summary, outcomes: list[Outcome], facts: Mapping[str, str]) -> dict[str, Any]:
    begin_s = min((one.due_s for one in outcomes), default=0.0)
    ordered = sorted(outcomes, key=lambda one: one.index)
    return {
        "facts": dict(facts),
        "summary": summary.to_dict(),
        "requests": [_request_to_dict(one, begin_s) for one in ordered],
    }


def _request_to_dict(one: Outcome, begin_s: float) -> dict[str, Any]:
    """Times are seconds since the first request was due; None for what was not sent."""
    sent = one.was_sent
    return {
        "index": one.index,
        "num_images": one.num_images,
        "due_s": one.due_s - begin_s,
        "sent_s": one.answer.start_s - begin_s if sent else None,
        "lag_s": one.lag_s if sent else None,
        "ttft_s": one.ttft_s,
        "ttft_from_due_s": one.ttft_from_due_s,
        "tpot_s": one.tpot_s,
        "duration_s": one.duration_s if sent else None,
        "duration_from_due_s": one.duration_from_due_s if sent else None,
        "num_output_tokens": one.answer.num_tokens,
        "num_first_tokens": min(one.answer.num_first, one.answer.num_tokens),
        "reason": None if one.answer.problem is None else one.answer.problem.reason,
    }
