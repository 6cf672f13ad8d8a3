"""`redserve bench` as people call it."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
import yaml

from redserve.cli import bench_options
from redserve.cli.bench_types import base_url
from redserve.cli.main import main
from redserve.local.state import ServiceState, hold
from tests.bench.fake_openai import DONE, FakeOpenAi, event, text, usage
from tests.cli.fake_router import FakeRouter, running
from tests.spec.manifests import MINIMAL

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Output = pytest.CaptureFixture[str]
FAST = ("--requests=6", "--warm-up=2", "--image-size=16", "--images=0-2")
PROMISES = [
    {"name": "first", "indicator": "TimeToFirstToken", "thresholdMilliseconds": 60000,
     "objectivePercent": 99},
    {"name": "encode", "indicator": "EncodeLatency", "thresholdMilliseconds": 50,
     "objectivePercent": 99},
]  # fmt: skip
DEADLINE_S = 40.0


@pytest.fixture(autouse=True)
def nothing_runs_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    return tmp_path / "run" / "redserve"


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    path = tmp_path / "redservice.yaml"
    spec = {**MINIMAL["spec"], "slos": PROMISES}
    path.write_text(yaml.safe_dump({**MINIMAL, "spec": spec}))
    return path


@pytest.fixture
def router() -> FakeRouter:
    return FakeRouter()


@pytest.fixture
def address(router: FakeRouter) -> Iterator[str]:
    with running(router) as address:
        yield address


@contextmanager
def peer(server: FakeOpenAi) -> Iterator[str]:
    """The server in a thread of its own; yields its base address."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    service = server.running()
    url = asyncio.run_coroutine_threadsafe(service.__aenter__(), loop).result(20)
    try:
        yield url
    finally:
        asyncio.run_coroutine_threadsafe(service.__aexit__(None, None, None), loop).result(20)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(20)
        loop.close()


def test_a_router_by_grpc(router: FakeRouter, address: str, manifest: Path, capsys: Output) -> None:
    assert main(["bench", "--address", address, "-f", str(manifest), *FAST]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"fake at {address} (gRPC)\nclosed loop, 1 at a time, 6 requests")
    assert "\n6 requests in " in shown
    assert ": 6 complete\n" in shown
    assert "goodput" in shown
    assert "\ntime to first token " in shown
    assert "from when it was due" not in shown, "in a closed loop nothing is due"
    assert "\nfirst   TimeToFirstToken    60 s    99 %     100 %" in shown
    assert "EncodeLatency is not seen from outside" in shown
    assert len(router.requests) == 8
    assert {request.sampling.max_tokens for request in router.requests} == {64}


