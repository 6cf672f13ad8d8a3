"""The deadlock that overlap brings: parked prompts hold the blocks that the oldest needs.

The pool holds the longest request plus 0 to 3 blocks, and rows come to the oldest request only:
what the younger ones hold is not given back by waiting. With a roomy pool this never happens.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from redserve.domain import Item, SamplingParams, SequenceKey, SequenceRequest, Span
from redserve.scheduling import FixedBudget, Scheduler, SchedulerConfig
from tests.scheduling.drive import drain, make_scheduler, picture, step
from tests.scheduling.replica import Replica
from tests.scheduling.scenario import Scenario
from tests.strategies import effort

tight = st.builds(
    Scenario,
    seed=st.integers(0, 2**32),
    num_requests=st.integers(2, 6),
    slack=st.integers(0, 3),
    block_size=st.sampled_from([1, 4]),
    budget=st.sampled_from([7, 16, 64]),
    stages=st.integers(1, 4),
    prefix_cache=st.booleans(),
    deliver=st.just("oldest"),
)


@pytest.mark.timeout(900)
@effort(400)
@given(scenario=tight)
# An older chunk of a delivery, told late, released rows a second time.
@example(Scenario(num_requests=2, block_size=1, budget=7, prefix_cache=False, deliver="oldest"))
def test_oldest_gets_through_parked_younger_ones(scenario: Scenario) -> None:
    replica = Replica(scenario, scenario.requests())
    replica.run()


@pytest.mark.parametrize("stages", [1, 2, 4])
def test_oldest_takes_blocks_of_the_youngest_parked(stages: int) -> None:
    """Three prompts of 8 tokens, an item in the middle, in a pool for one of them and a half."""
    requests = [
        SequenceRequest(
            SequenceKey(f"r{n}"),
            (1, 2, 9, 9, 9, 9, 3, 4),
            (Item(0, b"picture %d" % n, 4, (Span(2, 4),)),),
            SamplingParams(max_tokens=1),
        )
        for n in range(3)
    ]
    config = SchedulerConfig(
        num_blocks=6,
        block_size=2,
        max_in_flight=stages,
        prefix_cache=False,
        reserve_ratio=0.0,
        reserve_prompts=False,
    )
    scheduler = Scheduler(config, FixedBudget(64))
    for request in requests:
        scheduler.add(request)
    # The younger two get as far as they can ...
    scheduler.put_rows(SequenceKey("r2"), 0, 3)
    scheduler.put_rows(SequenceKey("r1"), 0, 1)
    first = scheduler.schedule()
    assert first is not None
    assert [chunk.num_tokens for chunk in first.chunks] == [2, 3, 5]
    scheduler.update(first.batch_id, {})
    assert scheduler.stats().blocks_free == 0
    # ... and the oldest needs three blocks more.
    scheduler.put_rows(SequenceKey("r0"), 0, 4)
    second = scheduler.schedule()
    assert second is not None
    assert [(c.key.request_id, c.start, c.end) for c in second.chunks] == [("r0", 2, 8)]
    assert scheduler.stats().num_preempted == 1


def test_blocks_that_only_the_parked_ones_share_count_as_theirs() -> None:
    """The oldest lacks more than any one of them holds alone."""
    scheduler = make_scheduler(num_blocks=8)
    scheduler.add(picture("old", 4, 8, 17))
    scheduler.add(picture("y1", 17, 4, 1))
    assert step(scheduler) == [("old", 0, 4), ("y1", 0, 17)]
    scheduler.add(picture("y2", 17, 4, 1))
    assert step(scheduler) == [("y2", 16, 17)]  # the rest is shared
    assert scheduler.stats().blocks_free == 1
    scheduler.put_rows(SequenceKey("old"), 0, 8)
    drain(scheduler)
    assert scheduler.sequence(SequenceKey("old")) is None


def test_a_roomy_pool_hides_the_deadlock() -> None:
    """Why the pools above are tight: with room for all, nobody is ever preempted."""
    roomy = [Scenario(seed=n, num_requests=5, slack=200, deliver="oldest") for n in range(20)]
    assert num_preemptions(roomy) == 0
    assert num_preemptions([replace(scenario, slack=0) for scenario in roomy]) > 20


def num_preemptions(scenarios: list[Scenario]) -> int:
    replicas = [Replica(scenario, scenario.requests()) for scenario in scenarios]
    for replica in replicas:
        replica.run()
    return sum(replica.num_preempted for replica in replicas)
