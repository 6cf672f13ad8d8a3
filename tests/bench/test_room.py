"""Limits of the client are its own: no promise sees them."""

from __future__ import annotations

import asyncio
import errno
import json
import resource
import subprocess
import sys
from typing import TYPE_CHECKING

from redserve.bench.clients.base import Manners
from redserve.bench.clients.openai_http import HttpClient
from redserve.bench.outcome import Problem
from redserve.bench.questions import Question
from redserve.bench.report.page import page
from redserve.bench.room import SPARE_FILES, own_limit, raise_file_limit, room_for_connections
from redserve.bench.summary import is_good, summarize
from redserve.bench.tables import headline, notes
from redserve.slo import End, Objective, Tally
from tests.bench.fake_openai import FakeOpenAi
from tests.bench.outcomes import FULL, outcome

if TYPE_CHECKING:
    import pytest

LOST = Problem(End.FAILED, "CONNECTION", "refused")
PROMISES = (
    Objective("up", "Availability", None, 0.5, 60.0),
    Objective("first", "TimeToFirstToken", 0.2, 0.5, 60.0),
    Objective("pace", "TimePerOutputToken", 0.2, 0.5, 60.0),
    Objective("whole", "RequestLatency", 0.9, 0.5, 60.0),
)
TOLD_BY_A_CHILD = """
import json, resource
from redserve.bench.room import room_for_connections
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
print(json.dumps([room_for_connections(500), *resource.getrlimit(resource.RLIMIT_NOFILE)]))
"""


def told_by_a_child(soft: int, hard: int) -> list[int]:
    done = subprocess.run(
        [sys.executable, "-c", TOLD_BY_A_CHILD.format(soft=soft, hard=hard)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    found: list[int] = json.loads(done.stdout)
    return found


def test_the_limit_of_open_files_is_raised_to_what_is_needed() -> None:
    assert told_by_a_child(100, 1000) == [500, 500 + SPARE_FILES, 1000]


def test_what_does_not_fit_is_known() -> None:
    assert told_by_a_child(100, 200) == [200 - SPARE_FILES, 200, 200]


def test_a_limit_that_suffices_is_left_alone() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert raise_file_limit(1) == 1
    assert room_for_connections(1) == 1
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == before


def test_a_limit_below_other_errors_is_found() -> None:
    lost = ConnectionError("all attempts failed")
    lost.__cause__ = ExceptionGroup("two", [OSError(errno.ECONNREFUSED, ""), OSError("x")])
    assert own_limit(lost) is None
    lost.__cause__ = ExceptionGroup("two", [OSError("x"), OSError(errno.EMFILE, "")])
    assert own_limit(lost) == errno.EMFILE
    lost.__cause__.__context__ = lost
    assert own_limit(lost) == errno.EMFILE, "a ring of causes has an end"


async def test_no_files_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_args: object, **_options: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    server = FakeOpenAi()
    async with server.running() as url, HttpClient(url, Manners(model="peer")) as client:
        monkeypatch.setattr(asyncio.get_running_loop(), "create_connection", fail)
        problem = (await client.ask(Question((), "hello", 5))).problem
    assert problem == Problem(None, "CLIENT_EMFILE", "Too many open files")


def test_what_was_not_sent_counts_for_no_promise_and_is_told() -> None:
    run = [outcome(0), outcome(1, ttft_s=None, problem=LOST)]
    run += [outcome(n, ttft_s=None, start_s=99.0, lag_s=9.0, problem=FULL) for n in range(2, 6)]
    found = summarize(run, PROMISES)
    expected = summarize(run[:2], PROMISES)
    assert [one.tally for one in found.kept] == [one.tally for one in expected.kept]
    assert found.kept[0].tally == Tally(good=1, bad=1)
    assert (found.span_s, found.lag, found.latencies) == (
        expected.span_s, expected.lag, expected.latencies
    )  # fmt: skip
    assert (found.num_requests, found.reasons) == (2, (("CONNECTION", 1),))
    assert found.unsent == (("CLIENT_FULL", 4),)
    assert not is_good(run[-1], PROMISES)
    made = found.to_dict()
    assert (made["num_unsent"], made["unsent_reasons"]) == (4, {"CLIENT_FULL": 4})
    assert headline(found).endswith("1 complete, 1 CONNECTION; 4 more not sent")
    assert any("4 requests were due and not sent (4 CLIENT_FULL)" in note for note in notes(found))
    assert "4 requests were due and not sent" in page(found, run, {})


def test_nothing_was_sent() -> None:
    run = [outcome(n, ttft_s=None, problem=FULL) for n in range(3)]
    found = summarize(run, PROMISES)
    assert (found.num_requests, found.num_unsent, found.num_good) == (0, 3, 0)
    assert [one.attainment for one in found.kept] == [None] * 4
    json.dumps(found.to_dict(), allow_nan=False)
    page(found, run, {})