def test_a_peer_by_http_for_machines(capsys: Output) -> None:
    server = FakeOpenAi()
    with peer(server) as url:
        arguments = ["--url", url, "--rate=500", "--json", "--prompt=hello", "--max-tokens=3-5"]
        assert main(["bench", *arguments, *FAST]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["facts"]["model"] == "peer"
    assert found["facts"]["load"].startswith("open loop, 500 requests/s (Poisson), 6 requests")
    assert found["summary"]["num_complete"] == 6
    assert found["summary"]["num_output_tokens"] == 30
    assert found["summary"]["goodput_per_s"] is None
    assert [one["index"] for one in found["requests"]] == list(range(6))
    assert found["requests"][0]["due_s"] == 0
    for one in found["requests"]:
        assert one["ttft_s"] <= one["duration_s"]
        assert one["sent_s"] == pytest.approx(one["due_s"] + one["lag_s"])
        assert one["ttft_from_due_s"] == pytest.approx(one["ttft_s"] + one["lag_s"])
        assert one["duration_from_due_s"] == pytest.approx(one["duration_s"] + one["lag_s"])
    from_due = found["summary"]["latencies_from_due"]
    assert from_due["ttft_s"]["p99"] >= found["summary"]["latencies"]["ttft_s"]["p99"]
    assert from_due["duration_s"]["count"] == 6
    assert {body["max_tokens"] for body in server.bodies} <= {3, 4, 5}


def test_the_same_seed_asks_the_same() -> None:
    servers = [FakeOpenAi() for _ in range(3)]
    for server, seed in zip(servers, (1, 1, 2), strict=True):
        with peer(server) as url:
            assert main(["bench", "--url", url, "--json", f"--seed={seed}", *FAST]) == 0
    asked = [sorted(json.dumps(body) for body in server.bodies) for server in servers]
    assert asked[0] == asked[1] != asked[2]


def test_a_report(address: str, tmp_path: Path, capsys: Output) -> None:
    path = tmp_path / "out.html"
    assert main(["bench", "--address", address, "--report", str(path), *FAST]) == 0
    html = path.read_text()
    assert html.startswith("<!doctype html>")
    assert html.count("<svg") >= 4
    assert main(["bench", "--address", address, "--report", str(tmp_path), *FAST]) == 2
    assert "--report" in capsys.readouterr().err


def test_no_report_of_a_server_that_is_not_there(tmp_path: Path) -> None:
    fresh, old, link = tmp_path / "out.html", tmp_path / "old.html", tmp_path / "link.html"
    old.write_text("of yesterday")
    link.symlink_to(tmp_path / "nowhere.html")
    for path in (fresh, old, link):
        assert main(["bench", "--address", "127.0.0.1:1", "--report", str(path), *FAST]) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link.html", "old.html"]
    assert old.read_text() == "of yesterday"
    assert link.is_symlink()


def test_a_password_in_the_address_is_used_and_not_shown(tmp_path: Path, capsys: Output) -> None:
    server = FakeOpenAi()
    report = tmp_path / "out.html"
    with peer(server) as url:
        address = url.replace("http://", "http://me:hush-hush@")
        assert main(["bench", "--url", address, "--report", str(report), "--json", *FAST]) == 0
    told = capsys.readouterr()
    for shown in (told.out, told.err, report.read_text()):
        assert "hush" not in shown
    assert json.loads(told.out)["facts"]["target"] == f"{url} (OpenAI API)"
    assert set(server.keys) == {"Basic " + base64.b64encode(b"me:hush-hush").decode()}


def test_promises_of_the_service_that_runs_here(
    address: str, manifest: Path, nothing_runs_here: Path, capsys: Output
) -> None:
    state = ServiceState("demo", 42, str(manifest), 1.0, "ready", address, None, ())
    with hold(nothing_runs_here, "demo") as folder:
        folder.write(state)
        assert main(["bench", *FAST]) == 0
        assert "goodput" in capsys.readouterr().out
        manifest.write_text("changed")
        assert main(["bench", *FAST]) == 0
    told = capsys.readouterr()
    assert "goodput" not in told.out
    assert "no goodput, for the manifest cannot be read" in told.err


def test_a_service_that_refuses_everything(capsys: Output) -> None:
    server = FakeOpenAi()
    server.status = 429
    server.refusal = '{"error": {"message": "too many"}}'
    with peer(server) as url:
        assert main(["bench", "--url", url, *FAST]) == 1
    told = capsys.readouterr()
    assert "0 complete, 6 HTTP_429" in told.out
    assert "the first that failed: too many" in told.out
    assert told.err == "warm-up: too many\n"


def test_a_service_that_sends_nothing(manifest: Path, capsys: Output) -> None:
    server = FakeOpenAi()
    server.pieces = (usage(50), DONE)
    with peer(server) as url:
        assert main(["bench", "--url", url, "-f", str(manifest), *FAST]) == 1
    shown = capsys.readouterr().out
    assert "0 complete, 6 NO_TOKEN" in shown
    assert "0 requests/s   0 tokens/s   goodput 0 requests/s" in shown
    assert "6 of 6 answers ended well and held no token" in shown


BAD_WORDS = "no \ud800 \x1b[2J <b>[red]\n"
DEEP = "[" * 200_000


@pytest.mark.parametrize(
    ("pieces", "status"),
    [
        ((text("a"), event({"error": {"message": BAD_WORDS}})), 1),
        ((text("a"), f"data: {DEEP}\n\n"), 1),
        ((text("a", "stop"), usage(10**400), DONE), 0),
    ],
    ids=["words", "depth", "count"],
)
@pytest.mark.parametrize("option", ["", "--json"])
def test_nothing_that_a_server_says_hides_what_was_measured(
    pieces: tuple[str, ...], status: int, option: str, tmp_path: Path, capsys: Output
) -> None:
    server = FakeOpenAi()
    server.models = (f"name {BAD_WORDS}",)
    server.pieces = pieces
    report = tmp_path / "out.html"
    with peer(server) as url:
        arguments = ["--url", url, "--report", str(report), *FAST, *filter(None, [option])]
        assert main(["bench", *arguments]) == status
    told = capsys.readouterr()
    html = report.read_text(encoding="utf-8")
    for shown in (told.out, told.err, html):
        assert "\x1b" not in shown
        assert not shown or shown.encode()
    if option:
        assert json.loads(told.out)["facts"]["model"] == "name no \ufffd \ufffd[2J <b>[red]"
    else:
        assert told.out.startswith("name no \ufffd \ufffd[2J <b>[red] at http")
    assert "name no \ufffd \ufffd[2J &lt;b&gt;[red]" in html


def test_a_report_of_a_server_that_answers_with_a_depth(capsys: Output) -> None:
    server = FakeOpenAi()
    server.status, server.refusal = 500, DEEP
    with peer(server) as url:
        assert main(["bench", "--url", url, *FAST]) == 1
    assert "0 complete, 6 HTTP_500" in capsys.readouterr().out


def on_a_narrow_terminal(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> bytes:
    """What a terminal gets that knows ASCII only."""
    shown = io.BytesIO()
    # Only for the call: between the phases of a test pytest puts its own there.
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", io.TextIOWrapper(shown, encoding="ascii"))
        assert main(arguments) == 0
        return shown.getvalue()


def test_a_terminal_that_cannot_show_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    server = FakeOpenAi()
    server.models = ("猫",)
    with peer(server) as url:
        shown = on_a_narrow_terminal(["bench", "--url", url, *FAST], monkeypatch)
    assert shown.startswith(b"? at http")


def test_a_terminal_that_cannot_show_an_answer(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = on_a_narrow_terminal(["chat", "--address", address, "猫 again"], monkeypatch)
    assert shown.endswith(b": ? again \n")


def test_a_client_that_may_open_few_files(
    manifest: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    over = threading.Event()

    async def hang(_number: int) -> None:
        await asyncio.to_thread(over.wait, DEADLINE_S)

    monkeypatch.setattr(bench_options, "room_for_connections", lambda _most: 3)
    server = FakeOpenAi()
    server.before_piece = hang
    with peer(server) as url:
        arguments = ["bench", "--url", url, "--warm-up=0", "--images=0", "-f", str(manifest)]
        load = ["--rate=2000", "--requests=9", "--timeout=2"]
        assert main([*arguments, *load, "--json"]) == 1
        told = capsys.readouterr()
        assert main([*arguments, "--concurrency=4"]) == 2
        over.set()
    assert told.err.startswith("3 requests under way at most: this process may open few files")
    found = json.loads(told.out)
    summary = found["summary"]
    assert (summary["num_requests"], summary["reasons"]) == (3, {"DEADLINE_EXCEEDED": 3})
    assert (summary["num_unsent"], summary["unsent_reasons"]) == (6, {"CLIENT_FULL": 6})
    assert [one["reason"] for one in found["requests"]].count("CLIENT_FULL") == 6
    assert [one["sent_s"] for one in found["requests"]].count(None) == 6
    assert "--concurrency: 3 at most: this process may open few files" in capsys.readouterr().err


def test_nobody_answers(capsys: Output) -> None:
    assert main(["bench", "--address", "127.0.0.1:1", *FAST]) == 1
    assert main(["bench", "--url", "http://me:secret@127.0.0.1:1", *FAST]) == 1
    told = capsys.readouterr().err
    assert "http://127.0.0.1:1/v1/models does not answer" in told
    assert "secret" not in told
    assert main(["bench", *FAST]) == 2
    assert "no service runs here" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--images=9", "8 images at most"),
        ("--images=3-1", "no range"),
        ("--max-tokens=0", "must be 1 or more"),
        ("--rate=0", "must be above 0"),
        ("--rate=nan", "write a number"),
        ("--concurrency=0", "must be 1 or more"),
        ("--image-size=0", "pixels along each side"),
        ("--image-size=x5", "no whole number"),
        ("--url=ftp://a", "argument --url: write http://HOST:PORT/v1"),
        ("--url=http://[::1", "argument --url: write http://HOST:PORT/v1"),
        ("--url=http://a:b/v1", "argument --url: write http://HOST:PORT/v1"),
        ("--url=http://a b/v1", "argument --url: write http://HOST:PORT/v1"),
        ("--url=http://a/v1#b", "argument --url: write http://HOST:PORT/v1"),
        ("--seed=-1", "no whole number"),
    ],
)
def test_what_makes_no_sense(argument: str, message: str, capsys: Output) -> None:
    with pytest.raises(SystemExit):
        main(["bench", argument])
    assert message in capsys.readouterr().err


def test_files_that_cannot_be_used(address: str, tmp_path: Path, capsys: Output) -> None:
    text = tmp_path / "a.png"
    text.write_text("no picture")
    for option in (f"--image={text}", f"--image={tmp_path}/none", f"--api-key-file={tmp_path}",
                   f"--file={tmp_path}/none"):  # fmt: skip
        assert main(["bench", "--address", address, option]) == 2
        assert str(tmp_path) in capsys.readouterr().err


@pytest.mark.parametrize("key", ["k\u00e9", "two\nlines", "\x1b[2J"])
def test_what_is_no_key(key: str, tmp_path: Path, capsys: Output) -> None:
    file = tmp_path / "key"
    file.write_text(key)
    assert main(["bench", "--url", "http://127.0.0.1:1", f"--api-key-file={file}"]) == 2
    assert "--api-key-file" in capsys.readouterr().err


def test_base_addresses() -> None:
    assert base_url("http://127.0.0.1:8000") == "http://127.0.0.1:8000/v1"
    assert base_url("https://a.example/api/v1/") == "https://a.example/api/v1"


def test_an_interruption_tells_what_was_measured(router: FakeRouter, address: str) -> None:
    command = [sys.executable, "-m", "redserve.cli.main", "bench", "--address", address]
    command += ["--requests=5", "--warm-up=0", "--images=0", "--prompt=for ever", "--concurrency=2"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ)
    ) as process:
        try:
            assert router.waiting.wait(DEADLINE_S)
            process.send_signal(signal.SIGINT)
            shown, told = process.communicate(timeout=DEADLINE_S)
        finally:
            process.kill()
    assert process.returncode == 130, told
    assert "0 requests in" in shown
    assert "Traceback" not in told
    assert router.cancelled.wait(DEADLINE_S), "the service is not left with the work"
