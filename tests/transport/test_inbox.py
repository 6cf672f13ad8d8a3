"""Calls reach the thread that takes them, and no wait is longer than was asked for."""

from __future__ import annotations

import threading
from functools import partial

from redserve.transport.nixl.inbox import Inbox


def nothing() -> None: ...


def test_calls_are_taken_in_order():
    inbox = Inbox()
    taken: list[int] = []
    for number in range(3):
        inbox.put(partial(taken.append, number))
    while call := inbox.take(0.001):
        call()
    assert taken == [0, 1, 2]


def test_waits_that_are_over_at_once_end():
    """`queue.SimpleQueue` waits for ever in the second `take`, after some thousands of them."""
    inbox = Inbox()

    def take_often() -> None:
        for _ in range(5000):
            inbox.put(nothing)
            assert inbox.take(1e-6) is nothing
            inbox.take(1e-6)
            inbox.take(1e-6)

    thread = threading.Thread(target=take_often, daemon=True)
    thread.start()
    thread.join(30)
    assert not thread.is_alive()


def test_who_waits_without_a_timeout_is_woken():
    inbox = Inbox()
    done = threading.Event()

    def take_all() -> None:
        for left in range(2000, 0, -1):
            while inbox.take() is None:
                pass
            if left == 1:
                done.set()

    thread = threading.Thread(target=take_all, daemon=True)
    thread.start()
    for _ in range(2000):
        inbox.put(nothing)
    assert done.wait(30)
    thread.join(30)
