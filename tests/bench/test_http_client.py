"""The client of OpenAI-compatible servers, against our router and against peers of all sorts."""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redserve.bench.clients import openai_http
from redserve.bench.clients.base import Manners, Stopwatch
from redserve.bench.clients.events import EventReader, LineReader, Piece, read_data
from redserve.bench.clients.openai_http import HttpClient
from redserve.bench.outcome import Outcome
from redserve.bench.pictures import PictureSize, draw_png
from redserve.bench.questions import Question
from redserve.errors import ConfigError, ModelNotFound, Unavailable
from redserve.slo import End
from tests.bench.fake_openai import DONE, WHOLE, FakeOpenAi, event, text, usage
from tests.router.cluster import MODEL, cluster

if TYPE_CHECKING:
    from pathlib import Path

    from redserve.bench.outcome import Answer

PICTURE = draw_png(PictureSize(32, 32), "a")
QUESTION = Question((PICTURE,), "what is this ?", 7)


async def ask_piece_by_piece(server: FakeOpenAi, monkeypatch: pytest.MonkeyPatch) -> Outcome:
    """The second piece is sent when the client has seen the first."""
    seen = asyncio.Event()

    class Watch(Stopwatch):
        def note(self, num_tokens: int = 1, *, length: int = 0, total: int | None = None) -> None:
            super().note(num_tokens, length=length, total=total)
            seen.set()

    async def hold(number: int) -> None:
        if number == 1:
            await seen.wait()

    monkeypatch.setattr(openai_http, "Stopwatch", Watch)
    server.before_piece = hold
    return outcome_of(await ask(server))


async def ask(server: FakeOpenAi, manners: Manners | None = None) -> Answer:
    async with server.running() as url, HttpClient(url, manners or Manners()) as client:
        return await client.ask(QUESTION)


async def test_a_whole_answer_of_our_router():
    async with cluster() as c, HttpClient(f"{c.http}/v1", Manners()) as client:
        assert client.model == MODEL
        answer = await client.ask(QUESTION)
        assert answer.problem is None
        assert (answer.num_tokens, answer.counted) == (5, True)
        assert answer.first_token_s is not None
        assert answer.last_token_s is not None
        assert answer.start_s < answer.first_token_s <= answer.last_token_s <= answer.end_s
        (request,) = c.llms[0].journal.all("generate")
        assert request.sampling.max_tokens == 7
        assert len(request.items) == 1


async def test_what_is_asked():
    server = FakeOpenAi()
    async with server.running() as url:
        manners = Manners(model="other", temperature=0.5, ignore_eos=True)
        async with HttpClient(url + "/", manners, api_key="secret") as client:
            await client.ask(QUESTION)
    (body,) = server.bodies
    assert server.keys == ["Bearer secret"]
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("other", 0.5, 7)
    assert body["ignore_eos"] is True
    image, words = body["messages"][0]["content"]
    assert words == {"type": "text", "text": "what is this ?"}
    head, _, data = image["image_url"]["url"].partition(",")
    assert head == "data:image/png;base64"
    assert base64.b64decode(data) == PICTURE


async def test_what_surrounds_the_client_does_not_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A proxy would be what is measured, and a password of ~/.netrc is not this server's."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    for scheme in ("http", "https", "all"):
        for name in (f"{scheme}_proxy", f"{scheme}_proxy".upper()):
            monkeypatch.setenv(name, "http://127.0.0.1:1")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    server = FakeOpenAi()
    answer = await ask(server)
    assert answer.problem is None
    assert server.keys == [None]


async def test_fields_that_not_every_server_knows_are_left_out():
    server = FakeOpenAi()
    await ask(server)
    assert "ignore_eos" not in server.bodies[0]
    assert server.keys == [None]


async def test_a_server_without_counts():
    server = FakeOpenAi()
    server.pieces = (text("one"), text(" two"), text("", "length"), DONE)
    answer = await ask(server)
    assert answer.problem is None
    assert (answer.num_tokens, answer.counted) == (2, False)


async def test_thoughts_before_the_answer_are_tokens():
    server = FakeOpenAi()
    thought = event({"choices": [{"delta": {"reasoning_content": "hm"}}]})
    server.pieces = (thought, text("one", "stop"), DONE)
    assert (await ask(server)).num_tokens == 2


@pytest.mark.parametrize(
    "pieces",
    [(DONE,), (text("", "stop"), DONE), (text("", "stop"), usage(0), DONE), (usage(50), DONE)],
)
async def test_an_answer_without_a_token_is_a_failure(pieces: tuple[str, ...]):
    server = FakeOpenAi()
    server.pieces = pieces
    answer = await ask(server)
    assert answer.problem is not None
    assert (answer.problem.end, answer.problem.reason) == (End.FAILED, "NO_TOKEN")
    assert (answer.first_token_s, answer.num_tokens) == (None, 0), "what is counted did not come"


