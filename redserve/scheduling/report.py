"""Answers to questions about a scheduler's state; nothing here changes it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from redserve.scheduling.config import SchedulerStats
from redserve.scheduling.sequence import Phase, Sequence

if TYPE_CHECKING:
    from collections.abc import Iterable

    from redserve.domain.request import SequenceKey
    from redserve.scheduling.kv_memory import KvMemory
    from redserve.scheduling.lifecycle import Lifecycle
    from redserve.scheduling.micro_batch import MicroBatch
    from redserve.scheduling.roster import Roster


def is_read(sequence: Sequence, item_index: int) -> bool:
    """Whether a batch in flight reads rows of the item."""
    if not 0 <= item_index < len(sequence.layout.items):
        return False
    before = sequence.layout.rows_before(item_index, sequence.num_computed)
    return sequence.layout.rows_before(item_index, sequence.next_start) > before


def eviction_order(roster: Roster) -> tuple[tuple[SequenceKey, int], ...]:
    """Items whose rows are held and not read in flight, the one needed last first."""
    held = [
        (sequence.arrival, item.start, sequence.key, item.index)
        for sequence in roster.sequences.values()
        if sequence.phase is not Phase.FINISHED
        for item in sequence.request.items
        if sequence.tracker.held(item.index) and not is_read(sequence, item.index)
    ]
    held.sort(reverse=True)
    return tuple((key, item_index) for _, _, key, item_index in held)


def make_stats(
    roster: Roster, kv: KvMemory, lives: Lifecycle, in_flight: Iterable[MicroBatch]
) -> SchedulerStats:
    """Figures of this moment; takes time in proportion to the number of sequences."""
    pool, batches = kv.pool, tuple(in_flight)
    oldest = roster.waiting.oldest()
    return SchedulerStats(
        num_waiting=len(roster.waiting) - roster.num_preempted,
        num_running=len(roster.running),
        num_preempted=roster.num_preempted,
        num_decoding=roster.num_decoding,
        num_in_flight=len(batches),
        schedulable_tokens=roster.num_schedulable,
        ready_tokens=roster.num_schedulable + sum(batch.num_tokens for batch in batches),
        waiting_tokens=sum(s.num_tokens - s.tracker.covered for s in roster.waiting),
        blocks_free=pool.num_available,
        blocks_cached=pool.num_cached,
        blocks_total=pool.num_blocks,
        rows_held=sum(s.tracker.num_held for s in roster.sequences.values()),
        prefix_hit_tokens_total=lives.prefix_hit_tokens,
        prefix_query_tokens_total=lives.prefix_query_tokens,
        preemptions_total=lives.num_preemptions,
        starved_batches_total=lives.num_starved_batches,
        recomputed_tokens_total=lives.num_recomputed_tokens,
        oldest_waiting_arrival=None if oldest is None else oldest.arrival,
    )
