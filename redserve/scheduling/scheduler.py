"""Which tokens of which sequences run next: schedule, run, update.

One call of `schedule` fills one micro-batch (RServe's token scheduling, with pipeline stages):

1. decodes, about (decoding sequences) / P of them, so that the P micro-batches stay equal;
2. prefill of running sequences, oldest first, as far as embeddings are here;
3. admission, oldest first. Who has no schedulable token is passed over and keeps its place.
"""

from __future__ import annotations

from collections import OrderedDict
from itertools import islice
from typing import TYPE_CHECKING

from redserve.domain.layout import MediaLayout
from redserve.errors import InternalError
from redserve.scheduling.batch_plan import BatchPlan
from redserve.scheduling.chunk_rule import ChunkRule, make_chunk
from redserve.scheduling.config import Admission, SchedulerConfig, SchedulerStats
from redserve.scheduling.events import Event, ItemsNeeded, RowsReleased
from redserve.scheduling.growth_reserve import GrowthReserve
from redserve.scheduling.intake import check_request
from redserve.scheduling.kv_memory import KvMemory
from redserve.scheduling.lifecycle import Lifecycle
from redserve.scheduling.micro_batch import MicroBatch, Outcome
from redserve.scheduling.report import eviction_order, is_read, make_stats
from redserve.scheduling.room import RoomMaker
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
        self._budget = budget
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
        self._rule = ChunkRule(config)
        self._room = RoomMaker(
            config.max_sequences, self._kv, self._roster, self._reserve, self._lives, self._rule
        )
        self._in_flight: OrderedDict[int, MicroBatch] = OrderedDict()
        self._num_batches = 0
        self._decode_quota = 0

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
        self._lives.settle()
        self._room.open_step()
        plan = self._open_plan()
        self._schedule_overdue(plan)
        self._schedule_decodes(plan)
        self._schedule_prefills(plan)
        self._schedule_admissions(plan)
        if plan.is_empty:
            # No chunk is worth a step by itself: all of them together are.
            self._schedule_prefills(plan, forced=True)
            self._schedule_admissions(plan, forced=True)
        self._lives.settle()
        return self._launch(plan)

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

    # -- the steps of schedule -------------------------------------------------------------

    def _open_plan(self) -> BatchPlan:
        roster = self._roster
        self._decode_quota = self._share_of_decodes()
        context = [s.num_tokens for s in islice(roster.rotation, self._decode_quota)]
        has_prefill = roster.num_schedulable > len(roster.rotation)
        first = next(
            (s for s in roster.running if s.num_counted and s not in roster.rotation), None
        )
        return BatchPlan(
            max(
                1,
                self._budget.budget(
                    len(context),
                    sum(context),
                    has_prefill,
                    0 if first is None else first.next_start,
                ),
            )
        )

    def _share_of_decodes(self) -> int:
        """Decodes of this slot: an equal share, the remainder going round slot by slot."""
        stages = self._config.max_in_flight
        share, rest = divmod(self._roster.num_decoding, stages)
        return max(1, share + (self._num_batches % stages < rest))

    def _schedule_overdue(self, plan: BatchPlan) -> None:
        """A span that did not fit beside the decodes for too long goes before them."""
        if not self._config.atomic_items:
            return
        for sequence in (*self._roster.running, *self._roster.admissible):
            if sequence.num_counted and self._rule.is_overdue(sequence):
                if sequence.phase is Phase.RUNNING:
                    self._extend(sequence, plan, forced=True)
                else:
                    self._admit(sequence, plan, forced=True)
                return

    def _schedule_decodes(self, plan: BatchPlan) -> None:
        for sequence in tuple(self._roster.rotation):
            if plan.left == 0 or plan.num_decodes == self._decode_quota:
                return
            if sequence not in self._roster.rotation or self._room.is_condemned(sequence):
                continue  # it has been preempted, or is about to be
            if sequence in plan.sequences:
                continue  # it was overdue, and one token of it is left
            if self._room.grow(sequence, sequence.num_tokens):
                self._take(sequence, sequence.num_tokens, plan)

    def _schedule_prefills(self, plan: BatchPlan, *, forced: bool = False) -> None:
        for sequence in self._roster.running.snapshot():
            if plan.left == 0:
                return
            if sequence.phase is not Phase.RUNNING or sequence.is_decoding:
                continue
            if sequence.num_counted and sequence not in plan.sequences:
                self._extend(sequence, plan, forced=forced)

    def _schedule_admissions(self, plan: BatchPlan, *, forced: bool = False) -> None:
        for sequence in self._roster.admissible.snapshot():
            if plan.left == 0:
                return
            if sequence in self._roster.admissible and not self._admit(
                sequence, plan, forced=forced
            ):
                return  # no memory: younger ones must not overtake it

    def _admit(self, sequence: Sequence, plan: BatchPlan, *, forced: bool) -> bool:
        """Let a waiting sequence run if its first chunk can.

        Returns:
            False if memory is what it lacks.
        """
        self._lives.rematch(sequence)
        if not sequence.num_counted:
            return True
        start = sequence.tracker.covered
        if self._chunk_end(sequence, start, plan, forced=forced) == start:
            return True
        if not self._room.make_place(sequence, self._rule.smallest_end(sequence, start)):
            return False
        self._lives.admit(sequence)
        self._extend(sequence, plan, forced=True)
        return True

    def _extend(self, sequence: Sequence, plan: BatchPlan, *, forced: bool) -> None:
        """Put the next chunk of a running sequence into the batch, if there is one."""
        start = sequence.next_start
        end = self._chunk_end(sequence, start, plan, forced=forced)
        if end > start:
            end = self._room.grow_as_far(sequence, start, end)
        if end > start:
            self._take(sequence, end, plan)

    def _chunk_end(self, sequence: Sequence, start: int, plan: BatchPlan, *, forced: bool) -> int:
        """The end of the chunk from `start` that the budget and our rules allow; may be `start`."""
        end = self._rule.end(sequence, start, plan.left)
        if end == start and forced and plan.is_empty:
            return self._rule.smallest_end(sequence, start)  # a span longer than the budget
        if end > start and (
            forced or self._rule.is_worth_a_step(sequence, end - start, plan.budget)
        ):
            return end
        plan.pass_over(sequence)
        return start

    def _take(self, sequence: Sequence, end: int, plan: BatchPlan) -> None:
        chunk = make_chunk(sequence, end)
        plan.add(sequence, chunk)
        sequence.num_in_flight += chunk.num_tokens
        sequence.num_held_back = 0
        self._roster.refresh(sequence)

    def _launch(self, plan: BatchPlan) -> MicroBatch | None:
        if plan.is_empty:
            return None
        for sequence in plan.passed_over:
            sequence.num_held_back += 1
        batch = MicroBatch(self._num_batches, tuple(plan.chunks))
        self._num_batches += 1
        self._in_flight[batch.batch_id] = batch
        return batch

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