def outcome_of(answer: Answer) -> Outcome:
    return Outcome(0, 1, answer.start_s, 60.0, answer)


async def test_an_answer_in_one_piece_has_no_pace():
    server = FakeOpenAi()
    server.pieces = (text("all of it at once", "stop"), usage(40), DONE)
    found = outcome_of(await ask(server))
    assert found.is_complete
    assert found.answer.num_tokens == 40
    assert found.is_in_one_piece
    assert found.tpot_s is None


async def test_pieces_that_were_sent_at_once_are_one():
    server = FakeOpenAi()
    server.pieces = ("".join(text(f"{n} ") for n in range(40)) + text("", "stop") + DONE,)
    found = outcome_of(await ask(server))
    assert found.answer.num_tokens == 40
    assert found.is_in_one_piece
    assert found.tpot_s is None


async def test_tokens_of_the_first_piece_do_not_quicken_the_pace(monkeypatch: pytest.MonkeyPatch):
    server = FakeOpenAi()
    server.pieces = (text("ninety-nine" * 9), text("the last"), text("", "stop"), usage(100), DONE)
    found = await ask_piece_by_piece(server, monkeypatch)
    answer = found.answer
    assert answer.num_first >= 90
    assert answer.first_token_s is not None
    assert answer.last_token_s is not None
    assert found.tpot_s is not None
    assert found.tpot_s >= (answer.last_token_s - answer.first_token_s) / 10


async def test_a_service_that_counts_as_it_goes(monkeypatch: pytest.MonkeyPatch):
    server = FakeOpenAi()
    first = {"choices": [{"delta": {"content": "a"}}], "usage": {"completion_tokens": 7}}
    server.pieces = (event(first), text("b" * 50), usage(9), DONE)
    found = await ask_piece_by_piece(server, monkeypatch)
    assert (found.answer.num_tokens, found.answer.num_first) == (9, 7)


async def test_text_with_line_ends_that_are_none_of_the_stream():
    server = FakeOpenAi()
    content = {"choices": [{"delta": {"content": "one\u2028two\x85"}, "finish_reason": "stop"}]}
    server.pieces = (f"data: {json.dumps(content, ensure_ascii=False)}\n\n", DONE)
    answer = await ask(server)
    assert answer.problem is None
    assert answer.first_token_s is not None


@pytest.mark.parametrize(
    ("status", "end"),
    [(400, End.REFUSED), (401, End.REFUSED), (404, End.REFUSED), (422, End.REFUSED),
     (429, End.FAILED), (500, End.FAILED), (503, End.FAILED)],
)  # fmt: skip
async def test_a_refusal(status: int, end: End):
    server = FakeOpenAi()
    server.status = status
    server.refusal = json.dumps({"error": {"message": "no"}})
    problem = (await ask(server)).problem
    assert problem is not None
    assert (problem.end, problem.reason, problem.message) == (end, f"HTTP_{status}", "no")


@pytest.mark.parametrize(
    ("body", "message"),
    [("busy", "busy"), ('{"detail": "x"}', "{'detail': 'x'}"), ("", "Service Unavailable"),
     ('{"error": "x"}', "x")],
)  # fmt: skip
async def test_refusals_of_other_shapes(body: str, message: str):
    server = FakeOpenAi()
    server.status = 503
    server.refusal = body
    problem = (await ask(server)).problem
    assert problem is not None
    assert problem.message == message


@pytest.mark.parametrize(
    ("pieces", "reason"),
    [
        ((text("one"), 'event: error\ndata: {"error": {"message": "x"}}\n\n'), "STREAM_ERROR"),
        ((text("one"),), "TRUNCATED"),
        ((text("one"), "data: {broken\n\n"), "BAD_STREAM"),
        ((text("one"), "data: 5\n\n"), "BAD_STREAM"),
    ],
)
async def test_an_answer_that_breaks_off(pieces: tuple[str, ...], reason: str):
    server = FakeOpenAi()
    server.pieces = pieces
    answer = await ask(server)
    assert answer.problem is not None
    assert (answer.problem.end, answer.problem.reason) == (End.FAILED, reason)
    assert answer.first_token_s is not None


WHOLE_JSON = json.dumps(
    {"choices": [{"message": {"content": "one"}, "finish_reason": "stop"}], "usage": {}}, indent=1
)


