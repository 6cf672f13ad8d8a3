"""What happens to a sequence: enter, admit, preempt, retire. One place for each arrow."""

from __future__ import annotations

from typing import TYPE_CHECKING

from redserve.domain.content_chain import ContentChain
from redserve.scheduling.embedding_tracker import EmbeddingTracker
from redserve.scheduling.events import (
    Event,
    Finished,
    ItemsNeeded,
    Preempted,
    Resumed,
    RowsReleased,
)
from redserve.scheduling.sequence import Move, Phase, Sequence

if TYPE_CHECKING:
    from redserve.domain.layout import MediaLayout
    from redserve.domain.request import SequenceRequest
    from redserve.scheduling.config import SchedulerConfig
    from redserve.scheduling.growth_reserve import GrowthReserve
    from redserve.scheduling.kv_memory import KvMemory
    from redserve.scheduling.roster import Roster


class Lifecycle:
    """Moves sequences along their state machine and keeps memory, rows and roster in step.

    Args:
        config: Limits and switches.
        kv: Gives and takes blocks.
        roster: Knows who is where.
        reserve: Learns from preemptions.

    Attributes:
        events: What the driver has to be told, oldest first.
    """

    def __init__(
        self, config: SchedulerConfig, kv: KvMemory, roster: Roster, reserve: GrowthReserve
    ) -> None:
        self._config = config
        self._kv = kv
        self._roster = roster
        self._reserve = reserve
        self._num_arrived = 0
        self.events: list[Event] = []
        self.prefix_hit_tokens = 0
        self.prefix_query_tokens = 0
        self.num_preemptions = 0
        self.num_recomputed_tokens = 0
        self.num_starved_batches = 0

    def enter(self, request: SequenceRequest, layout: MediaLayout) -> tuple[Sequence, list[int]]:
        """Queue a request.

        Returns:
            The sequence, and the items that it needs.
        """
        config = self._config
        token_ids = [*request.token_ids, *request.resume_token_ids]
        sequence = Sequence(
            request=request,
            arrival=self._num_arrived,
            layout=layout,
            tracker=EmbeddingTracker(
                layout, len(request.token_ids), whole_spans=config.atomic_items
            ),
            chain=ContentChain(token_ids, layout, config.block_size, config.prefix_seed),
            token_ids=token_ids,
        )
        self._num_arrived += 1
        self._roster.sequences[sequence.key] = sequence
        self._roster.waiting.add(sequence)
        needed = sequence.tracker.cover(self._kv.match(sequence))
        self._roster.refresh(sequence)
        return sequence, list(needed)

    def rematch(self, sequence: Sequence) -> None:
        """Look a sequence without blocks up in the prefix cache again; ask for what it lost."""
        needed = sequence.tracker.cover(self._kv.match(sequence))
        if needed:
            self.events.append(ItemsNeeded(sequence.key, needed))
        self._tell_released(sequence, sequence.tracker.shed())
        self._roster.refresh(sequence)

    def settle(self) -> None:
        """Deal with sequences that lost cached blocks they counted on."""
        for sequence in self._kv.take_disappointed():
            self.rematch(sequence)

    def admit(self, sequence: Sequence) -> None:
        """Give a sequence its cached prefix and let it run."""
        is_first = sequence.phase is Phase.WAITING
        sequence.move(Move.ADMIT if is_first else Move.RESUME)
        sequence.num_computed = self._kv.attach(sequence)
        self._roster.waiting.remove(sequence)
        self._roster.admissible.remove(sequence)
        self._roster.running.add(sequence)
        if is_first:
            num_prompt = sequence.request.num_prompt_tokens
            sequence.num_cached = min(sequence.num_computed, num_prompt)
            self.prefix_query_tokens += num_prompt
            self.prefix_hit_tokens += sequence.num_cached
        else:
            self._roster.num_preempted -= 1
            self.events.append(Resumed(sequence.key, sequence.num_computed))
        self.release_rows(sequence, 0, sequence.num_computed)
        self._roster.refresh(sequence)

    def release_rows(self, sequence: Sequence, start: int, end: int) -> None:
        """Positions [start, end) are computed: tell which rows that frees."""
        self._tell_released(sequence, sequence.tracker.use(start, end))

    def _tell_released(self, sequence: Sequence, freed: list[tuple[int, int]]) -> None:
        for item_index, row_end in freed:
            self.events.append(RowsReleased(sequence.key, item_index, row_end))

    def preempt(self, sequence: Sequence) -> None:
        """Take all blocks of an idle sequence; it will be computed again."""
        sequence.move(Move.PREEMPT)
        self._reserve.preempted()
        self.num_preemptions += 1
        self.num_recomputed_tokens += sequence.num_computed
        sequence.num_preemptions += 1
        sequence.num_computed = 0
        self._kv.free(sequence)
        self._roster.running.remove(sequence)
        self._roster.waiting.add(sequence)
        self._roster.num_preempted += 1
        self.events.append(Preempted(sequence.key))
        self.rematch(sequence)

    def retire(self, sequence: Sequence, *, aborted: bool) -> None:
        """End a sequence. What is in flight of it keeps its blocks until it is updated."""
        if sequence.phase is Phase.RUNNING:
            self._roster.running.remove(sequence)
        else:
            self._kv.unmatch(sequence)
            self._roster.waiting.remove(sequence)
            self._roster.num_preempted -= sequence.phase is Phase.PREEMPTED
        sequence.move(Move.FINISH)
        sequence.was_aborted = aborted
        self._roster.refresh(sequence)
        if sequence.num_in_flight == 0:
            self.bury(sequence)

    def bury(self, sequence: Sequence) -> None:
        """Forget a finished sequence of which nothing is in flight."""
        self._kv.free(sequence)
        del self._roster.sequences[sequence.key]
        self.events.append(
            Finished(
                key=sequence.key,
                num_output_tokens=sequence.num_outputs,
                num_cached_tokens=sequence.num_cached,
                num_preemptions=sequence.num_preemptions,
                aborted=sequence.was_aborted,
            )
        )
