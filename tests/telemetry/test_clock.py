"""Stamps begin at the time of day, and go on by a clock that nobody sets and that does not stop."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Final

import pytest

from redserve.telemetry import clock

HOUR_NS: Final = 3600 * 10**9
MOST_APART_NS: Final = 5_000_000
"""Of two processes that read two clocks each."""
ANCHOR_OF_ANOTHER: Final = "from redserve.telemetry import clock; print(clock._ANCHOR_NS)"


@dataclass
class Machine:
    """Its wall clock and the one that goes on while it is suspended; a look takes a microsecond."""

    wall_ns: int = 1_700_000_000 * 10**9
    steady_ns: int = 0
    stands_still_ns: int = 0

    def pass_(self, ns: int) -> None:
        self.wall_ns += ns
        self.steady_ns += ns

    def time_ns(self) -> int:
        self.pass_(1000)
        return self.wall_ns

    def clock_gettime_ns(self, _clock: int) -> int:
        self.pass_(1000 + self.stands_still_ns)
        self.stands_still_ns = 0
        return self.steady_ns


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine()
    monkeypatch.setattr(clock, "time", made)
    monkeypatch.setattr(clock, "_ANCHOR_NS", clock._anchor_ns())
    return made


def test_it_is_the_time_of_day(machine: Machine) -> None:
    assert clock.now_ns() == pytest.approx(machine.wall_ns, abs=10_000)


def test_a_suspended_machine_does_not_part_those_that_began_before_and_after(
    machine: Machine,
) -> None:
    machine.pass_(HOUR_NS)
    assert clock._anchor_ns() == pytest.approx(clock._ANCHOR_NS, abs=10_000)


@pytest.mark.parametrize("step_ns", [-HOUR_NS, -1_000_000, 1_000_000, HOUR_NS])
def test_a_wall_clock_that_is_set_changes_no_duration(machine: Machine, step_ns: int) -> None:
    before = clock.now_ns()
    machine.wall_ns += step_ns
    assert 0 < clock.now_ns() - before < 10_000


def test_a_process_that_is_interrupted_between_its_clocks_is_not_off(machine: Machine) -> None:
    machine.stands_still_ns = HOUR_NS
    assert clock._anchor_ns() == pytest.approx(clock._ANCHOR_NS, abs=10_000)


def test_processes_of_one_machine_agree() -> None:
    other = subprocess.run(
        [sys.executable, "-c", ANCHOR_OF_ANOTHER], capture_output=True, text=True, check=True
    )
    assert abs(int(other.stdout) - clock._anchor_ns()) < MOST_APART_NS


@pytest.mark.skipif(not hasattr(time, "CLOCK_BOOTTIME"), reason="only Linux has two such clocks")
def test_the_clock_is_the_one_that_a_suspend_does_not_stop() -> None:
    assert time.clock_getres(clock._STEADY) > 0
    assert clock._STEADY == time.CLOCK_BOOTTIME
