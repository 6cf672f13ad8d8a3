"""Rollouts: tables for single steps, and a fleet that moves by chance."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redserve.cluster.names import POOLS
from redserve_operator.decide.goals import Goal, goal
from redserve_operator.decide.rollout import Tally, Targets, next_targets
from tests.operator.decide.fleet import Fleet

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.mark.parametrize(
    ("desired", "surge", "unavailable", "made"),
    [
        (4, "1", "0", Goal(4, 1, 0)),
        (4, "25%", "25%", Goal(4, 1, 1)),
        (5, "25%", "25%", Goal(5, 2, 1)),
        (3, "0", "0", Goal(3, 1, 0)),
        (3, "0%", "30%", Goal(3, 1, 0)),
        (3, "0", "1", Goal(3, 0, 1)),
        (2, "0", "5", Goal(2, 0, 2)),
        (0, "1", "1", Goal(0, 1, 0)),
        (1000, "100%", "0", Goal(1000, 1000, 0)),
    ],
)
def test_shares_become_counts(desired, surge, unavailable, made):
    assert goal(desired, surge, unavailable) == made


def step(goals: Any, update: str, settled: str = "", **pools: Any) -> Targets:
    tallies = {
        pool: {revision: Tally(*numbers) for revision, numbers in pools.get(pool, {}).items()}
        for pool in POOLS
    }
    return next_targets(dict(zip(POOLS, goals, strict=True)), update, tallies, settled)


ONE = Goal(1, 1, 0)
THREE = (ONE, ONE, ONE)


def test_first_sight_starts_everything():
    assert step((Goal(2, 1, 0), Goal(3, 1, 0), ONE), "a") == {
        "encoder": {"a": 2},
        "llm": {"a": 3},
        "router": {"a": 1},
    }


def test_a_new_revision_starts_beside_the_old_one():
    old = {"a": (1, 1)}
    assert step(THREE, "b", encoder=old, llm=old, router=old) == {
        "encoder": {"a": 1, "b": 1},
        "llm": {"a": 1, "b": 1},
        "router": {"a": 1, "b": 1},
    }


def test_the_old_router_leaves_when_the_new_one_is_ready_and_the_workers_stay_for_it():
    both = {"a": (1, 1), "b": (1, 1)}
    made = step(THREE, "b", encoder=both, llm=both, router=both)
    assert made["router"] == {"a": 0, "b": 1}
    assert made["encoder"] == {"a": 1, "b": 1}
    draining = {"a": (0, 0, 0, 1), "b": (1, 1)}
    made = step(THREE, "b", encoder=both, llm=both, router=draining)
    assert made["encoder"] == {"a": 1, "b": 1}
    made = step(THREE, "b", encoder=both, llm=both, router={"b": (1, 1)})
    assert made["encoder"] == {"a": 0, "b": 1}
    assert made["llm"] == {"a": 0, "b": 1}


def test_no_room_beside_stops_first_when_a_pool_may_be_empty():
    tight = Goal(1, 0, 1)
    old = {"a": (1, 1)}
    made = step((tight, tight, ONE), "b", encoder=old, llm=old, router=old)
    assert made["encoder"] == {"a": 0, "b": 0}
    made = step(
        (tight, tight, ONE), "b", encoder={"a": (0,), "b": (0,)}, llm={"a": (0,)}, router=old
    )
    assert made["encoder"]["b"] == 1


def test_old_routers_leave_in_proportion_to_new_workers():
    goals = (Goal(4, 1, 0), Goal(4, 1, 0), Goal(4, 1, 0))
    workers: dict[str, Any] = {"a": (3, 3), "b": (2, 2)}
    made = step(goals, "b", encoder=workers, llm=workers, router={"a": (4, 4), "b": (1, 1)})
    assert made["router"]["a"] == 3
    workers = {"a": (4, 4), "b": (1, 0, 1)}
    made = step(goals, "b", encoder=workers, llm=workers, router={"a": (4, 4), "b": (1, 1)})
    assert made["router"]["a"] == 4


def test_old_workers_stay_while_old_routers_draw_traffic_and_there_is_room():
    roomy = Goal(4, 4, 0)
    workers = {"a": (4, 4), "b": (4, 4)}
    goals = (roomy, roomy, Goal(2, 1, 0))
    made = step(goals, "b", encoder=workers, llm=workers, router={"a": (2, 2), "b": (1, 1)})
    assert made["router"]["a"] == 1
    assert made["encoder"] == {"a": 3, "b": 4}  # two thirds of the traffic


def test_unready_pods_of_an_abandoned_revision_go_first():
    workers = {"a": (2, 2), "b": (1, 0, 1)}
    goals = (Goal(2, 1, 0), Goal(2, 1, 0), ONE)
    made = step(goals, "c", encoder=workers, llm=workers, router={"a": (1, 1)})
    assert made["encoder"] == {"a": 2, "b": 0, "c": 0}
    made = step(goals, "c", encoder={"a": (2, 2)}, llm={"a": (2, 2)}, router={"a": (1, 1)})
    assert made["encoder"] == {"a": 2, "c": 1}


def test_going_back_grows_the_old_revision_again():
    workers = {"a": (1, 1), "b": (2, 1, 1)}
    goals = (Goal(2, 1, 0), Goal(2, 1, 0), ONE)
    made = step(goals, "a", encoder=workers, llm=workers, router={"a": (1, 1), "b": (1, 0, 1)})
    assert made["encoder"] == {"a": 1, "b": 1}  # b's starting pod makes room first
    assert made["router"] == {"a": 1, "b": 0}


def test_stop_ends_routers_before_workers():
    none = Goal(0, 1, 0)
    running = {"a": (2, 2)}
    made = step((none, none, none), "a", encoder=running, llm=running, router=running)
    assert made == {"encoder": {"a": 1}, "llm": {"a": 1}, "router": {"a": 0}}
    made = step((none, none, none), "a", encoder={"a": (1, 1)}, llm={"a": (1, 1)})
    assert made == {"encoder": {"a": 0}, "llm": {"a": 0}, "router": {"a": 0}}


def test_a_short_failure_of_what_serves_does_not_end_it():
    blip: Any = {"a": (2, 0, 2)}
    goals = (Goal(2, 1, 0), Goal(2, 1, 0), Goal(2, 1, 0))
    made = step(goals, "b", encoder=blip, llm=blip, router=blip)
    assert made["router"]["a"] == 1
    assert made["encoder"]["a"] == 1


def test_of_two_broken_revisions_the_settled_one_may_recover():
    broken = {"a": (1, 0, 1), "b": (1, 0, 1)}
    made = step(THREE, "c", settled="a", encoder=broken, llm=broken, router=broken)
    assert made["router"]["a"] == 1
    assert made["router"]["b"] == 0


def goals() -> st.SearchStrategy[Any]:
    one = st.builds(
        lambda desired, surge, unavailable: goal(desired, str(surge), str(unavailable)),
        st.integers(0, 5),
        st.integers(0, 3),
        st.integers(0, 2),
    )
    return st.builds(
        _some_without_encoders, st.fixed_dictionaries(dict.fromkeys(POOLS, one)), st.booleans()
    )


def _some_without_encoders(made: dict[Any, Goal], optional: bool) -> dict[Any, Goal]:
    return {**made, "encoder": replace(made["encoder"], is_required=not optional)}


def strict_goals() -> st.SearchStrategy[Any]:
    one = st.builds(
        lambda desired, surge, unavailable: goal(desired, str(surge), str(unavailable)),
        st.integers(1, 4),
        st.integers(0, 2),
        st.integers(0, 2),
    ).filter(lambda made: not made.may_be_empty)
    return st.builds(
        _some_without_encoders, st.fixed_dictionaries(dict.fromkeys(POOLS, one)), st.booleans()
    )


EVENTS = ("decide", "workload", "start", "leave", "user", "fail")


def play(
    fleet: Fleet, rng: random.Random, changes: list[Any], num_events: int, *, fails: bool
) -> Iterator[tuple[bool, bool]]:
    """Drive a fleet by chance.

    Yields after every event that must not end what serves: whether all pools were promised to
    have a ready replica at all times, and whether some revision still serves.
    """
    acts = {
        "workload": fleet.workload_acts,
        "start": fleet.pod_starts,
        "leave": fleet.pod_leaves,
        "fail": fleet.pod_fails,
    }
    changes = list(changes)
    weights = [rng.random() for _ in EVENTS[:-1]] + [rng.random() if fails else 0]
    for event in rng.choices(EVENTS, weights, k=num_events):
        serving = bool(fleet.serving())
        if event == "decide":
            fleet.decide()
        elif event == "user":
            if changes:
                fleet.update, fleet.goals = changes.pop(0)
        else:
            acts[event](rng)
        if serving and event != "fail":
            promised = all(not one.may_be_empty for one in fleet.goals.values())
            yield promised, bool(fleet.serving())


LENGTHS = st.integers(0, 400)
SEEDS = st.integers(0, 10**9)
CHANGES = st.lists(st.tuples(st.sampled_from("abcd"), goals()), max_size=8)
STRICT = st.lists(st.tuples(st.sampled_from("abcd"), strict_goals()), max_size=8)


@settings(max_examples=150, deadline=None)
@given(goals(), CHANGES, LENGTHS, SEEDS, st.sets(st.sampled_from("abcd"), max_size=3))
def test_it_always_ends_with_the_new_revision_alone(first, changes, num_events, seed, broken):
    rng = random.Random(seed)
    fleet = Fleet(first, settled=rng.choice("abcd"), broken=set(broken))
    for _ in play(fleet, rng, changes, num_events, fails=True):
        pass
    fleet.broken.discard(fleet.update)
    fleet.settle(rng, 3000)
    for pool, wanted in fleet.goals.items():
        ready = sum(1 for pod in fleet.of(pool, fleet.update) if fleet.is_ready(pod))
        assert len(fleet.of(pool, fleet.update)) == wanted.desired
        serves = all(one.desired or not one.is_required for one in fleet.goals.values())
        assert ready == wanted.desired or (pool == "router" and not serves)
        assert {pod.revision for pod in fleet.pods} <= {fleet.update}


@settings(max_examples=150, deadline=None)
@given(strict_goals(), STRICT, LENGTHS, SEEDS)
def test_what_serves_goes_on_serving_until_another_does(first, changes, num_events, seed):
    rng = random.Random(seed)
    fleet = Fleet(first)
    fleet.settle(rng, 3000)
    assert fleet.serving()
    for promised, serving in play(fleet, rng, changes, num_events, fails=False):
        assert serving or not promised
    for _ in range(3000):  # to the end of the rollout
        fleet.decide()
        assert fleet.serving()
        if not any([fleet.workload_acts(rng), fleet.pod_starts(rng), fleet.pod_leaves(rng)]):
            break
    assert fleet.serving() == {fleet.update}
