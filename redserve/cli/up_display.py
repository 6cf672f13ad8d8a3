"""What `redserve up` shows: a live table in a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.spinner import Spinner
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import RenderableType

    from redserve.local.plan import LocalPlan
    from redserve.local.state import Phase, ServiceState

_COLOURS: Final = ("cyan", "magenta", "green", "yellow", "blue", "red")
_PHASE_STYLES: Final[dict[Phase, str]] = {
    "starting": "yellow",
    "ready": "green",
    "unready": "red",
    "restarting": "red",
    "draining": "yellow",
    "stopped": "dim",
}


class Display:
    """Hears a session (`redserve.local.session.Listener`) and writes to the terminal.

    Progress and what processes say go to stderr; the addresses, once ready, to stdout.
    """

    def __init__(self, plan: LocalPlan, console: Console, *, quiet: bool) -> None:
        self._console = console
        self._quiet = quiet
        self._live: Live | None = None
        self._state: ServiceState | None = None
        self._began_s = time.monotonic()
        self._phases: dict[str, Phase] = {}
        names = [workload.name for workload in plan.workloads]
        self._width = max(len(name) for name in names)
        self._colours = {name: _COLOURS[index % len(_COLOURS)] for index, name in enumerate(names)}
        for warning in plan.warnings:
            console.print(f"[yellow]note:[/] {escape(warning)}", soft_wrap=True)

    def open(self) -> None:
        """Begin to show progress."""
        if self._console.is_terminal:
            self._live = Live(get_renderable=self._table, console=self._console, transient=True)
            self._live.start()

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def changed(self, state: ServiceState) -> None:
        """A process changed its phase."""
        self._state = state
        for process in state.processes:
            if self._phases.get(process.name) == process.phase:
                continue
            self._phases[process.name] = process.phase
            if self._live is None:
                text = f"{process.phase} after {self._elapsed_s():.1f} s"
                self._print(process.name, f"[{_PHASE_STYLES[process.phase]}]{text}[/]")

    def line(self, name: str, text: str) -> None:
        """A process wrote a line."""
        if not self._quiet:
            self._print(name, escape(text))

    def ready(self, state: ServiceState) -> None:
        """Every process is ready, for the first time."""
        self.close()
        print(ready_text(state), flush=True)

    def stopping(self, *, at_once: bool) -> None:
        """Processes are asked to end, or killed."""
        self.close()
        self._console.print(
            "killing every process"
            if at_once
            else "stopping: router, LLM engines, encoders (Ctrl-C again to kill them)"
        )

    def _print(self, name: str, markup: str) -> None:
        colour = self._colours.get(name, "white")
        self._console.print(f"[{colour}]{name:{self._width}} |[/] {markup}", soft_wrap=True)

    def _elapsed_s(self) -> float:
        return time.monotonic() - self._began_s

    def _table(self) -> RenderableType:
        table = Table.grid(padding=(0, 2))
        for process in self._state.processes if self._state else ():
            style = _PHASE_STYLES[process.phase]
            table.add_row(process.name, f"[{style}]{process.phase}[/]", process.address)
        spinner = Spinner("dots", text=f"starting ({self._elapsed_s():.0f} s)")
        table.add_row(spinner, "", "")
        return table


@contextmanager
def make_display(plan: LocalPlan, *, quiet: bool) -> Iterator[Display]:
    """A display for this terminal, closed at the end whatever happens."""
    display = Display(plan, Console(file=sys.stderr, highlight=False), quiet=quiet)
    display.open()
    try:
        yield display
    finally:
        display.close()


def ready_text(state: ServiceState) -> str:
    """Where the service is, and what to try."""
    lines = [f"{state.service} is ready", f"  gRPC    {state.grpc_address}"]
    if state.http_address is not None:
        lines.append(f"  OpenAI  http://{state.http_address}/v1")
    if state.playground:
        lines.append(f"  page    http://{state.http_address}/")
    lines += [
        "try:",
        '  redserve chat --image PICTURE --timeline "what is in image 1?"',
        "  redserve status",
    ]
    if state.http_address is not None:
        body = '{"messages": [{"role": "user", "content": "hello"}]}'
        lines.append(
            f"  curl http://{state.http_address}/v1/chat/completions "
            f"-H 'content-type: application/json' -d '{body}'"
        )
    return "\n".join(lines)
