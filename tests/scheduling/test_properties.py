"""The invariants of the scheduler under any workload, any pool, any order of embeddings.

`Replica` asserts them at every step; here they meet every combination of switches.
"""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.scheduling.replica import Replica
from tests.scheduling.scenario import Scenario
from tests.strategies import effort

scenarios = st.builds(
    Scenario,
    seed=st.integers(0, 2**32),
    num_requests=st.integers(1, 8),
    slack=st.integers(0, 3) | st.just(50),
    block_size=st.sampled_from([1, 2, 4, 16]),
    budget=st.sampled_from([1, 2, 7, 16, 64]),
    stages=st.integers(1, 4),
    min_chunk=st.sampled_from([1, 4, 16]),
    max_held_back=st.sampled_from([0, 2, 32]),
    atomic=st.booleans(),
    prefix_cache=st.booleans(),
    reserve_ratio=st.sampled_from([0.0, 0.3, 1.0]),
    reserve_prompts=st.booleans(),
    max_sequences=st.sampled_from([1, 2, 8]),
    deliver=st.sampled_from(["random", "oldest", "youngest", "arena"]),
    arena=st.sampled_from([0, 1, 8]),
    abort=st.sampled_from([0, 0, 1, 5]),
    drop=st.sampled_from([0, 0, 2, 10]),
    late=st.sampled_from([0, 50, 90]),
)


@pytest.mark.timeout(900)
@effort(1000)
@given(scenario=scenarios)
# An overdue prefill ended one token short of its end, which was then taken for a decode.
@example(Scenario(2548, 5, 0, 16, 7, 1, 1, 0, atomic=True, max_sequences=2, abort=5))
@example(Scenario(2569, 9, 2, 1, 64, 3, 1, 0, atomic=True, reserve_ratio=1.0, arena=8, late=90))
# Rows that the prefix cache had made useless filled the arena.
@example(
    Scenario(
        51891,
        7,
        50,
        2,
        16,
        4,
        4,
        0,
        atomic=True,
        reserve_prompts=True,
        max_sequences=1,
        deliver="arena",
        drop=2,
        late=90,
    )
)
# An overdue younger prefill was in every batch, and so never idle for the older one's claim.
@example(
    Scenario(
        51529,
        9,
        0,
        16,
        2,
        2,
        1,
        0,
        atomic=True,
        prefix_cache=False,
        deliver="arena",
        arena=1,
        abort=5,
    )
)
# At admission rows were called released that had not come yet, and again when they came.
@example(
    Scenario(
        401351,
        6,
        2,
        4,
        7,
        3,
        1,
        32,
        atomic=True,
        deliver="youngest",
        arena=8,
        drop=10,
    )
)
# Small chunks in good company: cut by memory before a span, or joined when an older one gave way.
@example(
    Scenario(
        51015,
        5,
        3,
        4,
        64,
        2,
        4,
        32,
        atomic=True,
        prefix_cache=False,
        reserve_ratio=0.3,
        deliver="arena",
        arena=1,
        drop=10,
        late=50,
    )
)
@example(Scenario(206268, 5, 2, 4, 16, 1, 4, 32, reserve_ratio=0.3, arena=8))
def test_every_promise_holds(scenario: Scenario) -> None:
    replica = Replica(scenario, scenario.requests())
    replica.run()
