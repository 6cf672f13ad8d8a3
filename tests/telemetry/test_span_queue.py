from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

import pytest

from redserve.telemetry.log import configure
from redserve.telemetry.span_queue import REFUSED, SLOW, SpanQueue
from tests.telemetry.test_log import _restore  # noqa: F401  # logs as they were, after each test

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE_S = 30.0


class Slow:
    """A receiver that takes a batch whenever it is let; `lost` counts as a metric would."""

    def __init__(self) -> None:
        self.taken: list[int] = []
        self.lost = 0
        self.takes = True
        self.fails: Exception | None = None
        self._tickets = threading.Semaphore(0)
        self._entered = threading.Semaphore(0)
        self.queue = SpanQueue(
            self.send, self.note, endpoint="http://r:1", max_length=8, max_batch=4, interval_s=60.0
        )

    def send(self, batch: list[int]) -> bool:
        self._entered.release()
        assert self._tickets.acquire(timeout=PATIENCE_S)
        if self.fails is not None:
            raise self.fails
        if self.takes:
            self.taken += batch
        return self.takes

    def note(self, number: int) -> None:
        self.lost += number

    def put(self, *spans: int) -> None:
        for span in spans:
            self.queue.put(span)

    def entered(self) -> None:
        """Wait until the next batch has come."""
        assert self._entered.acquire(timeout=PATIENCE_S)

    def let(self, number: int = 1) -> None:
        for _ in range(number):
            self._tickets.release()


@pytest.fixture
def slow(_restore: None) -> Iterator[Slow]:  # noqa: F811
    configure("info", "json", "router")
    made = Slow()
    yield made
    made.let(1000)
    made.queue.close(PATIENCE_S)


def lines(capfd: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capfd.readouterr().err.splitlines()]


def test_what_overflows_is_counted_and_told_once_until_it_is_over(
    slow: Slow, capfd: pytest.CaptureFixture[str]
) -> None:
    slow.put(*range(4))
    slow.entered()
    slow.put(*range(4, 15))  # room is for eight
    assert slow.lost == 3
    slow.let()
    slow.entered()
    (line,) = lines(capfd)
    assert (line["level"], line["event"], line["endpoint"]) == ("warning", SLOW, "http://r:1")
    slow.put(15, 16, 17, 18, 19)  # and again: four were in it, and four are on their way
    assert slow.lost == 4
    slow.let()
    slow.entered()
    assert lines(capfd) == []
    slow.let()
    slow.entered()
    (line,) = lines(capfd)
    assert (line["event"], line["num_lost"]) == ("spans are exported again", 4)
    slow.let()
    assert slow.queue.close(PATIENCE_S) == 0
    assert slow.taken == [0, 1, 2, 3, *range(7, 11), *range(12, 20)]
    assert lines(capfd) == []


@pytest.mark.parametrize("error", [None, RuntimeError("broken")])
def test_what_is_not_taken_is_counted_and_told_once(
    slow: Slow, capfd: pytest.CaptureFixture[str], error: Exception | None
) -> None:
    slow.takes, slow.fails = False, error
    slow.let(2)
    slow.put(*range(4))
    slow.entered()
    slow.put(*range(4, 8))
    slow.entered()
    slow.put(*range(8, 12))
    slow.entered()
    assert slow.lost == 8
    told = [line["event"] for line in lines(capfd)]
    assert told == [*(["a batch of spans broke the exporter"] if error else []), REFUSED]
    slow.takes, slow.fails = True, None
    slow.let()
    assert slow.queue.close(PATIENCE_S) == 0
    (line,) = lines(capfd)
    assert (line["event"], line["num_lost"]) == ("spans are exported again", 8)
    assert slow.taken == [8, 9, 10, 11]


def test_what_is_left_is_sent_at_the_end_or_left_behind(slow: Slow) -> None:
    slow.put(1, 2)  # too few for a batch, and the interval is long
    slow.let()
    assert slow.queue.close(PATIENCE_S) == 0
    assert slow.taken == [1, 2]
    slow.put(3)
    assert slow.lost == 1, "after the end"


def test_the_end_does_not_wait_for_a_receiver_that_hangs(
    slow: Slow, capfd: pytest.CaptureFixture[str]
) -> None:
    slow.put(*range(4))
    slow.entered()
    slow.put(4, 5)
    assert slow.queue.close(0.01) == 6
    assert lines(capfd) == []
