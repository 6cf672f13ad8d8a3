"""The engine: schedule, run, update.

One thread runs the loop; it alone calls the runner's `run`. Everybody else talks to the engine
through its methods, which take its lock for microseconds: the lock guards the scheduler and the
ledger, and is never held while the model runs. An idle engine sleeps on a condition.

                    add, put_rows, drop_rows, abort
    event loop  ───────────────────────────────────►  scheduler + ledger (one lock)
        ▲                                                   │ ▲
        │ Outlet: deltas, ends, rows used or needed         ▼ │ schedule, update
        └────────────────────────────────────────────  engine thread ──► runner.run
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from redserve.errors import Overloaded, RedServeError, Unavailable
from redserve.scheduling import StepFeatures
from redserve.telemetry.clock import now_ns
from redserve.telemetry.log import get_logger
from redserve_llm.harvest import bug, gather
from redserve_llm.ledger import Ledger
from redserve_llm.live_sequence import LiveSequence
from redserve_llm.runner.interface import RunnerDead
from redserve_llm.step_metrics import StepMetrics

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from redserve.domain import SequenceKey, SequenceRequest
    from redserve.scheduling import Admission, MicroBatch, Scheduler
    from redserve.telemetry.metrics.llm import LLMMetrics
    from redserve.telemetry.timeline import Bar
    from redserve_llm.detokenizer import Vocabulary
    from redserve_llm.notices import Outlet
    from redserve_llm.runner.interface import ItemRows, ModelRunner, SampledToken

log = get_logger()

MAX_FAILURES = 3
"""Steps that may fail in a row; after that the engine is broken rather than unlucky."""


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """What an engine must know besides its parts.

    Attributes:
        lane: Name of the replica in timelines.
        end_token_ids: The checkpoint's end tokens.
        max_queued: Sequences that may wait before new ones are refused.
        observe: Told of every step's features and seconds; for budgets that learn.
    """

    lane: str
    end_token_ids: tuple[int, ...]
    max_queued: int = 512
    observe: Callable[[StepFeatures, float], None] | None = None


class Engine:
    """Runs sequences to their end.

    Args:
        config: See there.
        scheduler: Owned by the engine from now on.
        runner: Likewise.
        vocabulary: For text.
        outlet: Gets all that happens.
        metrics: Where steps are counted.
    """

    def __init__(
        self,
        config: EngineConfig,
        scheduler: Scheduler,
        runner: ModelRunner,
        vocabulary: Vocabulary,
        outlet: Outlet,
        metrics: LLMMetrics,
    ) -> None:
        self._config = config
        self._scheduler = scheduler
        self._runner = runner
        self._vocabulary = vocabulary
        self._outlet = outlet
        self._metrics = StepMetrics(metrics)
        self._ledger = Ledger(scheduler, runner, outlet)
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._closing = False
        self._broken: BaseException | None = None
        self._num_failures = 0
        self._thread = threading.Thread(target=self._main, name="engine", daemon=True)

    # -- from any thread -------------------------------------------------------------------

    def start(self) -> None:
        """Start the loop."""
        self._thread.start()

    def close(self, timeout_s: float = 10.0) -> bool:
        """End the loop after the step that is running; what is live fails with Unavailable.

        Returns:
            Whether the thread has ended.
        """
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def add(self, request: SequenceRequest, *, watched: bool = False) -> Admission:
        """Queue a sequence. A newer generation of a live request replaces the older one.

        Args:
            request: What to run.
            watched: Whether `Worked` tells of every chunk of its prefill.

        Raises:
            InvalidArgument: The request cannot be run, or a newer generation of it is live.
            ContextTooLong: It could never fit.
            Overloaded: Too many wait.
            Unavailable: The engine is broken or closing.
        """
        config = self._config
        with self._lock:
            self._check_open()
            self._ledger.check_generation(request.key)
            self._check_queue()
        live = LiveSequence(
            request,
            self._vocabulary,
            config.end_token_ids,
            config.lane,
            now_ns(),
            watched=watched,
        )
        self._runner.add(request)  # slow for long prompts: not under the lock
        try:
            with self._changed:
                self._check_open()
                admission = self._ledger.enter(live)
                self._changed.notify_all()
        except BaseException:
            self._runner.remove(request.key)
            raise
        if live.reason is not None:
            self._runner.remove(request.key)
        return admission

    def put_rows(self, key: SequenceKey, item_index: int, rows: ItemRows) -> bool:
        """Give the rows of an item; they must not change until `RowsUsed`, `RowsNeeded` or `Gone`.

        Returns:
            False if nobody needs them: the caller may free them at once.
        """
        with self._changed:
            accepted = self._ledger.put_rows(key, item_index, rows)
            self._changed.notify_all()
            return accepted

    def drop_rows(self, key: SequenceKey, item_index: int) -> bool:
        """Take the rows of an item back; `RowsNeeded` follows.

        Returns:
            False, and nothing has changed, if there are none or a step reads them.
        """
        with self._lock:
            return self._ledger.drop_rows(key, item_index)

    def priority(self, key: SequenceKey, item_index: int) -> tuple[int, int] | None:
        """Lower is needed earlier; None if the sequence is not live. Constant while it is."""
        with self._lock:
            return self._scheduler.priority(key, item_index)

    def bars(self, key: SequenceKey) -> tuple[Bar, ...]:
        """What was done so far for a sequence; nothing if it is not live."""
        with self._lock:
            live = self._ledger.live(key)
            return () if live is None else live.timeline.bars()

    def abort(self, key: SequenceKey) -> None:
        """End a sequence that nobody wants any more. Unknown ones are fine."""
        with self._changed:
            self._ledger.end(key, None)
            self._ledger.report()
            self._changed.notify_all()

    def abort_request(self, request_id: str) -> None:
        """End whatever generation of a request is live."""
        with self._lock:
            key = self._ledger.key_of(request_id)
        if key is not None:
            self.abort(key)

    # -- the loop --------------------------------------------------------------------------

    def _main(self) -> None:
        try:
            while (batch := self._next_batch()) is not None:
                self._run(batch)
        except BaseException as error:
            log.exception("the engine is broken")
            with self._lock:
                self._broken = error
                self._ledger.abandon(Unavailable("this replica broke down; try another one"))
                self._outlet.broken(error)

    def step(self) -> bool:
        """One turn of the loop in the caller's thread, for those who drive it instead of `start`.

        Returns:
            False if there was nothing to run.
        """
        with self._lock:
            batch = self._schedule()
        if batch is not None:
            self._run(batch)
        return batch is not None

    def _next_batch(self) -> MicroBatch | None:
        """Schedule; sleep until there is something to run. None at the end."""
        with self._changed:
            while not self._closing:
                batch = self._schedule()
                if batch is not None:
                    return batch
                self._publish(now_ns(), is_idle=True)
                self._changed.wait()
            self._ledger.end_all(Unavailable("this replica is shutting down; try another one"))
            return None

    def _run(self, batch: MicroBatch) -> None:
        start_ns = now_ns()
        try:
            sampled = self._runner.run(batch, self._ledger.rows)
        except RunnerDead:
            self._fail(batch, bug())
            raise
        except RedServeError as error:
            log.warning("a step failed", reason=error.reason, error=error.message)
            self._fail(batch, error)
        except Exception:
            log.exception("a step failed", num_sequences=len(batch.chunks))
            self._fail(batch, bug())
        else:
            self._num_failures = 0
            self._update(batch, sampled, start_ns, now_ns())

    def _update(
        self,
        batch: MicroBatch,
        sampled: Mapping[SequenceKey, SampledToken],
        start_ns: int,
        end_ns: int,
    ) -> None:
        """Tokens become text, the scheduler learns of them, clients get them."""
        harvest = gather(self._ledger, batch, sampled, start_ns, end_ns)
        seconds = (end_ns - start_ns) / 1e9
        if self._config.observe is not None:
            self._config.observe(StepFeatures.of(batch), seconds)
        self._metrics.step(batch, len(harvest.outcomes), seconds)
        with self._lock:
            for key, error in harvest.failures.items():
                self._ledger.end(key, error)
            self._scheduler.update(batch.batch_id, harvest.outcomes)
            for live in self._ledger.tell(harvest.deltas, (*harvest.begun, *harvest.worked)):
                self._metrics.ended(live.timeline)
            self._ledger.report()
            self._publish(end_ns)

    def _fail(self, batch: MicroBatch, error: RedServeError) -> None:
        """Fail the sequences of a step, and no others.

        Raises:
            RunnerDead: Too many steps have failed in a row.
        """
        with self._lock:
            for chunk in batch.chunks:
                self._ledger.end(chunk.key, error)
            self._scheduler.update(batch.batch_id, {})
            self._ledger.report()
        self._num_failures += 1
        if self._num_failures >= MAX_FAILURES:
            raise RunnerDead(f"{self._num_failures} steps failed in a row")

    # -- small helpers; the lock is held -----------------------------------------------------

    def _schedule(self) -> MicroBatch | None:
        batch = self._scheduler.schedule()
        self._ledger.report()
        return batch

    def _publish(self, at_ns: int, *, is_idle: bool = False) -> None:
        if is_idle or self._metrics.is_due(at_ns):
            stats = self._scheduler.stats()
            self._metrics.load(stats, at_ns)
            self._outlet.load(stats)

    def _check_open(self) -> None:
        if self._broken is not None or self._closing:
            raise Unavailable("this replica takes no more requests; try another one")

    def _check_queue(self) -> None:
        num_waiting = self._scheduler.stats().num_waiting
        if num_waiting >= self._config.max_queued:
            raise Overloaded(
                f"{num_waiting} requests wait already, at most {self._config.max_queued} may",
                retry_after_s=self._metrics.retry_after_s(),
            )
