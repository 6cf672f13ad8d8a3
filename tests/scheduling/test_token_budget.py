"""B follows the cost of a step, and the cost model follows the steps."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redserve.errors import ConfigError
from redserve.scheduling import (
    CostModel,
    CostModelBudget,
    FixedBudget,
    Scheduler,
    SchedulerConfig,
    StepFeatures,
    TokenBudget,
)
from redserve.scheduling.cost_model import attended
from tests.scheduling.drive import make_scheduler, schedule, text, update
from tests.strategies import effort

TRUTH = (5e-3, 20e-6, 2e-9, 50e-6, 20e-9)


def seconds(features: StepFeatures, truth: tuple[float, ...] = TRUTH) -> float:
    a, b, c, d, e = truth
    return (
        a
        + b * features.prefill_tokens
        + c * features.prefill_attention
        + d * features.num_decodes
        + e * features.decode_context_tokens
    )


def random_step(random: Random) -> StepFeatures:
    prefill = random.choice([0, 0, 64, 512, 2048])
    context = random.randrange(8000)
    decodes = random.randrange(128)
    return StepFeatures(
        prefill, attended(context, prefill), decodes, decodes * random.randrange(100, 8000)
    )


@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_the_model_learns_from_steps(noise: float) -> None:
    random = Random(1)
    model = CostModel((1e-3, 1e-6, 1e-10, 1e-6, 1e-9))
    for _ in range(400):
        step = random_step(random)
        model.observe(step, seconds(step) * random.uniform(1 - noise, 1 + noise))
    errors = []
    for _ in range(100):
        step = random_step(random)
        errors.append(abs(model.predict(step) / seconds(step) - 1))
    assert sorted(errors)[95] < 0.02 + noise


def test_the_model_follows_a_device_that_changes() -> None:
    random = Random(2)
    model = CostModel(TRUTH)
    slower = tuple(2 * value for value in TRUTH)
    for _ in range(400):
        step = random_step(random)
        model.observe(step, seconds(step, slower))
    step = StepFeatures(512, attended(1000, 512), 32, 64_000)
    assert model.predict(step) == pytest.approx(seconds(step, slower), rel=0.05)


def test_one_odd_step_hardly_counts() -> None:
    random = Random(3)
    model = CostModel(TRUTH)
    for _ in range(100):
        step = random_step(random)
        model.observe(step, seconds(step))
    model.observe(random_step(random), 30.0)
    step = StepFeatures(512, attended(1000, 512), 32, 64_000)
    assert model.predict(step) == pytest.approx(seconds(step), rel=0.3)


@effort(100)
@given(seed=st.integers(0, 2**32))
def test_coefficients_are_never_negative(seed: int) -> None:
    random = Random(seed)
    model = CostModel(TRUTH)
    for _ in range(30):
        model.observe(random_step(random), random.uniform(0, 0.1))
        assert min(model.coefficients) >= 0
    more = StepFeatures(100, 100, 10, 1000)
    less = StepFeatures(50, 50, 5, 500)
    assert model.predict(more) >= model.predict(less)


@effort(200)
@given(
    target=st.floats(1e-3, 0.2),
    num_decodes=st.integers(0, 300),
    context=st.integers(1, 8000),
    prefill_context=st.integers(0, 30_000),
)
def test_b_is_the_largest_that_keeps_the_target(
    target: float, num_decodes: int, context: int, prefill_context: int
) -> None:
    policy = CostModelBudget(CostModel(TRUTH), tpot_target_s=target, max_budget=2048, min_budget=16)
    budget = policy.budget(num_decodes, num_decodes * context, True, prefill_context)
    if num_decodes == 0:
        assert budget == 2048
        return

    def predicted(num_prefill: int) -> float:
        attention = attended(prefill_context, num_prefill)
        return seconds(StepFeatures(num_prefill, attention, num_decodes, num_decodes * context))

    num_prefill = budget - num_decodes
    assert num_prefill >= 16
    assert budget <= 2048
    assert num_prefill == 16 or predicted(num_prefill) <= target
    assert budget == 2048 or predicted(num_prefill + 1) > target


def test_a_full_house_of_decodes_never_exceeds_the_largest_budget() -> None:
    policy = CostModelBudget(CostModel(TRUTH), tpot_target_s=1, max_budget=64, min_budget=16)
    assert policy.budget(100, 10_000, True) == 64
    assert policy.budget(60, 10_000, True) == 64
    assert policy.budget(10, 1_000, False) == 26


def test_features_of_a_batch() -> None:
    scheduler = make_scheduler(budget=8)
    scheduler.add(text("a", 3, max_tokens=9))
    update(scheduler, schedule(scheduler))
    scheduler.add(text("b", (2,) * 9))
    batch = schedule(scheduler)
    # b attends to 1 + 2 + ... + 7 tokens, the decode to 4.
    assert StepFeatures.of(batch) == StepFeatures(7, 28, 1, 4)
    update(scheduler, batch)
    assert StepFeatures.of(schedule(scheduler)) == StepFeatures(2, 17, 1, 5)


def test_the_scheduler_asks_the_policy() -> None:
    asked = []

    class Spy:
        def budget(
            self,
            num_decodes: int,
            decode_context_tokens: int,
            has_prefill: bool,
            prefill_context_tokens: int = 0,
        ) -> int:
            facts = (num_decodes, decode_context_tokens, has_prefill, prefill_context_tokens)
            asked.append(facts)
            return 0 if len(asked) == 1 else 5  # 0 is taken for 1

    policy: TokenBudget = Spy()
    scheduler = Scheduler(SchedulerConfig(num_blocks=100, block_size=4), policy)
    scheduler.add(text("a", 3, max_tokens=9))
    assert schedule_sizes(scheduler, 2) == [[1], [2]]
    scheduler.add(text("b", (2,) * 9))
    assert schedule_sizes(scheduler, 3) == [[1, 4], [1, 4], [1, 1]]
    assert asked == [
        (0, 0, True, 0),
        (0, 0, True, 1),
        (1, 4, True, 0),
        (1, 5, True, 4),
        (1, 6, True, 8),
    ]


def schedule_sizes(scheduler: Scheduler, num_steps: int) -> list[list[int]]:
    sizes = []
    for _ in range(num_steps):
        batch = schedule(scheduler)
        sizes.append([chunk.num_tokens for chunk in batch.chunks])
        update(scheduler, batch)
    return sizes


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        FixedBudget(0)
    with pytest.raises(ConfigError, match="between 1 and max_budget"):
        CostModelBudget(CostModel(TRUTH), tpot_target_s=1, max_budget=8, min_budget=9)
    with pytest.raises(ConfigError, match="more than 0"):
        CostModelBudget(CostModel(TRUTH), tpot_target_s=0, max_budget=8, min_budget=1)
