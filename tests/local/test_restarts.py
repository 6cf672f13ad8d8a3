from __future__ import annotations

from redserve.local.restarts import History, RestartPolicy

POLICY = RestartPolicy()


def test_delays_double_up_to_the_longest() -> None:
    history, delays = History(), []
    for _ in range(9):
        history = history.ended(None, POLICY)
        delays.append(history.delay_s(POLICY))
    assert delays == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0, 10.0]


def test_very_many_failures_do_not_overflow() -> None:
    assert History(num_failures=10_000).delay_s(POLICY) == 10.0


def test_a_stable_run_begins_anew() -> None:
    history = History(num_restarts=7, num_failures=7).ended(30.0, POLICY)
    assert (history.num_restarts, history.num_failures) == (8, 1)
    assert history.delay_s(POLICY) == 0.2


def test_a_short_run_does_not() -> None:
    assert History(num_failures=3).ended(29.9, POLICY).delay_s(POLICY) == 1.6


def test_hopeless_only_if_never_ready() -> None:
    never = ready = History()
    ready = ready.ended(0.1, POLICY)
    for _ in range(3):
        assert not never.hopeless(POLICY)
        never, ready = never.ended(None, POLICY), ready.ended(None, POLICY)
    assert never.hopeless(POLICY)
    assert not ready.hopeless(POLICY)
