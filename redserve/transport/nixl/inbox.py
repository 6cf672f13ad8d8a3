"""Calls for a thread, from any thread, with a wait that is as short as asked for.

Not `queue.SimpleQueue`: when its `get` finds the lock free and nothing there, it works out anew
what is left of the timeout, and waits for ever if that has become negative (CPython 3.11.7). With
pauses of 50 µs on a busy machine this happened within seconds: transfers were done, and nobody
looked.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    Call = Callable[[], None]


class Inbox:
    """First in, first out. One thread takes, any thread puts."""

    def __init__(self) -> None:
        self._calls: deque[Call] = deque()
        self._filled = threading.Event()

    def put(self, call: Call) -> None:
        """Leave a call, and wake the thread that takes."""
        self._calls.append(call)
        self._filled.set()

    def take(self, timeout_s: float | None = None) -> Call | None:
        """The next call; None when there was none within `timeout_s` seconds.

        May be None earlier: the wait ends with any `put`, also one whose call was taken before.
        Without a timeout it waits until it is woken.
        """
        if not self._calls:
            self._filled.wait(timeout_s)
            self._filled.clear()  # before looking: what is put from now on wakes again
        return self._calls.popleft() if self._calls else None
