"""When the process that a pool is read from is taken for lost, and how soon the next one comes."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from redserve.transport.nixl import read_server
from redserve.transport.nixl.library import AgentError
from redserve.transport.nixl.read_server import ReadServer
from redserve.transport.nixl.reader_process import ReaderProcess
from redserve.transport.slab import SharedSlab

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

TIMEOUT_S = 60.0
REFUSED = -1.0
"""In the place of how long a process lives: it cannot be started."""


class Story:
    """What becomes of one process after another, in a time of its own.

    Attributes:
        pauses_s: Before each start.
        over: When the last process of the story has ended.
    """

    def __init__(self, lives_s: Sequence[float]) -> None:
        self.pauses_s: list[float] = []
        self.over = threading.Event()
        self._lives_s = iter(lives_s)
        self._now_s = 100.0

    def start(self, slab: SharedSlab, name: str) -> ReaderProcess:
        """In the place of `ReaderProcess`."""
        life_s = next(self._lives_s, None)
        if life_s == REFUSED:
            raise AgentError("no port is free")
        process = SimpleNamespace(pid=7, watch=lambda: self._live(life_s), end=lambda: None)
        return cast("ReaderProcess", process)

    def monotonic(self) -> float:
        return self._now_s

    def pause(self, pause_s: float) -> bool:
        """Whether it is the last one."""
        if not self.over.is_set():
            self.pauses_s.append(pause_s)
        return self.over.is_set()

    def _live(self, life_s: float | None) -> int:
        if life_s is None:
            self.over.set()
        else:
            self._now_s += life_s
        return -6


def pauses_s(lives_s: Sequence[float], monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Between the end of each process and the start of the next one."""
    story = Story(lives_s)

    class Event(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            return super().wait() if timeout is None else story.pause(timeout)

    patched = SimpleNamespace(Event=Event, Lock=threading.Lock, Thread=threading.Thread)
    monkeypatch.setattr(read_server, "threading", patched)
    monkeypatch.setattr(read_server, "time", SimpleNamespace(monotonic=story.monotonic))
    monkeypatch.setattr(read_server, "ReaderProcess", story.start)
    server = ReadServer(cast("SharedSlab", None), lambda: "name", lambda *_: None)
    assert story.over.wait(TIMEOUT_S)
    server.close()
    first, *others = story.pauses_s
    assert first == 0, "nobody waits for the first one"
    assert len(others) == len(lives_s)
    return others


def test_processes_that_end_at_once_come_ever_later_but_within_five_seconds(
    monkeypatch: pytest.MonkeyPatch,
):
    """One that can never stay must not take the machine with its starts."""
    waited_s = pauses_s([0.5] * 20, monkeypatch)
    assert 0 < waited_s[0] <= 0.1
    assert waited_s == sorted(waited_s)
    assert waited_s[10:] == [5.0] * 10


def test_starts_that_fail_are_tried_again_ever_later_but_within_five_seconds(
    monkeypatch: pytest.MonkeyPatch,
):
    waited_s = pauses_s([0.5] + [REFUSED] * 20, monkeypatch)
    assert 0 < waited_s[0] <= 0.1
    assert waited_s == sorted(waited_s)
    assert waited_s[11:] == [5.0] * 10


def test_one_that_lived_long_is_replaced_at_once(monkeypatch: pytest.MonkeyPatch):
    waited_s = pauses_s([3600.0, 0.5, 0.5, 0.5, 11.0, 0.5, 9.0], monkeypatch)
    assert [wait_s > 0 for wait_s in waited_s] == [False, True, True, True, False, True, True]
    assert waited_s[5] == waited_s[1], "what was before has no weight any more"


class Watched(ReaderProcess):
    """One whose every second is written down: "." for an answer, " " for none. Then it ends.

    Attributes:
        killed_at: How many seconds had passed when it was killed; None if it never was.
    """

    def __init__(self, seconds: str, stdin: Any) -> None:
        self._pipe, self._writing = os.pipe()
        self._poll = cast("Any", self)
        self._process = cast("Any", self)
        self.stdin = stdin
        self.killed_at: int | None = None
        self._num_passed = 0
        self._seconds = iter(seconds)

    @property
    def pid(self) -> int:
        return 7

    def poll(self, timeout_ms: float) -> bool:
        second = next(self._seconds, None)
        self._num_passed += 1
        if second == " ":
            return False
        if second is None or self.killed_at is not None:
            os.close(self._writing)
        else:
            os.write(self._writing, b".")
        return True

    def kill(self) -> None:
        self.killed_at = self._num_passed

    def wait(self, timeout_s: float | None = None) -> int:
        return 0


@pytest.fixture
def stdin() -> Iterator[Any]:
    with Path(os.devnull).open("wb") as nothing:
        yield nothing


def test_one_that_answers_late_every_time_is_not_taken_for_one_that_hangs(stdin: Any):
    """However often that happens in its life."""
    slow = Watched((" " * 10 + ".") * 50, stdin)
    assert slow.watch() == 0
    assert slow.killed_at is None


@pytest.mark.parametrize("before", ["", ".", "          ."])
def test_one_that_answers_no_more_is_killed_after_ten_questions(before: str, stdin: Any):
    hanging = Watched(before + " " * 11, stdin)
    assert hanging.watch() == 0
    assert hanging.killed_at == len(before) + 11


def test_one_whose_parent_is_gone_before_it_begins_does_not_begin():
    """Nobody would end it: the kernel tells of ends that come later only."""
    slab = SharedSlab(4096)
    reading, writing = os.pipe()
    somebody_else = os.getpid() + 1
    numbers = (str(somebody_else), str(slab.descriptor), str(slab.num_bytes), str(writing))
    try:
        done = subprocess.run(
            [sys.executable, "-m", "redserve.transport.nixl.serve", *numbers, "name"],
            stdin=subprocess.DEVNULL,
            pass_fds=(slab.descriptor, writing),
            check=False,
            timeout=TIMEOUT_S,
        )
        os.close(writing)
        assert os.read(reading, 4096) == b"", "it says that it can be read from"
        assert done.returncode == 1
    finally:
        os.close(reading)
