"""`redserve top` against a router that answers from a script."""

from __future__ import annotations

import io
import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from rich.console import Console, Group
from rich.text import Text

from redserve.cli.main import main
from redserve.cli.top_frame import Fitted, frame
from redserve.local.state import ProcessState, ServiceState, hold
from redserve.wire.overview import overview_from_proto
from tests.cli.fake_router import FakeRouter, overview, running

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from rich.console import RenderableType

Output = pytest.CaptureFixture[str]
DEADLINE_S = 40.0


@pytest.fixture(autouse=True)
def nothing_runs_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    return tmp_path / "run" / "redserve"


@pytest.fixture
def router() -> FakeRouter:
    return FakeRouter()


@pytest.fixture
def address(router: FakeRouter) -> Iterator[str]:
    with running(router) as address:
        yield address


FRAME = """\
fake at {address}   up 1:02:03   7 in flight, 2 of them queued
1.25 requests/s   0.125 failures/s   40 tokens/s

SLO     INDICATOR         WITHIN  TARGET  ATTAINED  BUDGET LEFT   1 MIN   5 MIN     1 H
first   TimeToFirstToken  800 ms    99 %    99.9 %         90 %  99.9 %  99.9 %  99.9 %
up      Availability           -  99.9 %      90 %      -9900 %    90 %    90 %    90 %
encode  EncodeLatency      20 ms    50 %         -            -       -       -       -

LAST 5 MIN                 P50     P95    P99  COUNT
time to first token     123 ms  500 ms  2.5 s     75
time per output token  12.3 ms   20 ms  30 ms     70
whole answer                 -       -      -      0

REPLICA                 STATE    TRANSPORT  LOAD
encoder 127.0.0.1:7010  serving  grpc       queued_rows=3
llm 127.0.0.1:7030      serving  grpc       queued_rows=3
"""


@pytest.mark.parametrize("flags", [["--once"], []], ids=["once", "piped"])
def test_one_frame(address: str, capsys: Output, flags: list[str]) -> None:
    assert main(["top", "--address", address, *flags]) == 0
    shown = "\n".join(line.rstrip() for line in capsys.readouterr().out.splitlines())
    assert f"{shown}\n" == FRAME.format(address=address)


NARROW = {
    110: """\
SLO     INDICATOR         WITHIN  TARGET  ATTAINED  BUDGET LEFT   1 MIN   5 MIN     1 H
first   TimeToFirstToken  800 ms    99 %    99.9 %         90 %  99.9 %  99.9 %  99.9 %
up      Availability           -  99.9 %      90 %      -9900 %    90 %    90 %    90 %
encode  EncodeLatency      20 ms    50 %         -            -       -       -       -
""",
    80: """\
SLO     WITHIN  TARGET  ATTAINED  BUDGET LEFT   1 MIN   5 MIN     1 H
first   800 ms    99 %    99.9 %         90 %  99.9 %  99.9 %  99.9 %
up           -  99.9 %      90 %      -9900 %    90 %    90 %    90 %
encode   20 ms    50 %         -            -       -       -       -
""",
    60: """\
SLO     WITHIN  TARGET  ATTAINED  BUDGET LEFT
first   800 ms    99 %    99.9 %         90 %
up           -  99.9 %      90 %      -9900 %
encode   20 ms    50 %         -            -
""",
}


def rendered(content: RenderableType, width: int, height: int = 100) -> list[str]:
    console = Console(width=width, height=height, file=io.StringIO())
    with console.capture() as capture:
        console.print(content)
    return [line.rstrip() for line in capture.get().splitlines()]


@pytest.mark.parametrize("width", NARROW)
def test_numbers_are_whole_on_narrow_terminals(width: int) -> None:
    shown = rendered(frame(overview_from_proto(overview()), "127.0.0.1:7000", {}), width)
    table = NARROW[width].splitlines()
    start = shown.index(table[0])
    assert shown[start : start + len(table)] == table


@pytest.mark.parametrize("width", NARROW)
def test_a_long_name_is_cut_before_a_number_is(width: int) -> None:
    answer = overview()
    answer.slos[0].name = "a" * 63
    shown = rendered(frame(overview_from_proto(answer), "127.0.0.1:7000", {}), width)
    assert all(len(line) <= width for line in shown)
    (line,) = [line for line in shown if line.startswith("aaa")]
    assert line.split()[1:8] == ["800", "ms", "99", "%", "99.9", "%", "90"]


