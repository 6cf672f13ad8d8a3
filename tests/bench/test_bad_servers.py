"""Whatever a server says: a failed request with a reason, never the end of the run."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING, Any

import pytest

from redserve.bench.clients import openai_http
from redserve.bench.clients.base import Manners
from redserve.bench.clients.events import MAX_EVENT_LENGTH, EventReader, LineReader
from redserve.bench.clients.openai_http import HttpClient
from redserve.bench.questions import Question
from redserve.errors import ModelNotFound, Unavailable
from redserve.slo import End
from redserve.telemetry.foreign import MAX_SAID
from tests.bench.fake_openai import DONE, event, text, usage
from tests.bench.raw_server import MAX_SENT, RawServer, head, whole

if TYPE_CHECKING:
    from redserve.bench.outcome import Answer, Problem

QUESTION = Question((), "what is this ?", 7)
STREAM = "text/event-stream"
BEGUN = head("200 OK", f"content-type: {STREAM}")
CHUNKED = head("200 OK", f"content-type: {STREAM}", "transfer-encoding: chunked")
DEEP = "[" * 200_000
FEW_BYTES = MAX_SENT // 2
"""More than a client takes of what has no end, with all that sockets hold."""


def stream(*pieces: str) -> bytes:
    return whole("".join(pieces).encode(), kind=STREAM)


def counted(number: Any) -> bytes:
    """Three pieces of text, and what the server says of their number."""
    return stream(text("a"), text("b"), text("c", "stop"), usage(number), DONE)


async def ask(server: RawServer) -> Answer:
    async with server.running() as url, HttpClient(url, Manners()) as client:
        return await client.ask(QUESTION)


async def problem_with(answer: bytes, endless: bytes = b"") -> Problem:
    server = RawServer(answer, endless=endless)
    problem = (await ask(server)).problem
    assert problem is not None
    assert problem.message.isprintable()
    assert 0 < len(problem.message) <= MAX_SAID
    assert server.num_sent < FEW_BYTES
    return problem


@pytest.mark.parametrize(
    ("answer", "reason", "message"),
    [
        (
            whole(json.dumps({"error": {"message": "no \ud800 \x1b[2J"}}).encode(), "400 X"),
            "HTTP_400",
            "no \ufffd \ufffd[2J",
        ),
        (
            stream(text("a"), event({"error": {"message": "no \ud800\n\x1b[2J"}})),
            "STREAM_ERROR",
            "no \ufffd \ufffd[2J",
        ),
        (
            head("200 OK", "content-type: \x1b[31m", "content-length: 0"),
            "NO_STREAM",
            "the answer is no event stream (content-type \ufffd[31m)",
        ),
        (head("503 \x1b[31m", "content-length: 0"), "HTTP_503", "\ufffd[31m"),
        (whole(b"\xff\x1b\xed\xa0\x80 no", "500 X"), "HTTP_500", "\ufffd" * 5 + " no"),
        (whole(b" \r\n\t", "500 X"), "HTTP_500", "X"),
    ],
    ids=["error", "in the stream", "content type", "status line", "invalid UTF-8", "blanks"],
)
async def test_words_of_a_server_can_be_shown(answer: bytes, reason: str, message: str):
    problem = await problem_with(answer)
    assert (problem.reason, problem.message) == (reason, message)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (stream(text("a"), f"data: {DEEP}\n\n"), "BAD_STREAM"),
        (stream(text("a"), f'data: {{"error": {DEEP}\n\n'), "BAD_STREAM"),
        (stream(text("a"), f"data: {'9' * 5000}\n\n"), "BAD_STREAM"),
        (whole(DEEP.encode(), "500 X"), "HTTP_500"),
        (whole(("{" + '"error":{' * 3000).encode(), "500 X"), "HTTP_500"),
        (whole(b"<html>" + b"<p>no</p>\n" * 5000, "502 X", "text/html"), "HTTP_502"),
        (whole(b"\xff\xfe{\x00", "500 X"), "HTTP_500"),
    ],
    ids=["deep", "deep error", "digits", "deep body", "deep objects", "html", "half UTF-16"],
)
async def test_content_that_cannot_be_read(answer: bytes, reason: str):
    problem = await problem_with(answer)
    assert (problem.end, problem.reason) == (End.FAILED, reason)


@pytest.mark.parametrize("depth", range(0, 1000, 20))
async def test_content_of_every_depth(depth: int):
    """Where reading it ends well and writing it does not is somewhere in between."""
    nested = "[" * depth + "]" * depth
    says = f'data: {{"choices": [{{"delta": {{"content": {nested}}}}}]}}\n\n'
    problem = (await ask(RawServer(stream(says, text("a", "stop"), DONE)))).problem
    assert problem is None or problem.reason == "BAD_STREAM"
    refused = await problem_with(whole(f'{{"error": {{"message": {nested}}}}}'.encode(), "500 X"))
    assert refused.reason == "HTTP_500"


@pytest.mark.parametrize(
    "number", [10**400, 10**18, -1, 0, 2.5, float("nan"), float("inf"), True, "7", [7], None]
)
async def test_counts_that_make_no_sense_are_not_told(number: Any):
    answer = await ask(RawServer(counted(number)))
    assert answer.problem is None
    assert (answer.num_tokens, answer.counted) == (3, False)


@pytest.mark.parametrize(
    ("answer", "endless", "reason"),
    [
        (BEGUN, b"data: " + b"x" * 2**16, "BAD_STREAM"),
        (BEGUN, b"data: x\n" * 2**13, "BAD_STREAM"),
        (BEGUN, b"data:\n" * 2**13, "BAD_STREAM"),
        (head("500 X"), b"x" * 2**16, "HTTP_500"),
        (b"HTTP/1.1 200 OK\r\nx: ", b"y" * 2**16, "CONNECTION"),
        (b"HTTP/1.1 200 OK\r\n", b"x: y\r\n" * 2**13, "CONNECTION"),
        (CHUNKED + b"0\r\n", b"x: y\r\n" * 2**13, "CONNECTION"),
    ],
    ids=["line", "event", "empty data", "error", "header", "headers", "trailers"],
)
async def test_what_has_no_end_is_not_waited_for(answer: bytes, endless: bytes, reason: str):
    problem = await problem_with(answer, endless)
    assert (problem.end, problem.reason) == (End.FAILED, reason)


@pytest.mark.parametrize(
    "endless",
    [b"\n" * 999, b": x\n\n" * 99, b"data: {}\n\n" * 99, text("a").encode() * 9],
    ids=["lines", "comments", "events", "tokens"],
)
async def test_a_stream_without_an_end_has_a_deadline(endless: bytes):
    server = RawServer(BEGUN, endless=endless)
    async with server.running() as url, HttpClient(url, Manners(timeout_s=0.3)) as client:
        problem = (await client.ask(QUESTION)).problem
    assert problem is not None
    assert (problem.end, problem.reason) == (End.EXPIRED, "DEADLINE_EXCEEDED")


def test_lines_and_events_have_a_bound():
    lines = LineReader()
    assert lines.feed(b"x" * MAX_EVENT_LENGTH) == []
    with pytest.raises(ValueError, match="a line has more than"):
        lines.feed(b"x")
    events = EventReader()
    for _ in range(MAX_EVENT_LENGTH // 2**10):
        assert events.feed("data:" + "x" * (2**10 - 1)) is None
    with pytest.raises(ValueError, match="an event has more than"):
        events.feed("data:")


def test_a_bound_is_for_one_line_and_one_event():
    lines, events = LineReader(), EventReader()
    long = "x" * (MAX_EVENT_LENGTH - 10)
    line = f'data: "{long}'.encode()
    for _ in range(3):
        assert lines.feed(line) == []
        assert lines.feed(b'"\n\n') == [f'data: "{long}"', ""]
        assert events.feed(f"data: {' ' * len(long)}") is None
        assert events.feed("") is None


BOMB = gzip.compress(gzip.compress(b"\0" * 2**27))
"""Of 128 MiB; a few hundred bytes."""


@pytest.mark.parametrize("status", ["200 OK", "500 X"])
async def test_nothing_is_decompressed(status: str):
    fields = (f"content-type: {STREAM}", f"content-length: {len(BOMB)}")
    problem = await problem_with(head(status, "content-encoding: gzip, gzip", *fields) + BOMB)
    if status == "200 OK":
        assert problem.reason == "NO_STREAM"
        assert problem.message == "the answer is compressed (gzip, gzip), which nobody asked for"
    else:
        assert (problem.reason, problem.message) == ("HTTP_500", "X")


async def test_a_body_that_says_it_is_not_compressed_is_read():
    body = "".join((text("a"), text("b", "stop"), DONE)).encode()
    answer = head("200 OK", "content-encoding: Identity", f"content-length: {len(body)}") + body
    assert (await ask(RawServer(answer))).problem is None


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (head("101 Switching", "upgrade: x", "connection: upgrade") + b"xx", "CONNECTION"),
        (head("204 No Content"), "HTTP_204"),
        (head("304 Not Modified", "content-length: 7"), "HTTP_304"),
        (head("999 X", "content-length: 0"), "HTTP_999"),
        (head("000 X", "content-length: 0"), "CONNECTION"),
        (head("503 X", "content-length: 0", "retry-after: -" + "9" * 400), "HTTP_503"),
        (head("429 X", "content-length: 0", "retry-after: \x1b"), "HTTP_429"),
        (head("200 OK", "content-length: -1"), "CONNECTION"),
        (head("200 OK", "content-length: " + "9" * 400), "CONNECTION"),
        (head("200 OK", "content-length: 99") + b"data: ", "CONNECTION"),
        (CHUNKED + b"zz\r\n", "CONNECTION"),
        (CHUNKED + b"-5\r\nabcde\r\n", "CONNECTION"),
        (CHUNKED + b"f" * 40 + b"\r\n", "CONNECTION"),
        (CHUNKED + b"ffff\r\ndata: ", "CONNECTION"),
        (b"data: {}\n\n", "CONNECTION"),
        (b"", "CONNECTION"),
        (b"\0" * 64, "CONNECTION"),
    ],
)
async def test_what_is_hardly_http(answer: bytes, reason: str):
    assert (await problem_with(answer)).reason == reason


@pytest.mark.parametrize(
    "location",
    ["http://[bad", "javascript:1", "//[::1", "http://xn--/", "http://a:99999999/", "\x7f", "",
     "http://" + "a" * 70_000, "/v1/elsewhere"],
)  # fmt: skip
async def test_nobody_follows_a_server_elsewhere(location: str):
    answer = head("307 Elsewhere", f"location: {location}", "content-length: 0")
    problem = await problem_with(answer)
    assert (problem.reason, problem.message) == ("HTTP_307", "Elsewhere")
    with pytest.raises(Unavailable, match="/models answers 307"):
        await ask(RawServer(models=answer))


async def test_no_cookie_is_kept_and_nothing_compressed_is_asked_for():
    body = "".join((text("a", "stop"), DONE)).encode()
    server = RawServer(
        head("200 OK", "set-cookie: a=b; max-age=" + "9" * 99, f"content-length: {len(body)}")
        + body
    )
    async with server.running() as url, HttpClient(url, Manners()) as client:
        for _ in range(2):
            assert (await client.ask(QUESTION)).problem is None
    assert len(server.asked) == 2
    for asked in server.asked:
        assert b"cookie" not in asked.lower()
        assert b"\r\naccept-encoding: identity\r\n" in asked.lower()


async def test_what_a_library_makes_of_an_answer_does_not_end_the_run(
    monkeypatch: pytest.MonkeyPatch,
):
    def fail(_lines: LineReader, _data: bytes) -> list[str]:
        raise AssertionError("a bug \x1b[2J")

    monkeypatch.setattr(LineReader, "feed", fail)
    problem = await problem_with(stream(text("a", "stop"), DONE))
    assert (problem.end, problem.reason) == (End.FAILED, "BAD_ANSWER")
    assert problem.message == "AssertionError: a bug \ufffd[2J"


async def test_what_a_library_makes_of_a_list_of_models_is_told(monkeypatch: pytest.MonkeyPatch):
    async def fail(_response: object, _num_bytes: int) -> bytes:
        raise AssertionError("a bug \x1b[2J")

    monkeypatch.setattr(openai_http, "beginning", fail)
    with pytest.raises(Unavailable, match="does not answer: a bug \ufffd\\[2J"):
        await ask(RawServer())


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>", b"[]", b"5", b'{"data": "abc"}', b'{"data": {"0": 1}}', b'{"data": [5]}',
     b'{"data": [[]]}', b'{"data": [{"id": null}]}', b'{"data": [{"id": ""}]}',
     b'{"data": [{"id": [1]}]}', b"\xff\xfe", DEEP.encode(), b"9" * 5000,
     b'{"data": [{"id": "a"}], "x": "' + b"x" * 2**22 + b'"}'],
)  # fmt: skip
async def test_lists_of_models_that_are_none(body: bytes):
    with pytest.raises(ModelNotFound, match="lists no model; choose one"):
        await ask(RawServer(models=whole(body)))


@pytest.mark.parametrize(
    "models",
    [b"nothing of HTTP \x1b[2J\r\n\r\n", head("200 OK", "content-length: x"), CHUNKED + b"zz\r\n"],
)
async def test_lists_of_models_that_are_hardly_http(models: bytes):
    with pytest.raises(Unavailable, match="does not answer") as caught:
        await ask(RawServer(models=models))
    assert str(caught.value).isprintable()


async def test_a_list_of_models_that_never_comes(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(openai_http, "_MODELS_TIMEOUT_S", 0.2)
    for models in (b"", head("200 OK", "content-length: 9") + b"{"):
        with pytest.raises(Unavailable, match=r"does not answer: not within 0\.2 s"):
            await ask(RawServer(models=models, hangs=True))


async def test_the_name_of_a_model_is_shown_safely_and_sent_as_it_is():
    name = "m\ud800\x1b[31m" + "x" * 1000
    listed = json.dumps({"data": [{"id": name}]}).encode()
    server = RawServer(stream(text("a", "stop"), DONE), models=whole(listed))
    async with server.running() as url, HttpClient(url, Manners()) as client:
        assert client.model.startswith("m\ufffd\ufffd[31mx")
        assert len(client.model) <= MAX_SAID
        assert (await client.ask(QUESTION)).problem is None
    assert json.loads(server.bodies[0])["model"] == name
