"""Stamps go with the wall clock, and never back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import pytest

from redserve.telemetry import clock

HOUR_NS: Final = 3600 * 10**9
BEGIN_NS: Final = 1_700_000_000 * 10**9


@dataclass
class Machine:
    """Its two clocks; each look takes a microsecond."""

    wall_ns: int = BEGIN_NS
    monotonic: int = 0

    def _pass(self) -> None:
        self.wall_ns += 1000
        self.monotonic += 1000

    def time_ns(self) -> int:
        self._pass()
        return self.wall_ns

    def monotonic_ns(self) -> int:
        self._pass()
        return self.monotonic


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine()
    monkeypatch.setattr(clock, "time", made)
    monkeypatch.setattr(clock, "_anchor", clock._anchor_ns())
    return made


def test_it_is_the_time_of_day(machine: Machine) -> None:
    assert clock.now_ns() == pytest.approx(machine.wall_ns, abs=10_000)


def test_it_goes_on_after_a_suspend_as_that_of_a_process_that_begins_then(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = clock.now_ns()
    machine.wall_ns += HOUR_NS
    ran_before = clock.now_ns()
    assert ran_before - before >= HOUR_NS
    monkeypatch.setattr(clock, "_anchor", clock._anchor_ns())
    assert clock.now_ns() - ran_before < 1_000_000


@pytest.mark.parametrize("step_ns", [-HOUR_NS, -1_000_000, 1_000_000, clock.MOST_BEHIND_NS // 2])
def test_steps_back_and_small_ones_are_not_followed(machine: Machine, step_ns: int) -> None:
    before = clock.now_ns()
    machine.wall_ns += step_ns
    assert 0 < clock.now_ns() - before < 1_000_000


def test_a_look_that_was_interrupted_changes_nothing(machine: Machine) -> None:
    """The process stood still between its looks at the two clocks."""
    before, stood_still = clock.now_ns(), [True]
    look = machine.time_ns

    def interrupted() -> int:
        seen = look()
        if stood_still.pop() if stood_still else False:
            machine.wall_ns += HOUR_NS
            machine.monotonic += HOUR_NS
        return seen

    machine.time_ns = interrupted  # type: ignore[method-assign]
    assert clock.now_ns() - before < HOUR_NS + 1_000_000
    assert clock._anchor - (machine.wall_ns - machine.monotonic) < 10_000
