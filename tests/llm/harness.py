"""An engine driven turn by turn, with deliveries of embeddings in any order."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry

from redserve.modeling.device_slab import DevicePiece
from redserve.scheduling import FixedBudget, Scheduler, SchedulerConfig
from redserve.telemetry.metrics.llm import LLMMetrics
from redserve_llm.engine import Engine, EngineConfig
from redserve_llm.notices import Delta, Ended, Failed, Gone, RowsNeeded, RowsUsed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from redserve.domain import SequenceKey, SequenceRequest
    from redserve.scheduling import SchedulerStats
    from redserve_llm.notices import Notice
    from redserve_llm.runner.interface import ItemRows, ModelRunner


@dataclass
class Job:
    """A request and where its embeddings come from."""

    request: SequenceRequest
    rows: Callable[[int], ItemRows]


@dataclass
class Recorder:
    """An outlet that keeps what it hears, per sequence."""

    tokens: dict[SequenceKey, list[int]] = field(default_factory=dict)
    texts: dict[SequenceKey, str] = field(default_factory=dict)
    ends: dict[SequenceKey, Ended | Failed] = field(default_factory=dict)
    gone: set[SequenceKey] = field(default_factory=set)
    waiting: list[Notice] = field(default_factory=list)
    error: BaseException | None = None
    stats: SchedulerStats | None = None

    def notify(self, notices: Sequence[Notice]) -> None:
        for notice in notices:
            match notice:
                case Delta():
                    assert notice.key not in self.ends, "a token after the end"
                    self.texts[notice.key] = self.texts.get(notice.key, "") + notice.text
                    ids = self.tokens.setdefault(notice.key, [])
                    ids += [token.token_id for token in notice.tokens]
                case Ended() | Failed():
                    assert notice.key not in self.ends, "ended twice"
                    self.ends[notice.key] = notice
                case Gone():
                    self.gone.add(notice.key)
                    self.waiting.append(notice)
                case RowsNeeded() | RowsUsed():
                    self.waiting.append(notice)

    def load(self, stats: SchedulerStats) -> None:
        self.stats = stats

    def broken(self, error: BaseException) -> None:
        self.error = error


class Driver:
    """Adds jobs, delivers rows and turns the engine, in an order that `seed` decides.

    Rows that the engine has given up are overwritten with NaN at once, so that a late read shows
    in the answer. Rows are delivered late, twice, and taken back now and then.

    Args:
        runner: What computes.
        vocabulary: For text.
        seed: Of the order.
        budget: Tokens per step.
        arrivals: Chance per turn that the next job comes.
        deliveries: Chance per turn that a parcel of rows comes.
        drops: Chance per turn that rows which wait in the arena are taken back.
        scheduler: Arguments of its config.
    """

    def __init__(
        self,
        runner: ModelRunner,
        vocabulary: Any,
        *,
        seed: int = 0,
        budget: int = 64,
        arrivals: float = 0.4,
        deliveries: float = 0.6,
        drops: float = 0.0,
        end_token_ids: tuple[int, ...] = (2,),
        **scheduler: Any,
    ) -> None:
        self.random = random.Random(seed)
        self.recorder = Recorder()
        config = SchedulerConfig(**scheduler)
        self.scheduler = Scheduler(config, FixedBudget(budget))
        self.engine = Engine(
            EngineConfig("llm-0", end_token_ids),
            self.scheduler,
            runner,
            vocabulary,
            self.recorder,
            LLMMetrics(CollectorRegistry()),
        )
        self._chances = (arrivals, deliveries, drops)
        self._jobs: dict[SequenceKey, Job] = {}
        self._parcels: list[tuple[SequenceKey, int]] = []
        self._arena: dict[tuple[SequenceKey, int], ItemRows] = {}

    def run(self, jobs: Sequence[Job], max_turns: int = 5000) -> Recorder:
        """Run all jobs to their end."""
        todo = list(jobs)
        arrivals, deliveries, drops = self._chances
        for _ in range(max_turns):
            if todo and (
                self.random.random() < arrivals or len(self._jobs) == len(self.recorder.ends)
            ):
                self.add(todo.pop(0))
            if self._parcels and self.random.random() < deliveries:
                self.deliver(self.random.randrange(len(self._parcels)))
            if self._arena and self.random.random() < drops:
                key, item_index = self.random.choice(list(self._arena))
                self.take_back(key, item_index)
            self.engine.step()
            self.hear()
            self.scheduler.check_integrity()
            if not todo and len(self._jobs) == len(self.recorder.ends):
                break
        else:
            raise AssertionError(f"stuck: {self.scheduler.stats()}")
        self.check_nothing_is_left()
        return self.recorder

    def add(self, job: Job) -> None:
        key = job.request.key
        self._jobs[key] = job
        admission = self.engine.add(job.request)
        self._parcels += [(key, item_index) for item_index in admission.needed_items]

    def deliver(self, place: int) -> None:
        key, item_index = self._parcels.pop(place)
        rows = self._jobs[key].rows(item_index)
        self.hear()
        if (key, item_index) in self._arena:
            return  # one slot per item, as in the arena
        if self.engine.put_rows(key, item_index, rows):
            self._arena[key, item_index] = rows
        if self.random.random() < 0.1:
            self._parcels.append((key, item_index))  # the same again, later: nobody may mind
        self.hear()

    def take_back(self, key: SequenceKey, item_index: int) -> None:
        self.hear()
        rows = self._arena.get((key, item_index))
        if rows is not None and self.engine.drop_rows(key, item_index):
            _spoil(rows)
            del self._arena[key, item_index]
        self.hear()

    def hear(self) -> None:
        """Do what the arena does on notices."""
        waiting, self.recorder.waiting = self.recorder.waiting, []
        for notice in waiting:
            if isinstance(notice, RowsUsed):
                self._free_used(notice)
            elif isinstance(notice, RowsNeeded):
                for item_index in notice.item_indices:
                    rows = self._arena.pop((notice.key, item_index), None)
                    if rows is not None:
                        _spoil(rows)
                    self._parcels.append((notice.key, item_index))
            elif isinstance(notice, Gone):
                for place in [place for place in self._arena if place[0] == notice.key]:
                    _spoil(self._arena.pop(place))
                self._parcels = [place for place in self._parcels if place[0] != notice.key]

    def check_nothing_is_left(self) -> None:
        assert not self._arena
        assert self.scheduler.is_idle
        stats = self.scheduler.stats()
        assert stats.blocks_free == stats.blocks_total
        assert stats.rows_held == 0
        assert self.recorder.gone == set(self._jobs)

    def _free_used(self, notice: RowsUsed) -> None:
        place = (notice.key, notice.item_index)
        rows = self._arena.get(place)
        if rows is not None and notice.row_end == rows.num_rows:
            _spoil(self._arena.pop(place))


def _spoil(rows: ItemRows) -> None:
    data = rows.data.tensor().numpy() if isinstance(rows.data, DevicePiece) else rows.data
    data[:] = 0xFF  # NaN in every float format
