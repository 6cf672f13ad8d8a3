"""The progress bar of `redserve bench`, on stderr and only on a terminal."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from redserve.telemetry.figures import duration

if TYPE_CHECKING:
    from redserve.bench.outcome import Outcome
    from redserve.bench.run import Plan


class Bar:
    """Watches a run."""

    def __init__(self, plan: Plan) -> None:
        console = Console(stderr=True, highlight=False)
        self._plan = plan
        self._num_failed = 0
        self._num_unsent = 0
        self._begin_s: float | None = None
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[told]}", markup=False),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("warm-up", total=plan.num_warm_up, told="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._progress.stop()

    def warmed_up(self, num_ended: int) -> None:
        """See `redserve.bench.run.Watcher`."""
        self._progress.update(self._task, completed=num_ended)

    def ended(self, num_ended: int, outcome: Outcome) -> None:
        """See `redserve.bench.run.Watcher`."""
        if self._begin_s is None:
            self._begin_s = outcome.answer.start_s
        self._num_failed += outcome.was_sent and not outcome.is_complete
        self._num_unsent += not outcome.was_sent
        of = "" if self._plan.num_requests is None else f" of {self._plan.num_requests}"
        failed = f", {self._num_failed} failed" if self._num_failed else ""
        failed += f", {self._num_unsent} not sent" if self._num_unsent else ""
        told = f"{num_ended}{of} requests{failed}   TTFT {duration(outcome.ttft_s)}"
        total, done = float(self._plan.num_requests or 0), float(num_ended)
        if self._plan.duration_s is not None:
            total, done = self._plan.duration_s, perf_counter() - self._begin_s
        self._progress.update(
            self._task, description="measuring", total=total, completed=min(done, total), told=told
        )
