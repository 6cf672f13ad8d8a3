"""Sums over the last while, in bounded memory."""

from __future__ import annotations

from collections import deque
from math import ceil


class SlidingSums:
    """Several counts, added up over any window not longer than `span_s`.

    Events fall into buckets of equal length; a window begins at the start of a bucket, and so is
    up to one bucket longer than asked for. Empty buckets take no room.

    Args:
        num_sums: How many counts there are.
        bucket_s: Length of a bucket, seconds.
        span_s: Longest window, seconds.
    """

    def __init__(self, num_sums: int, bucket_s: float, span_s: float) -> None:
        self._num_sums = num_sums
        self._bucket_s = bucket_s
        self._num_kept = ceil(span_s / bucket_s) + 1
        self._buckets: deque[tuple[int, list[int]]] = deque()

    def add(self, now_s: float, *counts: int) -> None:
        """Something was counted at `now_s`, which never goes back.

        Raises:
            ValueError: Not as many counts as sums.
        """
        if len(counts) != self._num_sums:
            raise ValueError(f"{self._num_sums} counts are needed, {len(counts)} were given")
        number = int(now_s // self._bucket_s)
        if not self._buckets or self._buckets[-1][0] < number:
            self._buckets.append((number, [0] * self._num_sums))
            while self._buckets[0][0] <= number - self._num_kept:
                self._buckets.popleft()
        sums = self._buckets[-1][1]
        for index, count in enumerate(counts):
            sums[index] += count

    def over(self, now_s: float, window_s: float) -> tuple[int, ...]:
        """The sums of the last `window_s` seconds."""
        oldest = (now_s - window_s) // self._bucket_s
        total = [0] * self._num_sums
        for number, sums in reversed(self._buckets):
            if number < oldest:
                break
            for index, count in enumerate(sums):
                total[index] += count
        return tuple(total)
