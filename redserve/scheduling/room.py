"""Finds the blocks that a sequence needs: free ones, then those of younger sequences.

**The deadlock that overlap brings**: several sequences parked in the middle of their prompts on
missing embeddings hold the blocks that the oldest needs. Hence an older sequence may evict the
youngest idle one, also when the older one is a prefill, and also at admission.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from redserve.scheduling.preemption import anyone, choose_victims, is_idle, is_parked
from redserve.scheduling.sequence import Phase, Sequence

if TYPE_CHECKING:
    from redserve.scheduling.chunk_rule import ChunkRule
    from redserve.scheduling.growth_reserve import GrowthReserve
    from redserve.scheduling.kv_memory import KvMemory
    from redserve.scheduling.lifecycle import Lifecycle
    from redserve.scheduling.roster import Roster


class RoomMaker:
    """Grows block tables, preempting younger sequences where that helps.

    Args:
        max_sequences: Most sequences that hold blocks at a time.
        kv: Gives the blocks.
        roster: Knows who is running.
        reserve: Tells what admission must leave alone.
        lives: Preempts.
        rule: Knows the shortest chunk.

    Attributes:
        was_short: Whether in this step somebody lacked blocks: had to wait for some, or took those
            of another.
    """

    def __init__(
        self,
        max_sequences: int,
        kv: KvMemory,
        roster: Roster,
        reserve: GrowthReserve,
        lives: Lifecycle,
        rule: ChunkRule,
    ) -> None:
        self._max_sequences = max_sequences
        self._kv = kv
        self._roster = roster
        self._reserve = reserve
        self._lives = lives
        self._rule = rule
        self.was_short = False
        self._claim: tuple[Sequence, int] | None = None
        self._condemned: frozenset[Sequence] = frozenset()

    def open_step(self) -> None:
        """Before a step: single out whom the unmet claim of the step before will preempt.

        A decode that is in every batch is never idle when an older prefill asks; it has to sit
        out once to become so.
        """
        self.was_short = False
        claim, self._claim = self._claim, None
        self._condemned = frozenset()
        if claim is not None and claim[0].phase is Phase.RUNNING and claim[0].num_counted:
            sequence, end = claim
            victims = choose_victims(
                self._roster.running,
                sequence,
                self._kv.pool,
                anyone,
                lambda freed, _: self._lacks(sequence, end) <= freed,
            )
            self._condemned = frozenset(victims or ())

    def is_condemned(self, sequence: Sequence) -> bool:
        """Whether the sequence must sit this step out, to be preempted."""
        return sequence in self._condemned

    def grow(self, sequence: Sequence, end: int) -> bool:
        """Give a running sequence blocks for positions [0, end).

        Returns:
            False, and nothing has changed but a claim for the next step, if there is no room.
        """
        if not self._kv.grow(sequence, end):
            self.was_short = True
            victims = choose_victims(
                self._roster.running,
                sequence,
                self._kv.pool,
                is_idle,
                lambda freed, _: self._lacks(sequence, end) <= freed,
            )
            if victims is None:
                if self._claim is None or sequence.arrival < self._claim[0].arrival:
                    self._claim = (sequence, end)
                return False
            for victim in victims:
                self._lives.preempt(victim)
            return self._kv.grow(sequence, end)
        return True

    def grow_as_far(self, sequence: Sequence, start: int, end: int) -> int:
        """Give a running sequence blocks for a chunk from `start`, to `end` if there is room.

        Takes what is available; preempts only when that is not enough for the shortest chunk.

        Returns:
            The end of the chunk that fits; `start` if none does.
        """
        shortest = self._rule.smallest_end(sequence, start)
        fits = self._fitting_end(sequence, start, end)
        if fits == start:
            if not self.grow(sequence, shortest):
                return start
            fits = self._fitting_end(sequence, start, end)
        self._kv.grow(sequence, fits)
        return fits

    def make_place(self, sequence: Sequence, smallest_end: int) -> bool:
        """Make sure that a waiting sequence can be admitted, preempting younger parked ones.

        The blocks that running sequences will grow into stay reserved; only when nobody runs the
        first chunk is all that must fit.

        Returns:
            False, and nothing has changed, if it has to wait.
        """
        running, pool = self._roster.running, self._kv.pool
        expected_end = max(smallest_end, self._reserve.end_of(sequence))

        def enough(num_freed: int, victims: list[Sequence]) -> bool:
            num_left = len(running) - len(victims)
            if num_left >= self._max_sequences:
                return False
            end = expected_end if num_left else smallest_end
            needed = self._kv.blocks_missing_for_hint(sequence, end)
            needed += self._reserve.num_blocks(s for s in running if s not in victims)
            return needed <= pool.num_available + num_freed

        victims = choose_victims(running, sequence, pool, is_parked, enough)
        if victims is None or victims:
            # With all places taken it is a place that is lacked, whatever else.
            self.was_short |= len(running) < self._max_sequences
        if victims is None:
            return False
        for victim in victims:
            self._lives.preempt(victim)
        return True

    def _lacks(self, sequence: Sequence, end: int) -> int:
        return self._kv.blocks_missing(sequence, end) - self._kv.pool.num_available

    def _fitting_end(self, sequence: Sequence, start: int, end: int) -> int:
        room = self._kv.end_that_fits(sequence, end) - start
        return self._rule.end(sequence, start, min(room, end - start))
