"""Commands against a router that answers from a script."""

from __future__ import annotations

import asyncio
import io
import json
from typing import TYPE_CHECKING

import pytest

from redserve import __version__
from redserve.cli.chat import Conversation
from redserve.cli.main import main
from redserve.cli.pool_tables import pair_table, replica_table
from redserve.local.state import ProcessState, ServiceState, hold
from redserve.v1 import router_pb2 as pb
from redserve.wire.replicas import ReplicaStatus
from redserve.wire.router_client import Choices, PairStatus
from tests.cli.fake_router import FakeRouter, running
from tests.spec.manifests import EXAMPLES, ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Output = pytest.CaptureFixture[str]


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


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{number}.png" for number in range(2)]
    for path in paths:
        path.write_bytes(path.name.encode())
    return paths


def test_chat_once(router: FakeRouter, address: str, pictures: list[Path], capsys: Output) -> None:
    images = [word for path in pictures for word in ("--image", str(path))]
    flags = ["--max-tokens", "7", "--temperature", "0", "--seed", "3"]
    assert main(["chat", "--address", address, *images, *flags, "what is it?"]) == 0
    assert capsys.readouterr().out == "2 pictures, 1 messages: what is it? \n"
    request = router.requests[0]
    assert [part.image_bytes for part in request.messages[0].parts[:2]] == [b"0.png", b"1.png"]
    sampling = request.sampling
    assert (sampling.max_tokens, sampling.temperature, sampling.seed) == (7, 0.0, 3)


def test_chat_leaves_choices_to_the_checkpoint(router: FakeRouter, address: str) -> None:
    assert main(["chat", "--address", address, "hello"]) == 0
    sampling = router.requests[0].sampling
    assert not any(sampling.HasField(name) for name in ("max_tokens", "temperature", "seed"))


def test_chat_shows_the_timeline(address: str, capsys: Output) -> None:
    assert main(["chat", "--address", address, "--timeline", "hello"]) == 0
    out = capsys.readouterr().out
    assert "request r-1" in out
    assert "overlap 50%" in out
    assert "promises" not in out


