from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from redserve_operator.agenda import Agenda
from redserve_operator.keys import ServiceKey
from redserve_operator.kube.backoff import Backoff

A, B, C = (ServiceKey("ns", name) for name in "abc")


@pytest.fixture
def agenda() -> Agenda:
    return Agenda(0.3, Backoff(first_s=1.0, longest_s=8.0, jitter=0.0))


def test_changes_are_gathered_for_the_debounce_of_the_first(agenda: Agenda) -> None:
    agenda.add(A, now=10.0)
    agenda.add(A, now=10.2)
    assert agenda.take(10.29) is None
    assert agenda.next_due() == pytest.approx(10.3)
    assert agenda.take(10.3) == A
    agenda.done(A, 10.4)
    assert agenda.next_due() is None
    assert agenda.take(99.0) is None


def test_services_come_in_the_order_in_which_they_are_due(agenda: Agenda) -> None:
    agenda.add_after(A, 5.0, now=0.0)
    agenda.add(B, now=1.0)
    agenda.add(C, now=0.5)
    assert [agenda.take(10.0) for _ in range(4)] == [C, B, A, None]


def test_a_service_is_with_one_worker_and_a_change_meanwhile_is_not_lost(agenda: Agenda) -> None:
    agenda.add(A, 0.0)
    assert agenda.take(1.0) == A
    agenda.add(A, 1.1)
    assert agenda.take(5.0) is None
    agenda.done(A, 5.0, again_after_s=600.0)
    assert agenda.take(5.0) == A


def test_a_sooner_wish_replaces_a_later_one_and_never_the_other_way(agenda: Agenda) -> None:
    agenda.add(A, 0.0)
    assert agenda.take(1.0) == A
    agenda.done(A, 1.0, again_after_s=600.0)
    agenda.add(A, 2.0)
    assert agenda.next_due() == pytest.approx(2.3)
    agenda.add_after(A, 100.0, 2.1)
    assert agenda.next_due() == pytest.approx(2.3)


def test_a_look_that_asks_for_the_next_at_once_waits_for_the_debounce(agenda: Agenda) -> None:
    agenda.add(A, 0.0)
    assert agenda.take(1.0) == A
    agenda.done(A, 1.0, again_after_s=0.0)
    assert agenda.take(1.29) is None
    assert agenda.next_due() == pytest.approx(1.3)


def test_failures_wait_longer_each_time_until_a_success(agenda: Agenda) -> None:
    now, waits = 0.0, []
    agenda.add(A, now)
    for _ in range(5):
        now = agenda.next_due() or 0.0
        assert agenda.take(now) == A
        agenda.add(A, now)  # noise of the failing look itself
        waits.append(agenda.failed(A, now, chance=0.0))
    assert waits == [1.0, 2.0, 4.0, 8.0, 8.0]
    assert agenda.failures(A) == 5
    assert agenda.take(now + 100.0) == A
    agenda.done(A, now + 100.0, again_after_s=1.0)
    assert agenda.failures(A) == 0


def test_a_failure_waits_as_long_as_the_server_asks(agenda: Agenda) -> None:
    agenda.add(A, 0.0)
    agenda.take(1.0)
    assert agenda.failed(A, 1.0, chance=0.0, at_least_s=30.0) == 30.0


def test_a_change_cuts_a_back_off_short(agenda: Agenda) -> None:
    agenda.add(A, 0.0)
    agenda.take(1.0)
    agenda.failed(A, 1.0, chance=0.0)
    agenda.add(A, 1.1)
    assert agenda.next_due() == pytest.approx(1.4)


def test_age_and_depth_count_waiting_and_worked_on(agenda: Agenda) -> None:
    assert (agenda.depth(9.0), agenda.oldest_s(9.0)) == (0, 0.0)
    agenda.add(A, 0.0)
    agenda.add(B, 1.0)
    agenda.add_after(C, 500.0, 0.0)
    assert agenda.depth(2.0) == 2
    assert agenda.oldest_s(10.3) == pytest.approx(10.0)
    agenda.take(10.3)
    # A worker that hangs ages as well as a service that nobody takes.
    assert agenda.depth(10.3) == 1
    assert agenda.oldest_s(20.3) == pytest.approx(20.0)
    agenda.done(A, 20.3)
    assert agenda.oldest_s(20.3) == pytest.approx(19.0)


class AgendaMachine(RuleBasedStateMachine):
    """Whatever happens, what was asked for is looked at, and by one worker at a time."""

    services = st.sampled_from([A, B, C])

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.agenda = Agenda(0.3, Backoff(1.0, 8.0))
        self.taken: set[ServiceKey] = set()
        self.owed: set[ServiceKey] = set()

    @rule(service=services, delay=st.sampled_from([0.0, 0.3, 5.0]))
    def change(self, service: ServiceKey, delay: float) -> None:
        self.agenda.add_after(service, delay, self.now)
        self.owed.add(service)

    @rule(passed=st.sampled_from([0.1, 1.0, 20.0]))
    def time_passes(self, passed: float) -> None:
        self.now += passed

    @rule()
    def take(self) -> None:
        service = self.agenda.take(self.now)
        if service is not None:
            assert service not in self.taken
            self.taken.add(service)
            self.owed.discard(service)

    @precondition(lambda self: self.taken)
    @rule(again=st.sampled_from([None, 0.0, 3.0]), failed=st.booleans(), chance=st.floats(0, 0.99))
    def give_back(self, again: float | None, failed: bool, chance: float) -> None:
        service = min(self.taken)
        self.taken.discard(service)
        if failed:
            self.agenda.failed(service, self.now, chance)
            self.owed.add(service)
        else:
            self.agenda.done(service, self.now, again)
            if again is not None:
                self.owed.add(service)

    @invariant()
    def nothing_is_forgotten(self) -> None:
        waiting = self.owed - self.taken
        assert bool(waiting) == (self.agenda.next_due() is not None)

    def teardown(self) -> None:
        for service in sorted(self.taken):
            self.agenda.done(service, self.now)
        found = set()
        while (left := self.agenda.take(self.now + 1000.0)) is not None:
            found.add(left)
            self.agenda.done(left, self.now + 1000.0)
        assert found == self.owed


AgendaMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestAgendaMachine = AgendaMachine.TestCase
