"""A replica without a model: drives the scheduler and checks every promise it makes.

The KV cache is a dict from (block, slot) to a digest of everything up to that position. A chunk
is "computed" by reading its prefix through the block table, so that wrong sharing, stale blocks
and use after free give a wrong digest, and in the end a wrong token.
"""

from __future__ import annotations

from collections import deque
from random import Random
from typing import TYPE_CHECKING

from redserve.scheduling import (
    Finished,
    FixedBudget,
    ItemsNeeded,
    MicroBatch,
    Outcome,
    Phase,
    Preempted,
    Resumed,
    RowsReleased,
    ScheduledChunk,
    Scheduler,
)
from tests.scheduling.scenario import (
    START,
    Scenario,
    alone,
    contents,
    is_last,
    next_state,
    row_content,
    sample,
)

if TYPE_CHECKING:
    from redserve.domain import SequenceKey, SequenceRequest

MOST_STEPS = 20_000


class Delivery:
    """Rows [low, high) of an item are in the arena; the encoder has sent `high` so far."""

    def __init__(self, num_rows: int) -> None:
        self.num_rows = num_rows
        self.low = 0
        self.high = 0

    @property
    def num_held(self) -> int:
        return max(0, self.high - self.low)


class Watched:
    """What the replica knows of one request."""

    def __init__(self, request: SequenceRequest, arrival: int) -> None:
        self.request = request
        self.arrival = arrival
        self.contents = contents(request)
        self.outputs = list(request.resume_token_ids)
        self.contents += [b"token %d" % token for token in self.outputs]
        self.expected = alone(request)
        self.deliveries: dict[int, Delivery] = {}
        self.computed: int | None = None  # of this life; None before its first chunk
        self.scheduled = 0
        self.decodes_in_flight = 0
        self.is_preempted = False
        self.is_aborted = False