def test_chat_tells_what_came_of_promises(address: str, capsys: Output) -> None:
    assert main(["chat", "--address", address, "--timeline", "judged"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == "  promises: quick kept, steady broken, images kept 2 of 3 times"


def test_chat_reads_a_question_from_a_pipe(
    address: str, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("from a pipe\n"))
    assert main(["chat", "--address", address]) == 0
    assert capsys.readouterr().out == "0 pictures, 1 messages: from a pipe \n"


def test_a_conversation(
    router: FakeRouter,
    address: str,
    pictures: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: Output,
) -> None:
    lines = iter(
        [f"/image {pictures[0]}", "one", "", "/image /no/such", "too much", "two", "/help",
         "/clear", "three"]
    )  # fmt: skip

    def read(_prompt: str) -> str:
        try:
            return next(lines)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr("builtins.input", read)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    assert main(["chat", "--address", address]) == 0
    captured = capsys.readouterr()
    assert "1 pictures, 1 messages: one" in captured.out
    assert "0 pictures, 3 messages: two" in captured.out
    assert "0 pictures, 1 messages: three" in captured.out
    assert "/no/such cannot be read: No such file" in captured.err
    assert "the queue is full" in captured.err
    last = router.requests[-2]
    assert [message.role for message in last.messages] == ["user", "assistant", "user"]
    assert last.messages[1].parts[0].text == "1 pictures, 1 messages: one "


def test_answers_cannot_command_the_terminal(address: str, capsys: Output) -> None:
    assert main(["chat", "--address", address, "a\x1b[2Jb\r\n\tc\x07 ü 猫 🐈"]) == 0
    assert "a\ufffd[2Jb\ufffd\n\tc\ufffd ü 猫 🐈" in capsys.readouterr().out


async def test_an_answer_that_is_stopped_is_cancelled_at_the_router() -> None:
    router = FakeRouter()
    with running(router) as address:
        talk = Conversation(address=address, choices=Choices(), timeline=False)
        asking = asyncio.create_task(talk.ask("for ever"))
        assert await asyncio.to_thread(router.waiting.wait, 20)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert await asyncio.to_thread(router.cancelled.wait, 20)
        assert talk.messages == []


def test_trace_draws(address: str, capsys: Output) -> None:
    assert main(["trace", "--address", address]) == 0
    out = capsys.readouterr().out
    assert out.startswith("request the-last\n")
    assert "encoder-1" in out
    assert out.endswith("all            0.00 ms      4.00 ms\n"), "exposed, hidden"
    assert main(["trace", "--address", address, "r-7"]) == 0
    assert capsys.readouterr().out.startswith("request r-7\n")


def test_trace_writes_a_file(address: str, tmp_path: Path, capsys: Output) -> None:
    path = tmp_path / "t.json"
    assert main(["trace", "--last", "--chrome", str(path), "--address", address]) == 0
    events = json.loads(path.read_text())["traceEvents"]
    assert sum(event["name"] == "encode" for event in events) == 2
    assert capsys.readouterr().out == f"{path}: request the-last, 4 bars\n"
    assert main(["trace", "--chrome", "/no/such/t.json", "--address", address]) == 2
    assert "--chrome: /no/such/t.json cannot be written" in capsys.readouterr().err


def service_state(address: str) -> ServiceState:
    return ServiceState(
        service="demo",
        pid=4242,
        manifest="/a/redservice.yaml",
        started_unix_s=1.0,
        phase="ready",
        grpc_address=address,
        http_address="127.0.0.1:8000",
        processes=(
            ProcessState(
                "encoder-0",
                "encoder",
                "ready",
                5,
                "127.0.0.1:7010",
                "127.0.0.1:7011",
                0,
                "/l/e.log",
            ),
            ProcessState("llm-0", "llm", "restarting", None, "127.0.0.1:7030", None, 2, "/l/l.log"),
        ),
    )


def test_status_joins_processes_and_load(
    router: FakeRouter, address: str, nothing_runs_here: Path, capsys: Output
) -> None:
    router.pairs = [pair("127.0.0.1:7010", gb_per_s=2.51)]
    with hold(nothing_runs_here, "demo") as folder:
        folder.write(service_state(address))
        assert main(["status"]) == 0
        out = capsys.readouterr().out
        assert main(["status", "--json", "--service", "demo"]) == 0
        (report,) = json.loads(capsys.readouterr().out)
    assert "demo is ready (manifest /a/redservice.yaml)" in out
    rows = [line.split() for line in out.splitlines()]
    assert ["encoder-0", "ready", "127.0.0.1:7010", "127.0.0.1:7011", "5", "0"] in rows
    assert ["llm-0", "restarting", "127.0.0.1:7030", "-", "-", "2"] in rows
    assert ["encoder-0", "serving", "grpc", "queued_rows=3"] in rows
    assert ["encoder-0", "llm-0", "grpc", "2.51"] in rows
    assert report["service"]["processes"][1]["num_restarts"] == 2
    assert report["replicas"][0] == {
        "pool": "encoder",
        "address": "127.0.0.1:7010",
        "serving": True,
        "transport": "grpc",
        "load": {"queued_rows": 3.0},
    }
    assert report["pair_checks"] == [
        {
            "encoder": "127.0.0.1:7010",
            "llm": "127.0.0.1:7030",
            "transport": "grpc",
            "gb_per_s": 2.51,
            "error": "",
        }
    ]


def pair(encoder: str, gb_per_s: float = 0.0, error: str = "") -> pb.PairCheck:
    transport = "grpc" if gb_per_s else ""
    return pb.PairCheck(
        encoder=encoder, llm="127.0.0.1:7030", transport=transport, gb_per_s=gb_per_s, error=error
    )


def test_rows_come_in_the_order_of_the_processes() -> None:
    names = {"h:9": "encoder-0", "h:5": "encoder-1", "h:1": "llm-0"}
    pairs = [PairStatus(encoder, "h:1", "grpc", 1.0, "") for encoder in ("h:2", "h:5", "h:9")]
    assert list(pair_table(pairs, names).columns[0].cells) == ["encoder-0", "encoder-1", "h:2"]
    replicas = [ReplicaStatus("encoder", pair.encoder, True, "grpc", {}) for pair in pairs]
    shown = list(replica_table(replicas, names).columns[0].cells)
    assert shown == ["encoder-0", "encoder-1", "encoder h:2"]


def test_status_tells_what_is_not_measured(
    router: FakeRouter, address: str, capsys: Output
) -> None:
    router.pairs = [pair("e:1"), pair("e:2", error="PEER_LOST")]
    assert main(["status", "--address", address]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["e:1", "127.0.0.1:7030", "-", "not", "measured", "yet"] in rows
    assert ["e:2", "127.0.0.1:7030", "-", "failed:", "PEER_LOST"] in rows


def test_status_of_thousands_of_pairs_shows_the_worst(
    router: FakeRouter, address: str, capsys: Output
) -> None:
    router.pairs = [pair(f"e:{n}", gb_per_s=1.0 + n / 1000) for n in range(10, 2011)]
    router.pairs += [pair("e:1"), pair("e:2", error="PEER_LOST")]
    assert main(["status", "--address", address]) == 0
    out = capsys.readouterr().out
    rows = [line.split() for line in out.splitlines()]
    shown = [row[0] for row in rows if row and row[0].startswith("e:")]
    assert shown == ["e:2", *(f"e:{n}" for n in range(10, 33))]
    assert "2003 pairs: 2001 measured, 1 failed; 1.01 to 3.01 GB/s, median 2.01" in out
    assert "--json has all" in out


def test_status_of_a_service_whose_router_is_away(nothing_runs_here: Path, capsys: Output) -> None:
    with hold(nothing_runs_here, "demo") as folder:
        folder.write(service_state("127.0.0.1:1"))
        assert main(["status"]) == 0
    out = capsys.readouterr().out
    assert "encoder-0" in out
    assert "the router at 127.0.0.1:1 does not answer" in out


def test_status_by_address(address: str, capsys: Output) -> None:
    assert main(["status", "--address", address]) == 0
    assert "127.0.0.1:7030" in capsys.readouterr().out
    assert main(["status", "--address", "127.0.0.1:1"]) == 1


def test_chat_finds_the_service(address: str, nothing_runs_here: Path, capsys: Output) -> None:
    with hold(nothing_runs_here, "demo") as folder:
        folder.write(service_state(address))
        assert main(["chat", "found"]) == 0
    assert capsys.readouterr().out == "0 pictures, 1 messages: found \n"


ERRORS: list[tuple[list[str], int, str]] = [
    (["chat", "hello"], 2, "no service runs here; start one with 'redserve up"),
    (["status"], 2, "no service runs here"),
    (["trace", "--service", "x"], 2, "no service named 'x' runs here; nothing runs"),
    (["down"], 2, "no service runs here"),
    (["chat", "--address", "127.0.0.1:1", "hello"], 1, ""),
    (["chat", "--address", "127.0.0.1:1", ""], 2, "the prompt is empty"),
    (["chat", "--address", "127.0.0.1:1", "--image", "/no", "x"], 2, "--image: /no cannot be read"),
    (["validate", "-f", "/no/such.yaml"], 2, "/no/such.yaml: there is no such file"),
    (["up", "-f", "/no/such.yaml"], 2, "/no/such.yaml: there is no such file"),
]


@pytest.mark.parametrize(
    ("words", "status", "message"), ERRORS, ids=[" ".join(e[0]) for e in ERRORS]
)
def test_errors_are_one_line(words: list[str], status: int, message: str, capsys: Output) -> None:
    assert main(words) == status
    captured = capsys.readouterr()
    assert captured.err.startswith(f"redserve: {message}")
    assert len(captured.err.splitlines()) == 1


def test_errors_of_the_router_keep_their_class(address: str, capsys: Output) -> None:
    assert main(["chat", "--address", address, "too much"]) == 1
    assert "redserve: the queue is full" in capsys.readouterr().err
    assert main(["trace", "--address", address, "gone"]) == 2
    assert "no request 'gone' is remembered" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [[], ["fly"], ["chat", "--address", "nowhere"], ["up", "--http-port", "70000"],
     ["trace", "--address", "a:1", "--service", "b"]],
)  # fmt: skip
def test_usage_errors(words: list[str], capsys: Output) -> None:
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2
    assert "usage: redserve" in capsys.readouterr().err


def test_version(capsys: Output) -> None:
    assert main(["version"]) == 0
    assert capsys.readouterr().out.startswith(f"redserve {__version__} (Python 3.")


def test_validate(capsys: Output) -> None:
    assert main(["validate", "-f", str(ROOT / "examples/redservice.yaml")]) == 0
    out = capsys.readouterr().out
    assert out.endswith(
        "demo is a valid RedService: file://demo-model, 2 encoder(s), 1 LLM engine(s)\n"
    )
    assert main(["validate", "-f", str(EXAMPLES / "complete.yaml")]) == 2
    assert ": spec.router.replicas: one machine has one address" in capsys.readouterr().out


def test_validate_lists_every_problem(tmp_path: Path, capsys: Output) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text((EXAMPLES / "minimal.yaml").read_text().replace("replicas: 2", "replcas: 2"))
    assert main(["validate", "-f", str(path)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        f"redserve: {path}:9:5: spec.encoder.replcas: unknown field; did you mean replicas?",
        f"{path}:12:5: spec.llm.replcas: unknown field; did you mean replicas?",
    ]
