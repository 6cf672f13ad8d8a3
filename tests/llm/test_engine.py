"""The engine's own thread: it sleeps when idle, ends when told, and survives bad sequences."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import CollectorRegistry

from redserve.domain import FinishReason
from redserve.errors import InternalError, Unavailable
from redserve.scheduling import CostModel, CostModelBudget, FixedBudget, Scheduler, SchedulerConfig
from redserve.telemetry.metrics.llm import LLMMetrics
from redserve_llm.engine import MAX_FAILURES, Engine, EngineConfig
from redserve_llm.fake import FakeRunner
from redserve_llm.live_sequence import LiveSequence
from redserve_llm.notices import Ended, Failed
from tests.llm.harness import Recorder
from tests.llm.service import TIMEOUT_S, question, vocabulary

if TYPE_CHECKING:
    from collections.abc import Iterator

    from redserve.scheduling import StepFeatures


class Loud(Recorder):
    """Tells when something ended."""

    def __init__(self) -> None:
        super().__init__()
        self.changed = threading.Condition()

    def notify(self, notices: Any) -> None:
        with self.changed:
            super().notify(notices)
            self.changed.notify_all()

    def broken(self, error: BaseException) -> None:
        with self.changed:
            super().broken(error)
            self.changed.notify_all()

    def wait(self, condition: Any) -> None:
        with self.changed:
            assert self.changed.wait_for(condition, TIMEOUT_S)


def _engine(outlet: Loud, runner: FakeRunner, budget: Any = None, observe: Any = None) -> Engine:
    config = SchedulerConfig(num_blocks=32, block_size=4)
    return Engine(
        EngineConfig("llm-0", (2,), observe=observe),
        Scheduler(config, budget or FixedBudget(64)),
        runner,
        vocabulary(),
        outlet,
        LLMMetrics(CollectorRegistry()),
    )


@pytest.fixture
def outlet() -> Loud:
    return Loud()


@pytest.fixture
def runner() -> FakeRunner:
    return FakeRunner(32, 4)


@pytest.fixture
def engine(outlet: Loud, runner: FakeRunner) -> Iterator[Engine]:
    engine = _engine(outlet, runner)
    engine.start()
    yield engine
    assert engine.close(TIMEOUT_S)


def test_an_idle_engine_takes_no_cpu(engine: Engine, outlet: Loud) -> None:
    parked = question("parked", 1, seed=3)  # waits for an image that does not come
    engine.add(parked.request)
    asked = question("r")
    engine.add(asked.request)
    outlet.wait(lambda: asked.request.key in outlet.ends)
    before, wall = time.process_time(), time.monotonic()
    threading.Event().wait(1.0)
    used_s = time.process_time() - before
    assert used_s < 0.05 * (time.monotonic() - wall)


def test_what_is_live_at_the_end_fails(engine: Engine, outlet: Loud) -> None:
    asked = question("r", 1)
    engine.add(asked.request)
    assert engine.close(TIMEOUT_S)
    failed = outlet.ends[asked.request.key]
    assert isinstance(failed, Failed)
    assert isinstance(failed.error, Unavailable)
    with pytest.raises(Unavailable):
        engine.add(question("s").request)


def test_a_sequence_whose_text_fails_does_not_harm_its_neighbours(
    engine: Engine, outlet: Loud, monkeypatch: pytest.MonkeyPatch
) -> None:
    accept = LiveSequence.accept

    def fragile(self: LiveSequence, sampled: Any) -> Any:
        if self.request.key.request_id == "bad" and self.num_outputs == 2:
            raise ValueError("a bug in the tokenizer")
        return accept(self, sampled)

    monkeypatch.setattr(LiveSequence, "accept", fragile)
    asked = [question(name, seed=n) for n, name in enumerate(("good", "bad", "fine"))]
    for one in asked:
        engine.add(one.request)
    keys = [one.request.key for one in asked]
    outlet.wait(lambda: outlet.gone >= set(keys))
    assert isinstance(outlet.ends[keys[1]], Failed)
    assert outlet.tokens[keys[0]] == asked[0].answer
    assert outlet.tokens[keys[2]] == asked[2].answer


def test_steps_that_keep_failing_break_the_engine(outlet: Loud, runner: FakeRunner) -> None:
    def fail(batch: object) -> None:
        raise ValueError("always")

    runner.before_step = fail
    engine = _engine(outlet, runner)
    engine.start()
    for n in range(MAX_FAILURES):
        asked = question(f"r{n}")
        engine.add(asked.request)
        outlet.wait(lambda key=asked.request.key: key in outlet.ends)
        failed = outlet.ends[asked.request.key]
        assert isinstance(failed, Failed)
        assert isinstance(failed.error, InternalError)
        assert "always" not in str(failed.error)
    outlet.wait(lambda: outlet.error is not None)
    with pytest.raises(Unavailable):
        engine.add(question("s").request)
    assert runner.num_known == 0
    engine.close()


def test_a_bug_in_the_scheduler_is_not_silent(
    engine: Engine, outlet: Loud, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: Scheduler) -> None:
        raise InternalError("a broken invariant")

    monkeypatch.setattr(Scheduler, "schedule", broken)
    asked = question("r")
    engine.add(asked.request)
    outlet.wait(lambda: outlet.error is not None)
    assert isinstance(outlet.ends[asked.request.key], Failed)
    assert asked.request.key in outlet.gone


def test_abort_while_its_step_runs(engine: Engine, outlet: Loud, runner: FakeRunner) -> None:
    reached, go = threading.Event(), threading.Event()

    def wait(batch: object) -> None:
        reached.set()
        assert go.wait(TIMEOUT_S)

    runner.before_step = wait
    asked = question("r")
    engine.add(asked.request)
    assert reached.wait(TIMEOUT_S)
    engine.abort(asked.request.key)
    ended = outlet.ends[asked.request.key]
    assert isinstance(ended, Ended)
    assert ended.reason is FinishReason.CANCELLED
    assert asked.request.key not in outlet.gone, "its blocks are still written"
    go.set()
    outlet.wait(lambda: asked.request.key in outlet.gone)
    assert asked.request.key not in outlet.tokens
    assert runner.num_known == 0


def test_a_budget_that_learns_sees_every_step(outlet: Loud, runner: FakeRunner) -> None:
    budget = CostModelBudget(
        CostModel((1e-4, 1e-6, 0.0, 1e-6, 0.0)), tpot_target_s=0.01, max_budget=64, min_budget=1
    )
    seen: list[tuple[StepFeatures, float]] = []

    def observe(features: StepFeatures, seconds: float) -> None:
        seen.append((features, seconds))
        budget.observe(features, seconds)

    engine = _engine(outlet, runner, budget, observe)
    engine.start()
    asked = question("r")
    engine.add(asked.request)
    outlet.wait(lambda: asked.request.key in outlet.ends)
    assert engine.close(TIMEOUT_S)
    assert seen[0][0].prefill_tokens == len(asked.request.token_ids)
    assert [features.num_decodes for features, _ in seen[1:]] == [1] * 5
    assert all(seconds > 0 for _, seconds in seen)
