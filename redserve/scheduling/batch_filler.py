"""Fills one micro-batch (RServe's token scheduling, with pipeline stages).

1. decodes, about (decoding sequences) / P of them, so that the P micro-batches stay equal;
2. prefill of running sequences, oldest first, as far as embeddings are here;
3. admission, oldest first. Who has no schedulable token is passed over and keeps its place, and
   its share goes to the next: that keeps the pipeline full while encoders are late.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from redserve.scheduling.batch_plan import BatchPlan
from redserve.scheduling.chunk_rule import ChunkRule, make_chunk
from redserve.scheduling.room import RoomMaker
from redserve.scheduling.sequence import Phase

if TYPE_CHECKING:
    from redserve.scheduling.config import SchedulerConfig
    from redserve.scheduling.growth_reserve import GrowthReserve
    from redserve.scheduling.kv_memory import KvMemory
    from redserve.scheduling.lifecycle import Lifecycle
    from redserve.scheduling.roster import Roster
    from redserve.scheduling.sequence import Sequence
    from redserve.scheduling.token_budget import TokenBudget


class BatchFiller:
    """Chooses the chunks of a micro-batch.

    Args:
        config: Limits and switches.
        budget: Decides how many tokens a micro-batch may hold.
        kv: Gives blocks.
        roster: Knows who is where.
        reserve: Tells what admission must leave alone.
        lives: Admits and preempts.
    """

    def __init__(
        self,
        config: SchedulerConfig,
        budget: TokenBudget,
        kv: KvMemory,
        roster: Roster,
        reserve: GrowthReserve,
        lives: Lifecycle,
    ) -> None:
        self._config = config
        self._budget = budget
        self._kv = kv
        self._roster = roster
        self._lives = lives
        self._rule = ChunkRule(config)
        self._room = RoomMaker(config.max_sequences, kv, roster, reserve, lives, self._rule)

    def fill(self, slot: int) -> BatchPlan:
        """Choose chunks and mark their tokens as in flight.

        Args:
            slot: Counts the micro-batches; modulo P it is the pipeline slot.

        Returns:
            Possibly an empty plan: nothing can run.
        """
        self._lives.settle()
        self._room.open_step()
        plan = self._open_plan(slot)
        num_preemptions = self._lives.num_preemptions
        self._schedule_overdue(plan)
        self._schedule_decodes(plan)
        self._schedule_prefills(plan)
        if self._lives.num_preemptions == num_preemptions:
            # Who has just made room must not come back at once and take it.
            self._schedule_admissions(plan)
        if plan.is_empty:
            # No chunk is worth a step by itself: all of them together are.
            self._schedule_prefills(plan, forced=True)
            self._schedule_admissions(plan, forced=True)
        self._lives.settle()
        if not plan.is_empty:
            self._lives.num_starved_batches += self._room.was_short
            for sequence in plan.passed_over:
                sequence.num_held_back += 1
        return plan

    def _open_plan(self, slot: int) -> BatchPlan:
        roster = self._roster
        decode_quota = self._share_of_decodes(slot)
        context = [s.num_tokens for s in islice(roster.rotation, decode_quota)]
        has_prefill = roster.num_schedulable > len(roster.rotation)
        prefill_context = 0
        if has_prefill:
            prefills = (s for s in roster.running if s.num_counted and s not in roster.rotation)
            prefill_context = next((s.next_start for s in prefills), 0)
        budget = self._budget.budget(len(context), sum(context), has_prefill, prefill_context)
        return BatchPlan(max(1, budget), decode_quota)

    def _share_of_decodes(self, slot: int) -> int:
        """Decodes of this slot: an equal share, the remainder going round slot by slot."""
        stages = self._config.max_in_flight
        share, rest = divmod(self._roster.num_decoding, stages)
        return max(1, share + (slot % stages < rest))

    def _schedule_overdue(self, plan: BatchPlan) -> None:
        """A span that did not fit beside the decodes for too long goes before them."""
        if not self._config.atomic_items:
            return
        for sequence in (*self._roster.running, *self._roster.admissible):
            if self._room.is_condemned(sequence):
                continue
            if sequence.num_counted and self._rule.is_overdue(sequence):
                if sequence.phase is Phase.RUNNING:
                    self._extend(sequence, plan, forced=True)
                else:
                    self._admit(sequence, plan, forced=True)
                return

    def _schedule_decodes(self, plan: BatchPlan) -> None:
        for sequence in tuple(self._roster.rotation):
            if plan.left == 0 or plan.num_decodes == plan.decode_quota:
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
            if not sequence.num_counted or sequence in plan.sequences:
                continue
            if sequence.phase is not Phase.RUNNING or sequence in self._roster.rotation:
                continue
            if not self._room.is_condemned(sequence):  # or it would never be idle
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
            False if it lacks blocks, or too many sequences have some.
        """
        if self._kv.is_outdated(sequence):
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
