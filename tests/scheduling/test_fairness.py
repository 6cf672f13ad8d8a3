"""First come is never overtaken for ever: a stream of younger requests that does not end."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redserve.domain import Item, SamplingParams, SequenceKey, SequenceRequest, Span
from redserve.scheduling import FixedBudget, Outcome, Scheduler, SchedulerConfig
from tests.scheduling.replica import Replica
from tests.scheduling.scenario import Scenario
from tests.strategies import effort

MOST_STEPS = 3_000

streams = st.builds(
    Scenario,
    seed=st.integers(0, 2**32),
    num_requests=st.just(20),
    slack=st.integers(0, 3) | st.just(50),
    block_size=st.sampled_from([1, 4]),
    budget=st.sampled_from([1, 2, 7, 16, 64]),
    stages=st.integers(1, 4),
    min_chunk=st.sampled_from([1, 4, 16]),
    max_held_back=st.sampled_from([0, 4]),
    atomic=st.booleans(),
    prefix_cache=st.booleans(),
    reserve_ratio=st.sampled_from([0.0, 0.3, 1.0]),
    reserve_prompts=st.booleans(),
    max_sequences=st.sampled_from([1, 2, 8]),
    deliver=st.sampled_from(["random", "arena", "youngest"]),
    late=st.sampled_from([0, 50]),
)


@pytest.mark.timeout(900)
@effort(300)
@given(scenario=streams, num_live=st.integers(1, 6))
def test_the_first_request_ends_though_the_stream_does_not(
    scenario: Scenario, num_live: int
) -> None:
    templates = scenario.requests()
    first, *rest = templates
    replica = Replica(scenario, templates)
    replica.waiting.clear()
    replica.add(first)
    random = Random(scenario.seed + 2)
    num_added = 0
    while first.key in replica.live:
        while len(replica.live) <= num_live:
            num_added += 1
            key = SequenceKey(f"younger {num_added}")
            replica.add(replace(random.choice(rest), key=key))
        if scenario.deliver == "youngest" and replica.num_steps % 4 == 0:
            # An encoder pool that favours the newest still comes to the oldest now and then.
            for item in first.items:
                delivery = replica.live[first.key].deliveries.get(item.index)
                if delivery is not None and delivery.high < delivery.num_rows:
                    replica.deliver(first.key, item.index)
        replica.step()
        assert replica.num_steps < MOST_STEPS, "overtaken for ever"


def test_small_chunks_are_held_back_for_a_while_only() -> None:
    """Decodes of a younger request run always, rows come one by one, and B has room."""
    first = SequenceRequest(
        SequenceKey("first"),
        (1, *[9] * 40, 2),
        (Item(0, b"picture", 40, (Span(1, 40),)),),
        SamplingParams(max_tokens=1),
    )
    younger = SequenceRequest(SequenceKey("younger"), (1, 2), (), SamplingParams(max_tokens=200))
    config = SchedulerConfig(num_blocks=100, block_size=4, min_chunk=16, max_held_back=3)
    scheduler = Scheduler(config, FixedBudget(32))
    scheduler.add(younger)
    scheduler.add(first)
    sizes = []
    for step in range(50):
        if 1 <= step <= 40:
            scheduler.put_rows(first.key, 0, step)
        batch = scheduler.schedule()
        assert batch is not None
        sizes.append(sum(c.num_tokens for c in batch.chunks if c.key == first.key))
        outcomes = {chunk.key: Outcome(1) for chunk in batch.chunks if chunk.samples}
        scheduler.update(batch.batch_id, outcomes)
    # 16 tokens are asked for; after three steps without, it takes what is there. When the last
    # row is there nothing is held back any more.
    assert sizes[:9] == [0, 0, 0, 4, 0, 0, 0, 4, 0]
    assert sizes[39:] == [4, 2, *[0] * 9]
    assert sum(sizes) == 42


def test_a_span_that_never_fits_beside_the_decodes_goes_before_them() -> None:
    first = SequenceRequest(
        SequenceKey("first"),
        (*[9] * 12, 2),
        (Item(0, b"picture", 12, (Span(0, 12),)),),
        SamplingParams(max_tokens=1),
    )
    config = SchedulerConfig(num_blocks=100, block_size=4, atomic_items=True, max_held_back=5)
    scheduler = Scheduler(config, FixedBudget(16))
    scheduler.add(first)
    for n in range(8):
        request = SequenceRequest(
            SequenceKey(f"younger {n}"), (1, 2), (), SamplingParams(max_tokens=100)
        )
        scheduler.add(request)
    sizes = []
    for step in range(12):
        if step == 1:
            scheduler.put_rows(first.key, 0, 12)
        batch = scheduler.schedule()
        assert batch is not None
        assert batch.num_tokens <= 16
        sizes.append([chunk.num_tokens for chunk in batch.chunks if chunk.key == first.key])
        outcomes = {chunk.key: Outcome(1) for chunk in batch.chunks if chunk.samples}
        scheduler.update(batch.batch_id, outcomes)
    assert sizes == [[], [], [], [], [], [], [13], [], [], [], [], []]


def test_a_span_longer_than_the_budget_runs_alone() -> None:
    first = SequenceRequest(
        SequenceKey("first"),
        (1, *[9] * 30, 2),
        (Item(0, b"picture", 30, (Span(1, 30),)),),
        SamplingParams(max_tokens=1),
    )
    younger = SequenceRequest(SequenceKey("younger"), (1, 2), (), SamplingParams(max_tokens=20))
    config = SchedulerConfig(num_blocks=100, block_size=4, atomic_items=True, max_held_back=2)
    scheduler = Scheduler(config, FixedBudget(16))
    scheduler.add(first)
    scheduler.add(younger)
    scheduler.put_rows(first.key, 0, 30)
    batches = []
    for _ in range(6):
        batch = scheduler.schedule()
        assert batch is not None
        batches.append([(c.key.request_id, c.start, c.end) for c in batch.chunks])
        outcomes = {chunk.key: Outcome(1) for chunk in batch.chunks if chunk.samples}
        scheduler.update(batch.batch_id, outcomes)
    assert batches == [
        [("first", 0, 1), ("younger", 0, 2)],
        [("younger", 2, 3)],
        [("younger", 3, 4)],
        [("first", 1, 31)],
        [("younger", 4, 5), ("first", 31, 32)],
        [("younger", 5, 6)],
    ]