@pytest.mark.parametrize(
    ("content_type", "body", "said"),
    [
        ("application/json", WHOLE_JSON, "content-type application/json"),
        (
            "text/html; charset=utf-8",
            "<html>\n\n</html>\n",
            "content-type text/html; charset=utf-8",
        ),
        (None, "ok\n\n", "no content-type"),
        ("application/json", "", "content-type application/json"),
        ("x/" + "y" * 5000, "", f"content-type x/{'y' * 97}…"),
    ],
    ids=["streams nothing", "html", "no type", "empty", "long type"],
)
async def test_an_answer_that_is_no_stream(content_type: str | None, body: str, said: str):
    server = FakeOpenAi()
    server.content_type, server.pieces = content_type, (body,)
    answer = await ask(server)
    assert answer.problem is not None
    assert (answer.problem.end, answer.problem.reason) == (End.FAILED, "NO_STREAM")
    assert answer.problem.message == f"the answer is no event stream ({said})"
    assert (answer.first_token_s, answer.num_tokens) == (None, 0)


@pytest.mark.parametrize("content_type", ["text/event-stream; charset=utf-8", "Text/Event-Stream"])
async def test_a_stream_that_brings_nothing_broke_off(content_type: str):
    server = FakeOpenAi()
    server.content_type, server.pieces = content_type, (": hello\n\n",)
    problem = (await ask(server)).problem
    assert problem is not None
    assert problem.reason == "TRUNCATED"


@pytest.mark.parametrize("content_type", ["text/plain", None])
async def test_a_stream_that_calls_itself_otherwise_is_read(content_type: str | None):
    server = FakeOpenAi()
    server.content_type = content_type
    answer = await ask(server)
    assert answer.problem is None
    assert answer.num_tokens == 5
    server.pieces = (text("one"),)
    problem = (await ask(server)).problem
    assert problem is not None
    assert problem.reason == "TRUNCATED"


async def test_a_deadline():
    server = FakeOpenAi()

    async def hang(number: int) -> None:
        if number == 2:
            await asyncio.Event().wait()

    server.before_piece = hang
    answer = await ask(server, Manners(timeout_s=0.5))
    assert answer.problem is not None
    assert (answer.problem.end, answer.problem.reason) == (End.EXPIRED, "DEADLINE_EXCEEDED")
    assert answer.end_s - answer.start_s >= 0.4


async def test_nobody_answers():
    with pytest.raises(Unavailable, match="does not answer"):
        await HttpClient("http://127.0.0.1:1/v1", Manners()).__aenter__()
    async with HttpClient("http://127.0.0.1:1/v1", Manners(model="peer")) as client:
        problem = (await client.ask(QUESTION)).problem
    assert problem is not None
    assert (problem.end, problem.reason) == (End.FAILED, "CONNECTION")


async def test_a_server_that_lists_nothing():
    server = FakeOpenAi()
    server.models = ()
    with pytest.raises(ModelNotFound, match="lists no model"):
        await ask(server)


def test_no_address():
    with pytest.raises(ConfigError, match="--url: no address"):
        HttpClient("http://[::1/v1", Manners())


def test_without_httpx(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "httpx", None)
    with pytest.raises(ConfigError, match=r"install redserve\[router\]"):
        HttpClient("http://127.0.0.1:1/v1", Manners())


LINES = st.lists(st.sampled_from(["", ": comment", "event: x", "id: 1", "retry: 5", "data"]))


@given(LINES)
def test_lines_without_data_mean_nothing(lines: list[str]):
    reader = EventReader()
    assert [reader.feed(line) for line in lines] == [None] * len(lines)


@given(LINES.filter(lambda lines: "data" not in lines))
def test_an_event_among_other_lines(lines: list[str]):
    reader = EventReader()
    for line in lines:
        reader.feed(line)
    assert reader.feed('data:{"choices": [{"delta":') is None
    assert reader.feed('data: {"content": "one"}}]}') is None
    assert reader.feed("") == Piece(text="one")


@pytest.mark.parametrize("piece", WHOLE)
def test_events_do_not_mind_how_lines_end(piece: str):
    reader = EventReader()
    found = [reader.feed(line) for line in piece.replace("\n", "\r\n").splitlines()]
    assert found[-1] is not None


@given(st.lists(st.sampled_from(["a", "\u2028", "é", "\r", "\n", "\r\n"])), st.data())
def test_lines_do_not_mind_how_bytes_come(parts: list[str], data: st.DataObject):
    whole = "".join(parts).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=5)))
    reader = LineReader()
    found = [
        line
        for begin, end in pairwise([0, *cuts, len(whole)])
        for line in reader.feed(whole[begin:end])
    ]
    assert found == "".join(parts).replace("\r\n", "\n").replace("\r", "\n").split("\n")[:-1]


def test_strange_shapes_bring_nothing():
    for content in ({}, {"choices": None}, {"choices": [5]}, {"choices": [{"delta": None}]},
                    {"usage": 5}, {"usage": {"completion_tokens": "5"}},
                    {"usage": {"completion_tokens": True}},
                    {"usage": {"completion_tokens": -1}}):  # fmt: skip
        assert read_data(json.dumps(content)) == Piece()
    assert read_data(usage(5).removeprefix("data: ")).num_output_tokens == 5
