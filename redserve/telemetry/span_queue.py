"""Spans that wait to be sent: bounded, counted when they are lost, and nobody waits for them."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from redserve.telemetry.log import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable

log = get_logger()

REFUSED: Final = (
    "spans are lost: the OTLP receiver does not take them; requests go on, and this is told once "
    "until it works again"
)
SLOW: Final = (
    "spans are lost: more come than the OTLP receiver takes; requests go on, and this is told once "
    "until it keeps up again"
)


class SpanQueue:
    """Sends from a thread of its own; if it is full, the oldest are dropped.

    Losses are told once, and again when they are over: spans are taken, and the queue is half
    empty at least. A receiver that is always a little too slow is one trouble, not a hundred.

    Args:
        send: Sends some spans, in the thread; false or an exception means that they are lost.
        on_lost: Told how many are lost, from any thread.
        endpoint: Where they go, for the log.
        max_length: Spans that wait.
        max_batch: Spans that are sent at once; so many are sent without waiting for more.
        interval_s: Longest time that a span waits for others.
    """

    def __init__(
        self,
        send: Callable[[list[Any]], bool],
        on_lost: Callable[[int], None],
        *,
        endpoint: str,
        max_length: int,
        max_batch: int,
        interval_s: float,
    ) -> None:
        self._send = send
        self._on_lost = on_lost
        self._endpoint = endpoint
        self._max_length = max_length
        self._max_batch = max_batch
        self._interval_s = interval_s
        self._changed = threading.Condition()
        self._waiting: deque[Any] = deque()
        self._num_sending = 0
        self._num_dropped = 0
        """Since the last look."""
        self._num_lost = 0
        """Since it was told; only the thread touches it."""
        self._closing = False
        self._abandoned = False
        self._thread = threading.Thread(target=self._run, name="send-spans", daemon=True)
        self._thread.start()

    def put(self, span: Any) -> None:
        """Take a span; never waits for the receiver."""
        with self._changed:
            is_lost = self._closing or len(self._waiting) >= self._max_length
            if not self._closing:
                if is_lost:
                    self._waiting.popleft()
                    self._num_dropped += 1
                self._waiting.append(span)
                if len(self._waiting) >= self._max_batch:
                    self._changed.notify_all()
        if is_lost:
            self._on_lost(1)

    def close(self, timeout_s: float) -> int:
        """Send what is left, at most for this long; blocks.

        Returns:
            The number of spans that are left behind, those under way included.
        """
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(timeout_s)
        with self._changed:
            if not self._thread.is_alive():
                return 0
            self._abandoned = True
            num_left = len(self._waiting) + self._num_sending
            self._waiting.clear()
        return num_left

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._closing or len(self._waiting) >= self._max_batch,
                    self._interval_s,
                )
                if self._closing and not self._waiting:
                    return
                count = min(self._max_batch, len(self._waiting))
                batch = [self._waiting.popleft() for _ in range(count)]
                self._num_sending = count
            if batch:
                self._reckon(batch, is_taken=self._is_taken(batch))

    def _is_taken(self, batch: list[Any]) -> bool:
        try:
            return self._send(batch)
        except Exception:  # the thread must live, whatever the library does
            if not self._num_lost:
                log.exception("a batch of spans broke the exporter")
            return False

    def _reckon(self, batch: list[Any], *, is_taken: bool) -> None:
        with self._changed:
            self._num_sending = 0
            num_dropped, self._num_dropped = self._num_dropped, 0
            is_calm = len(self._waiting) <= self._max_length // 2
            is_abandoned = self._abandoned
        if is_abandoned:
            return
        num_refused = 0 if is_taken else len(batch)
        if num_refused:
            self._on_lost(num_refused)
        if num_refused or num_dropped:
            if not self._num_lost:
                log.warning(SLOW if is_taken else REFUSED, endpoint=self._endpoint)
            self._num_lost += num_refused + num_dropped
        elif self._num_lost and is_calm:
            log.info("spans are exported again", num_lost=self._num_lost)
            self._num_lost = 0