class Replica:
    def __init__(self, scenario: Scenario, requests: list[SequenceRequest]) -> None:
        self.scenario = scenario
        self.random = Random(scenario.seed + 1)
        self.config = scenario.config(requests)
        self.scheduler = Scheduler(self.config, FixedBudget(scenario.budget))
        self.waiting = deque(requests)
        self.live: dict[SequenceKey, Watched] = {}
        self.finished: dict[SequenceKey, Watched] = {}
        self.in_flight: deque[MicroBatch] = deque()
        self.kv: dict[tuple[int, int], bytes] = {}
        self.num_arrived = 0
        self.num_preempted = 0
        self.num_setbacks = 0
        self.num_setbacks_before = 0
        self.num_passed_over = 0
        self.num_recomputed = 0
        self.num_steps = 0
        largest = max((i.num_rows for r in requests for i in r.items), default=0)
        self.arena_rows = largest + scenario.arena if scenario.deliver == "arena" else None

    # -- the run -----------------------------------------------------------------------------

    def run(self) -> None:
        while self.live or self.waiting:
            self.step()
        self.check_end()

    def step(self) -> None:
        self.num_steps += 1
        assert self.num_steps < MOST_STEPS, "no end in sight"
        scenario, random = self.scenario, self.random
        if self.waiting and (random.random() < 0.5 or not self.live):
            self.add(self.waiting.popleft())
        if random.randrange(100) < scenario.abort and self.live:
            self.abort(random.choice(sorted(self.live)))
        if random.randrange(100) < scenario.drop:
            self.drop_some()
        moved = random.randrange(100) >= scenario.late and self.deliver_some()
        batch = self.schedule()
        if batch is None or random.random() < 0.5 or len(self.in_flight) == scenario.stages:
            moved = self.update() or moved
        if batch is None and not moved and not self.in_flight and not self.waiting and self.live:
            # Nothing left to chance: if rows can still come, let them, else it is stuck.
            assert self.deliver_some(), f"stuck: {self.scheduler.stats()}"

    def add(self, request: SequenceRequest) -> None:
        admission = self.scheduler.add(request)
        watched = Watched(request, self.num_arrived)
        self.num_arrived += 1
        self.live[request.key] = watched
        for item in request.items:
            if item.index in admission.needed_items:
                watched.deliveries[item.index] = Delivery(item.num_rows)
            else:
                assert item.end <= admission.num_cached_tokens
                assert not self.scheduler.put_rows(request.key, item.index, 1)
        self.after()

    def abort(self, key: SequenceKey) -> None:
        self.live[key].is_aborted = True
        self.scheduler.abort(key)
        self.after()

    # -- embeddings --------------------------------------------------------------------------

    def deliver_some(self) -> bool:
        open_ = sorted(
            (watched.arrival, watched.request.items[index].start, key, index)
            for key, watched in self.live.items()
            for index, delivery in watched.deliveries.items()
            if delivery.high < delivery.num_rows and not watched.is_aborted
        )
        if not open_:
            return False
        how = self.scenario.deliver
        if how == "oldest":
            oldest = min(w.arrival for w in self.live.values())
            if open_[0][0] != oldest:
                return False
        if how == "random":
            chosen = self.random.choice(open_)
        else:
            chosen = max(open_) if how == "youngest" else min(open_)
        return self.deliver(*chosen[2:])

    def deliver(self, key: SequenceKey, index: int) -> bool:
        delivery = self.live[key].deliveries[index]
        high = self.random.randint(delivery.high + 1, delivery.num_rows)
        if self.arena_rows is not None:
            room = self.make_room(key, index, high - max(delivery.high, delivery.low))
            high = min(high, max(delivery.high, delivery.low) + room)
            if high <= delivery.high:
                return False
        delivery.high = high
        if not self.scheduler.put_rows(key, index, high):
            del self.live[key].deliveries[index]
        elif self.random.random() < 0.2:  # told twice, or an older chunk comes late
            self.scheduler.put_rows(key, index, self.random.randint(1, high))
        self.after()
        return True

    def make_room(self, key: SequenceKey, index: int, num_rows: int) -> int:
        """Evict what is needed later than this item until `num_rows` rows are free, or almost."""
        assert self.arena_rows is not None
        mine = self.scheduler.priority(key, index)
        assert mine is not None
        for other, item in self.scheduler.eviction_order():
            free = self.arena_rows - self.num_held()
            theirs = self.scheduler.priority(other, item)
            assert theirs is not None
            if free >= num_rows or theirs <= mine:
                break
            assert self.scheduler.drop_rows(other, item)
            self.after()
        return max(0, self.arena_rows - self.num_held())

    def drop_some(self) -> None:
        held = [
            (key, index)
            for key, watched in sorted(self.live.items())
            for index, delivery in watched.deliveries.items()
            if delivery.num_held
        ]
        if held:
            key, index = self.random.choice(held)
            chunks = [c for batch in self.in_flight for c in batch.chunks if c.key == key]
            is_read = any(rows.item_index == index for c in chunks for rows in c.rows)
            done = self.scheduler.drop_rows(key, index)
            assert done == (not is_read and not self.live[key].is_aborted)
            self.after()

    def num_held(self) -> int:
        return sum(d.num_held for w in self.live.values() for d in w.deliveries.values())

    # -- steps -------------------------------------------------------------------------------

    def schedule(self) -> MicroBatch | None:
        before = {key: self.held_back(key) for key in self.live}
        self.num_setbacks_before = self.num_setbacks
        ran_before = {key for key in self.live if self.is_running(key)}
        batch = self.scheduler.schedule()
        ran_now = set() if batch is None else {chunk.key for chunk in batch.chunks}
        # Who is admitted runs at once: it has taken the place of others for that.
        assert {key for key in self.live if self.is_running(key)} - ran_before <= ran_now
        self.after()
        if batch is not None:
            assert len(self.in_flight) < self.scenario.stages
            self.check_batch(batch, before)
            self.check_patience(batch)
            self.in_flight.append(batch)
        return batch

    def check_patience(self, batch: MicroBatch) -> None:
        """The oldest request is not passed over for long when it could run and has its place.

        While it waits for a place it may have to wait until a younger one that decodes has ended.
        """
        oldest = min(self.live.values(), key=lambda watched: watched.arrival)
        sequence = self.scheduler.sequence(oldest.request.key)
        is_full_of_decodes = self.scenario.budget == sum(c.is_decode for c in batch.chunks)
        if (
            sequence is None
            or sequence.phase is not Phase.RUNNING
            or sequence.num_in_flight
            or sequence.num_schedulable == 0
        ):
            self.num_passed_over = 0
        elif not is_full_of_decodes:
            self.num_passed_over += 1
        limit = self.scenario.max_held_back + 2 * self.scenario.stages
        assert self.num_passed_over <= limit

    def is_running(self, key: SequenceKey) -> bool:
        sequence = self.scheduler.sequence(key)
        return sequence is not None and sequence.phase is Phase.RUNNING

    def held_back(self, key: SequenceKey) -> int:
        sequence = self.scheduler.sequence(key)
        return 0 if sequence is None else sequence.num_held_back

    def check_batch(self, batch: MicroBatch, held_back: dict[SequenceKey, int]) -> None:
        assert batch.chunks
        assert len({chunk.key for chunk in batch.chunks}) == len(batch.chunks)
        if batch.num_tokens > self.scenario.budget:
            assert self.scenario.atomic
            (chunk,) = batch.chunks
            spans = [s for i in self.live[chunk.key].request.items for s in i.spans]
            assert (chunk.start, chunk.end) in [(s.start, s.end) for s in spans]
        for chunk in batch.chunks:
            self.check_chunk(chunk)
        self.check_min_chunk(batch, held_back)

    def check_chunk(self, chunk: ScheduledChunk) -> None:
        watched = self.live[chunk.key]
        assert not watched.is_aborted
        assert not watched.is_preempted
        if watched.computed is None:
            watched.computed = watched.scheduled = chunk.start  # a prefix hit, or 0
            assert chunk.start % self.scenario.block_size == 0
        assert watched.scheduled == chunk.start < chunk.end <= len(watched.contents)
        watched.scheduled = chunk.end
        size = self.scenario.block_size
        assert len(chunk.block_table) == -(-chunk.end // size)
        assert len(set(chunk.block_table)) == len(chunk.block_table)
        assert chunk.samples == (chunk.end == len(watched.contents))
        if chunk.is_decode:
            assert chunk.samples
            assert chunk.num_tokens == 1
            assert watched.outputs
            assert watched.decodes_in_flight == 0
            watched.decodes_in_flight += 1
        # Nobody else's step in flight may read or write what this one writes.
        written = set(chunk.block_table[chunk.start // size :])
        for batch in self.in_flight:
            for other in batch.chunks:
                assert other.key == chunk.key or written.isdisjoint(other.block_table)
        spans = [span for item in watched.request.items for span in item.spans]
        if self.scenario.atomic:
            for border in (chunk.start, chunk.end):
                assert not any(span.start < border < span.end for span in spans)
        covered = {
            rows.offset + chunk.start + n
            for rows in chunk.rows
            for n in range(rows.row_end - rows.row_start)
        }
        placed = {p for span in spans for p in range(span.start, span.end)}
        assert covered == placed & set(range(chunk.start, chunk.end))
        self.inputs(chunk)  # all rows are here already

    def check_min_chunk(self, batch: MicroBatch, held_back: dict[SequenceKey, int]) -> None:
        """A small chunk of a request that is still being encoded has a good reason."""
        least = min(self.scenario.min_chunk, self.scenario.budget)
        small = [
            chunk
            for chunk in batch.chunks
            if not chunk.is_decode and chunk.num_tokens < least and self.is_encoding(chunk.key)
        ]
        unexcused = [
            chunk
            for chunk in small
            if held_back[chunk.key] < self.scenario.max_held_back
            and not self.is_cut_by_memory(chunk)
        ]
        # Or else the step would have been empty. Others may have joined since somebody older gave
        # way meanwhile, preempted or robbed of cached blocks that it counted on; but no decode.
        if unexcused:
            assert not any(chunk.is_decode for chunk in batch.chunks)
            assert len(small) == len(batch.chunks) or self.num_setbacks > self.num_setbacks_before

    def is_cut_by_memory(self, chunk: ScheduledChunk) -> bool:
        """Whether its blocks could not hold one token (or one atomic span) more."""
        end = chunk.end + 1
        for item in self.live[chunk.key].request.items:
            for span in item.spans:
                if self.scenario.atomic and span.start == chunk.end:
                    end = span.end
        return end > len(chunk.block_table) * self.scenario.block_size

    def is_encoding(self, key: SequenceKey) -> bool:
        sequence = self.scheduler.sequence(key)
        return sequence is not None and sequence.is_encoding

    def inputs(self, chunk: ScheduledChunk) -> list[bytes]:
        """What the positions of a chunk hold, from its tokens and the arena."""
        watched = self.live[chunk.key]
        what = [b"token %d" % token for token in chunk.token_ids]
        assert len(what) == chunk.num_tokens
        for rows in chunk.rows:
            delivery = watched.deliveries[rows.item_index]
            assert delivery.low <= rows.row_start < rows.row_end <= delivery.high
            item = watched.request.items[rows.item_index]
            for row in range(rows.row_start, rows.row_end):
                what[rows.offset + row - rows.row_start] = row_content(item, row)
        return what

    def compute(self, chunk: ScheduledChunk) -> bytes:
        """Run a chunk; the digest of its last position comes back."""
        watched = self.live[chunk.key]
        size = self.scenario.block_size
        slots = [(chunk.block_table[n // size], n % size) for n in range(chunk.end)]
        state = START
        for position in range(chunk.start):
            state = next_state(state, watched.contents[position])
            assert self.kv[slots[position]] == state, f"position {position} was overwritten"
        for content, slot in zip(self.inputs(chunk), slots[chunk.start :], strict=True):
            state = next_state(state, content)
            self.kv[slot] = state
        return state

    def update(self) -> bool:
        if not self.in_flight:
            return False
        batch = self.in_flight.popleft()
        outcomes = {}
        for chunk in batch.chunks:
            watched = self.live[chunk.key]
            state = self.compute(chunk)
            watched.computed = chunk.end
            watched.decodes_in_flight -= chunk.is_decode
            if chunk.samples and (not watched.is_aborted or self.random.random() < 0.5):
                outcomes[chunk.key] = Outcome(sample(state), is_last(state))
                if not watched.is_aborted:
                    watched.outputs.append(sample(state))
                    watched.contents.append(b"token %d" % watched.outputs[-1])
        self.scheduler.update(batch.batch_id, outcomes)
        self.after()
        return True

    # -- after every call --------------------------------------------------------------------

    def after(self) -> None:
        for event in self.scheduler.take_events():
            watched = self.live[event.key]
            self.num_setbacks += isinstance(event, Preempted | ItemsNeeded)
            match event:
                case RowsReleased(item_index=index, row_end=row_end):
                    delivery = watched.deliveries[index]
                    assert delivery.low < row_end <= delivery.num_rows
                    assert delivery.num_held
                    delivery.low = row_end
                case ItemsNeeded(item_indices=indices):
                    assert indices
                    for index in indices:
                        num_rows = watched.request.items[index].num_rows
                        watched.deliveries[index] = Delivery(num_rows)
                case Preempted():
                    assert not watched.is_preempted
                    assert watched.computed == watched.scheduled
                    watched.is_preempted = True
                    self.num_preempted += 1
                    self.num_recomputed += watched.computed or 0
                    watched.computed = None
                    watched.scheduled = 0
                case Resumed():
                    assert watched.is_preempted
                    watched.is_preempted = False
                case Finished(num_output_tokens=num_outputs, aborted=aborted):
                    self.check_finished(watched, num_outputs, aborted)
        self.scheduler.check_integrity()
        stats = self.scheduler.stats()
        assert stats.rows_held == self.num_held()
        assert stats.preemptions_total == self.num_preempted
        assert stats.recomputed_tokens_total == self.num_recomputed
        assert stats.num_running <= self.config.max_sequences

    def check_finished(self, watched: Watched, num_outputs: int, aborted: bool) -> None:
        key = watched.request.key
        assert all(chunk.key != key for batch in self.in_flight for chunk in batch.chunks)
        assert aborted == watched.is_aborted
        assert num_outputs == len(watched.outputs)
        if aborted:
            assert tuple(watched.outputs) == watched.expected[:num_outputs]
        else:
            assert tuple(watched.outputs) == watched.expected
        self.finished[key] = self.live.pop(key)

    def check_end(self) -> None:
        while self.update():
            pass
        stats = self.scheduler.stats()
        assert self.scheduler.is_idle
        assert self.scheduler.schedule() is None
        assert stats.blocks_free == stats.blocks_total
        assert (stats.num_waiting, stats.num_running, stats.num_preempted) == (0, 0, 0)
        assert (stats.schedulable_tokens, stats.rows_held, stats.num_in_flight) == (0, 0, 0)
        if not self.config.prefix_cache:
            assert stats.blocks_cached == 0