def test_broken_promises_are_red_and_kept_ones_green() -> None:
    console = Console(width=110, file=io.StringIO(), force_terminal=True, color_system="standard")
    shown = overview()
    shown.slos[0].attainment = shown.slos[0].target  # just what was promised is enough
    with console.capture() as capture:
        console.print(frame(overview_from_proto(shown), "127.0.0.1:7000", {}))
    styles = {}
    for line in capture.get().splitlines():
        text = Text.from_ansi(line)
        if (name := text.plain.split(" ")[0]) in ("first", "up", "encode"):
            styles[name] = [str(span.style) for span in text.spans]
    red, green = "bold color(1)", "color(2)"
    # What was attained, and what is left of the budget.
    assert styles == {"first": [green] * 2, "up": [red] * 2, "encode": ["dim"] * 2}


def test_what_is_below_the_screen_is_told() -> None:
    content = Group(*(Text(f"line {number}") for number in range(30)))
    assert rendered(Fitted(content), 80, 30) == [f"line {number}" for number in range(30)]
    shown = rendered(Fitted(content), 80, 24)
    assert shown[:-1] == [f"line {number}" for number in range(23)]
    assert shown[-1] == "7 more lines: make the window higher, or ask for --once"


def test_for_machines(address: str, capsys: Output) -> None:
    assert main(["top", "--json", "--address", address]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["slos"][0]["budget_left"] == 0.9
    assert found["slos"][2]["attainment"] is None
    assert found["num_queued"] == 2


def test_a_service_without_promises(router: FakeRouter, address: str, capsys: Output) -> None:
    del router.overview.slos[:]
    assert main(["top", "--once", "--address", address]) == 0
    assert "the manifest promises nothing (spec.slos)" in capsys.readouterr().out


def test_names_of_the_processes_of_a_service(
    address: str, nothing_runs_here: Path, capsys: Output
) -> None:
    encoder = ProcessState("encoder-0", "encoder", "ready", 5, "127.0.0.1:7010", None, 0, "/l")
    state = ServiceState("demo", 42, "/a.yaml", 1.0, "ready", address, None, (encoder,))
    with hold(nothing_runs_here, "demo") as folder:
        folder.write(state)
        assert main(["top", "--once"]) == 0
    assert "\nencoder-0 " in capsys.readouterr().out


def test_nobody_answers(capsys: Output) -> None:
    assert main(["top", "--once", "--address", "127.0.0.1:1"]) == 1
    assert capsys.readouterr().err.startswith("redserve: ")
    assert main(["top"]) == 2
    assert "no service runs here" in capsys.readouterr().err


def test_an_interval_must_be_sensible(capsys: Output) -> None:
    for text in ("0", "-1", "nan", "soon", "1e9"):
        with pytest.raises(SystemExit):
            main(["top", f"--interval={text}"])
        assert "write seconds, 0.1 to 3600" in capsys.readouterr().err


class Terminal:
    """`redserve top` on a terminal of its own; `shown` is all that it wrote."""

    def __init__(self, address: str) -> None:
        self._ours, theirs = pty.openpty()
        command = [sys.executable, "-m", "redserve.cli.main", "top", "--address", address]
        self.process = subprocess.Popen(
            [*command, "--interval=0.1"],
            stdin=theirs, stdout=theirs, stderr=theirs,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "120", "LINES": "40"},
            start_new_session=True,
        )  # fmt: skip
        os.close(theirs)
        self.shown = ""

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_exc: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._ours)

    def read_until(self, holds: Callable[[], bool]) -> None:
        end_s = time.monotonic() + DEADLINE_S
        while not holds():
            assert time.monotonic() < end_s, self.shown
            if select.select([self._ours], [], [], 0.2)[0]:
                try:
                    self.shown += os.read(self._ours, 65536).decode(errors="replace")
                except OSError:  # Linux's word for the other end being closed
                    break

    def interrupt(self) -> int:
        self.process.send_signal(signal.SIGINT)
        self.read_until(lambda: self.process.poll() is not None)
        return self.process.wait(DEADLINE_S)


def test_in_a_terminal_it_goes_on_until_interrupted(router: FakeRouter, address: str) -> None:
    with Terminal(address) as terminal:
        terminal.read_until(lambda: router.num_overviews >= 3 and "whole ans" in terminal.shown)
        assert terminal.interrupt() == 0
    assert "\x1b[?1049h" in terminal.shown, "a screen of its own"
    assert "\x1b[?1049l" in terminal.shown, "the terminal is left as it was"
    assert "Traceback" not in terminal.shown


def test_a_router_that_is_away_is_waited_for() -> None:
    with Terminal("127.0.0.1:1") as terminal:
        terminal.read_until(lambda: terminal.shown.count("does not answer") >= 2)
        assert terminal.interrupt() == 0
