"""Which tokens of which sequences run next: schedule, run, update.

The loop that fills a micro-batch is in `batch_filler`.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from redserve.domain.layout import MediaLayout
from redserve.errors import InternalError
from redserve.scheduling.batch_filler import BatchFiller
from redserve.scheduling.config import Admission, SchedulerConfig, SchedulerStats
from redserve.scheduling.events import Event, ItemsNeeded, RowsReleased
from redserve.scheduling.growth_reserve import GrowthReserve
from redserve.scheduling.intake import check_request
from redserve.scheduling.kv_memory import KvMemory
from redserve.scheduling.lifecycle import Lifecycle
from redserve.scheduling.micro_batch import MicroBatch, Outcome
from redserve.scheduling.report import eviction_order, is_read, make_stats
from redserve.scheduling.roster import Roster
from redserve.scheduling.sequence import Phase, Sequence

if TYPE_CHECKING:
    from collections.abc import Mapping

    from redserve.domain.request import SequenceKey, SequenceRequest
    from redserve.scheduling.token_budget import TokenBudget


class Scheduler:
    """The brain of one LLM replica. Pure: no clock, no I/O; the same calls give the same answers.

    Args:
        config: Limits and switches.
        budget: Decides how many tokens each micro-batch may hold.
    """

    def __init__(self, config: SchedulerConfig, budget: TokenBudget) -> None:
        self._config = config
        self._kv = KvMemory(
            config.num_blocks,
            config.block_size,
            prefix_cache=config.prefix_cache,
            whole_spans=config.atomic_items,
        )
        self._roster = Roster()
        self._reserve = GrowthReserve(
            config.reserve_ratio, prompts=config.reserve_prompts, block_size=config.block_size
        )
        self._lives = Lifecycle(config, self._kv, self._roster, self._reserve)
        self._filler = BatchFiller(
            config, budget, self._kv, self._roster, self._reserve, self._lives
        )
        self._in_flight: OrderedDict[int, MicroBatch] = OrderedDict()
        self._num_batches = 0

    # -- what comes in ---------------------------------------------------------------------

    def add(self, request: SequenceRequest) -> Admission:
        """Queue a request.

        Raises:
            InvalidArgument: The request contradicts itself, or its key is in use.
            ContextTooLong: Prompt and output could never fit.
        """
        check_request(request, self._config, known=request.key in self._roster.sequences)
        sequence, needed = self._lives.enter(request, MediaLayout(request.items))
        return Admission(sequence.tracker.covered, tuple(needed))

    def put_rows(self, key: SequenceKey, item_index: int, num_rows: int) -> bool:
        """Record that rows [0, num_rows) of an item are in the arena; more may follow.

        Returns:
            False if nobody needs them: the caller drops the rows and the rest of the delivery.

        Raises:
            InvalidArgument: The request has no such item, or the item fewer rows.
        """
        sequence = self._roster.live(key)
        if sequence is None:
            return False
        tracker = sequence.tracker
        num_before = tracker.arrived(item_index)
        if not tracker.put(item_index, num_rows):
            return False
        # Of an item that is delivered again after `drop_rows`, the first rows may be used.
        useless = min(tracker.released(item_index), num_rows)
        if useless > num_before:
            self._lives.events.append(RowsReleased(key, item_index, useless))
        self._roster.refresh(sequence)
        return True

    def drop_rows(self, key: SequenceKey, item_index: int) -> bool:
        """Give the rows of an item up (the arena is full); emits `ItemsNeeded`.

        Returns:
            False, and nothing has changed, if none is held or a batch in flight reads them.
        """
        sequence = self._roster.live(key)
        if sequence is None or is_read(sequence, item_index):
            return False
        if not sequence.tracker.drop(item_index):
            return False
        self._lives.events.append(ItemsNeeded(key, (item_index,)))
        self._roster.refresh(sequence)
        return True

    def finish(self, key: SequenceKey) -> None:
        """End a sequence whose output is complete. Unknown keys are fine: it may be gone."""
        self._end(key, aborted=False)

    def abort(self, key: SequenceKey) -> None:
        """End a sequence that nobody wants any more, at any time. Unknown keys are fine."""
        self._end(key, aborted=True)

    # -- the loop --------------------------------------------------------------------------

    def schedule(self) -> MicroBatch | None:
        """Choose the next micro-batch; None if nothing can run or P batches are in flight.

        Its tokens never exceed the budget, with one exception: under `atomic_items` a span longer
        than the budget runs alone in its batch.
        """
        if len(self._in_flight) >= self._config.max_in_flight:
            return None
        plan = self._filler.fill(self._num_batches)
        if plan.is_empty:
            return None
        batch = MicroBatch(self._num_batches, tuple(plan.chunks))
        self._num_batches += 1
        self._in_flight[batch.batch_id] = batch
        return batch

    def update(self, batch_id: int, outcomes: Mapping[SequenceKey, Outcome]) -> None:
        """Record that a micro-batch was computed; batches are updated in the order of their ids.

        Args:
            batch_id: The oldest batch in flight.
            outcomes: One for each chunk with `samples`; those of sequences that have ended since
                may be missing and are ignored.

        Raises:
            InternalError: The batch is not the oldest in flight, or the outcomes do not match;
                nothing has changed then.
        """
        batch = self._expect(batch_id, outcomes)
        del self._in_flight[batch_id]
        self._reserve.stepped()
        for chunk in batch.chunks:
            sequence = self._roster.sequences[chunk.key]
            sequence.num_in_flight -= chunk.num_tokens
            sequence.num_computed = chunk.end
            if sequence.phase is Phase.FINISHED:
                # Its step may have failed, so its blocks are not offered to the prefix cache.
                if sequence.num_in_flight == 0:
                    self._lives.bury(sequence)
                continue
            if chunk.rows:
                self._lives.release_rows(sequence, chunk.start, chunk.end)
            self._kv.commit(sequence)
            if chunk.samples:
                outcome = outcomes[chunk.key]
                sequence.token_ids.append(outcome.token_id)
                if outcome.finished or sequence.num_outputs_left <= 0:
                    self._lives.retire(sequence, aborted=False)
                    continue
            self._roster.refresh(sequence)

    def take_events(self) -> tuple[Event, ...]:
        """What happened since the last call, oldest first."""
        events = tuple(self._lives.events)
        self._lives.events.clear()
        return events

    # -- what others may ask ---------------------------------------------------------------

    def priority(self, key: SequenceKey, item_index: int) -> tuple[int, int] | None:
        """(arrival, first position) of an item: lower is needed earlier; None if it is not live."""
        sequence = self._roster.live(key)
        if sequence is None or not 0 <= item_index < len(sequence.request.items):
            return None
        return sequence.arrival, sequence.request.items[item_index].start

    def eviction_order(self) -> tuple[tuple[SequenceKey, int], ...]:
        """Items whose rows are held and not read in flight, the one needed last first."""
        return eviction_order(self._roster)

    def sequence(self, key: SequenceKey) -> Sequence | None:
        """The sequence itself, to be read only; None if it is unknown or has ended."""
        return self._roster.live(key)

    def stats(self) -> SchedulerStats:
        """Figures of this moment; takes time in proportion to the number of sequences."""
        return make_stats(self._roster, self._kv, self._lives, self._in_flight.values())

    @property
    def is_idle(self) -> bool:
        """Whether there is no sequence at all."""
        return not self._roster.sequences

    def check_integrity(self) -> None:
        """Prove that every block has one place and every sum is right. For tests: slow.

        Raises:
            InternalError: A block or a sum is wrong.
        """
        self._kv.check_integrity(self._roster.sequences.values())
        self._roster.check_integrity()

    # -- small helpers ---------------------------------------------------------------------

    def _end(self, key: SequenceKey, *, aborted: bool) -> None:
        sequence = self._roster.live(key)
        if sequence is not None:
            self._lives.retire(sequence, aborted=aborted)

    def _expect(self, batch_id: int, outcomes: Mapping[SequenceKey, Outcome]) -> MicroBatch:
        """The batch to be updated, after a check that the outcomes fit it."""
        oldest = next(iter(self._in_flight), None)
        if batch_id != oldest:
            raise InternalError(f"batch {batch_id} is updated, but the oldest is {oldest}")
        batch = self._in_flight[batch_id]
        sampling = {chunk.key for chunk in batch.chunks if chunk.samples}
        if foreign := outcomes.keys() - sampling:
            raise InternalError(f"outcomes for {sorted(foreign)}, which batch {batch_id} lacks")
        if absent := {key for key in sampling - outcomes.keys() if self._roster.live(key)}:
            raise InternalError(f"batch {batch_id} has no outcome for {sorted(absent)}")
        return batch
