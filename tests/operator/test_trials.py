"""How long what was said to pods in a dry run counts."""

from __future__ import annotations

from redserve_operator.decide.observed import Probed
from redserve_operator.keys import ServiceKey
from redserve_operator.trials import Trials

DEMO = ServiceKey("ns", "demo")


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_refusal_is_asked_again_soon_at_first() -> None:
    clock = Clock()
    trials = Trials(clock)
    refused = Probed("a", {"llm": "no such account"})
    waits = []
    for _ in range(7):
        trials.note(DEMO, refused)
        wait = trials.again_after_s(DEMO)
        assert wait is not None
        waits.append(wait)
        clock.now += wait - 0.01
        assert trials.known(DEMO) == refused
        clock.now += 0.01
        assert trials.known(DEMO) is None
    assert waits == [2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]
    # Another manifest is another question.
    trials.note(DEMO, Probed("b", {"llm": "no such account"}))
    assert trials.again_after_s(DEMO) == 2.0


def test_a_welcome_lasts_a_minute_and_nothing_is_due() -> None:
    clock = Clock()
    trials = Trials(clock)
    assert trials.known(DEMO) is None
    trials.note(DEMO, Probed("a", {"llm": "no"}))
    trials.note(DEMO, Probed("a"))
    assert trials.again_after_s(DEMO) is None
    clock.now += 59.0
    assert trials.known(DEMO) == Probed("a")
    clock.now += 1.0
    assert trials.known(DEMO) is None
    trials.note(DEMO, Probed("a"))
    trials.forget(DEMO)
    assert trials.known(DEMO) is None
