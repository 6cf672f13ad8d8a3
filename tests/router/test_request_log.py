"""What a request leaves in the log and in its span, and what of it is never there."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import grpc
import httpx
import pytest

from redserve.telemetry.log import configure
from tests.router.cluster import MODEL, cluster, picture, question
from tests.router.fake_encoder import Hang
from tests.support.otlp import Receiver
from tests.telemetry.test_log import _restore  # noqa: F401  # logs as they were, after each test

if TYPE_CHECKING:
    from collections.abc import Callable

    from redserve.v1 import router_pb2 as pb

    Lines = Callable[[], list[dict[str, Any]]]

SECRET = "Zebrafish"
TRACE = "0af7651916cd43dd8448eb211c80319c"
SENT = (("traceparent", f"00-{TRACE}-b7ad6b7169203331-01"),)


@pytest.fixture
def log(capfd: pytest.CaptureFixture[str], _restore: None) -> Lines:  # noqa: F811
    configure("info", "json", "router")

    def lines() -> list[dict[str, Any]]:
        written = capfd.readouterr().err.splitlines()
        ours = [json.loads(line) for line in written if line.startswith("{")]  # gRPC writes too
        return [line for line in ours if line["event"].startswith("request ")]

    return lines


async def refused(c, request: pb.GenerateRequest) -> grpc.StatusCode:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await c.ask(request, metadata=SENT)
    return caught.value.code()


async def test_an_answer_is_one_line_of_figures(log):
    async with cluster() as c:
        await c.ask(question(SECRET, picture(), request_id="r-1", max_tokens=3), metadata=SENT)
    (line,) = log()
    assert line["event"] == "request ended"
    assert line["level"] == "info"
    assert (line["request_id"], line["trace_id"], line["code"]) == ("r-1", TRACE, "OK")
    assert line["sequence_id"].startswith("r-1.")
    assert (line["model"], line["images"], line["output_tokens"]) == (MODEL, 1, 3)
    assert line["finish_reason"] == "length"
    assert 0 < line["ttft_ms"] <= line["duration_ms"]
    assert SECRET not in repr(line)


async def test_a_request_without_a_trace_has_no_trace_id(log):
    async with cluster() as c:
        await c.ask(question("a", max_tokens=1))
    (line,) = log()
    assert "trace_id" not in line
    assert len(line["request_id"]) == 32


async def test_a_mistake_names_the_field_and_quotes_nothing(log):
    asked = question("a", request_id="r-2")
    asked.messages[0].parts.add(image_url=f"http://127.0.0.1:1/{SECRET}.png")
    with Receiver() as receiver:
        options: dict[str, Any] = {"url_fetch": True, "url_allow_private": True}
        async with cluster(otlp_endpoint=receiver.endpoint, **options) as c:
            assert await refused(c, asked) is grpc.StatusCode.INVALID_ARGUMENT
            asked = question("a", request_id="r-3", model=SECRET)
            assert await refused(c, asked) is grpc.StatusCode.NOT_FOUND
            asked = question("a", request_id=f"{SECRET} with spaces")
            assert await refused(c, asked) is grpc.StatusCode.INVALID_ARGUMENT
            asked = question(request_id="r-4")
            asked.messages[0].parts.add()
            assert await refused(c, asked) is grpc.StatusCode.INVALID_ARGUMENT
        receiver.wait(lambda spans: len({s.span_id for s in spans if s.kind == "SERVER"}) == 3)
    lines = log()
    assert [line["event"] for line in lines] == [*["request ended"] * 3, "request refused"]
    assert [line["level"] for line in lines] == ["info"] * 4
    assert [line.get("request_id") for line in lines] == ["r-2", "r-3", None, "r-4"]
    assert lines[0]["field"] == "messages[0].parts[1]"
    assert lines[1]["reason"] == "MODEL_NOT_FOUND"
    assert not any("error" in line for line in lines)
    spans = receiver.spans
    mistakes = [span for span in spans if span.kind == "SERVER"]
    assert not any(span.is_error for span in mistakes)
    assert {span.attributes["error.type"] for span in mistakes} >= {"MODEL_NOT_FOUND"}
    assert SECRET not in repr([lines, spans])


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (f'{{"messages": [], "{SECRET}\\u001b[31m": 1}}', "unknown field"),
        (f'{{"messages": [], "redserve": {{"{SECRET}": 1}}}}', "unknown field"),
        ('{"messages": [], "temperature": "warm"}', "temperature"),
        ('{"messages": [{"role": "user"}, {"role": 7}]}', "messages[1].role"),
        ('{"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}',
         "messages[0].content[0].image_url"),
        ('{"messages": [], "tools": [1]}', "tools"),
        ('{"messages": [], "stop": [1]}', "stop[0]"),
        ('{"messages": [], "stream_options": {"include_usage": 1}}',
         "stream_options.include_usage"),
        (SECRET, None),
        (f'"{SECRET}"', None),
        (b" " * 2_000_000, "body"),
    ],
)  # fmt: skip
async def test_a_body_that_is_no_request_is_counted_and_logged_without_its_words(
    log, body: str | bytes, field: str | None
):
    async with cluster(max_request_bytes=1000) as c, httpx.AsyncClient() as client:
        sent = {"x-request-id": "r-9", **dict(SENT)}
        reply = await client.post(f"{c.http}/v1/chat/completions", content=body, headers=sent)
        assert reply.status_code == (413 if field == "body" else 400)
        refused = c.router.registry.get_sample_value(
            "redserve_requests_total", {"code": "INVALID_ARGUMENT"}
        )
        assert refused == 1
    (line,) = log()
    assert (line["event"], line["code"]) == ("request refused", "INVALID_ARGUMENT")
    assert (line["request_id"], line["trace_id"]) == ("r-9", TRACE)
    assert line.get("field") == field
    assert line["reason"] == ("POLICY_VIOLATION" if field == "body" else "INVALID_ARGUMENT")
    assert SECRET not in repr(line)


async def test_an_error_of_ours_is_a_warning_with_its_sentence(log):
    async with cluster(llm_grace_s=0.0, otlp_endpoint="") as c:
        await c.llms[0].kill()
        assert await refused(c, question("a", request_id="r-5")) is grpc.StatusCode.UNAVAILABLE
    (line,) = log()
    assert (line["level"], line["code"], line["reason"]) == (
        "warning",
        "UNAVAILABLE",
        "UNAVAILABLE",
    )
    assert line["error"]


async def test_a_client_that_leaves_is_no_warning(log):
    async with cluster() as c:
        c.encoders[0].act = lambda *_: Hang()
        call = c.stub.Generate(question(picture(), request_id="r-6"), metadata=SENT)
        assert (await call.read()).HasField("started")
        await c.encoders[0].journal.wait_count("encode", 1)
        call.cancel()
        await c.encoders[0].journal.wait_count("cancel", 1)  # the last that is done for it
    (line,) = log()
    assert (line["level"], line["code"], line["images"]) == ("info", "CANCELLED", 1)
    assert (line["request_id"], line["trace_id"]) == ("r-6", TRACE)
