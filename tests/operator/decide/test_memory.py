"""Results that are remembered."""

from __future__ import annotations

from functools import partial

import pytest

from redserve_operator.decide.memory import Memory


def made_in_rounds(room: int, keys: int, rounds: int) -> int:
    memory, made = Memory(room), list[int]()

    def double(key: int) -> int:
        made.append(key)
        return key * 2

    for _ in range(rounds):
        for key in range(keys):
            assert memory.recall(key, partial(double, key)) == key * 2
            assert len(memory) <= room
    return len(made)


def test_what_fits_is_made_once() -> None:
    assert made_in_rounds(room=10, keys=10, rounds=5) == 10


def test_a_little_too_much_costs_a_little() -> None:
    assert made_in_rounds(room=100, keys=110, rounds=20) < 0.4 * 110 * 20


def test_failures_are_not_remembered() -> None:
    memory = Memory(2)
    with pytest.raises(ZeroDivisionError):
        memory.recall("a", lambda: 1 // 0)
    assert memory.recall("a", lambda: 1) == 1
