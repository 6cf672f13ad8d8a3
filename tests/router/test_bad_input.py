"""What is wrong is refused with its place and the mend, by gRPC and by HTTP."""

from __future__ import annotations

import asyncio
import base64
import io
import random
import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc
import httpx
import pytest
from PIL import Image

from redserve.errors import InvalidArgument
from redserve.v1 import router_pb2 as pb
from redserve.wire.channel import open_channel
from redserve.wire.errors import from_rpc_error
from tests.router.cluster import cluster, picture, question
from tests.router.fake_encoder import Fail, Publish

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

LIMITS = {
    "max_images": 3,
    "max_image_bytes": 20_000,
    "max_image_pixels": 1_000_000,
    "max_request_bytes": 40_000,
}


def bomb() -> bytes:
    """A PNG of a few bytes that says it has 50,000 x 50,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        checksum = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels)


def noise(num_bytes: int) -> bytes:
    """A valid picture of about this many bytes."""
    side = int((num_bytes / 3) ** 0.5) + 1
    data = random.Random(0).randbytes(side * side * 3)
    buffer = io.BytesIO()
    Image.frombytes("RGB", (side, side), data).save(buffer, "PNG")
    return buffer.getvalue()


@dataclass(frozen=True)
class Bad:
    """A picture that is refused, with a word of the reason."""

    name: str
    data: bytes
    word: str
    reason: str = "INVALID_ARGUMENT"


PICTURES = [
    Bad("no bytes", b"", "0 bytes"),
    Bad("not a picture", b"GIF? no, prose" * 20, "no image in one of"),
    Bad("svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "no image in one of"),
    Bad("psd", b"8BPS\x00\x01" + bytes(60), "no image in one of"),
    Bad("truncated header", picture()[:20], "truncated"),
    Bad("truncated jpeg header", picture(kind="JPEG")[:30], "truncated"),
    Bad("truncated body", picture(size=(64, 64), kind="BMP")[:-2000], "truncated"),
    Bad("bomb", bomb(), "50000", "POLICY_VIOLATION"),
    Bad("too many pixels", picture(size=(1001, 1000)), "1001000 pixels", "POLICY_VIOLATION"),
    Bad("too many bytes", noise(21_000), "more than", "POLICY_VIOLATION"),
]


@pytest.mark.parametrize("bad", PICTURES, ids=lambda bad: bad.name)
async def test_bad_picture(bad):
    async with cluster(**LIMITS) as c:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await c.ask(question("look", picture(), bad.data), timeout=10)
        error = from_rpc_error(caught.value)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert error.reason == bad.reason
        assert error.field == "messages[0].parts[2]"
        assert bad.word in error.message

        url = "data:image/png;base64," + base64.b64encode(bad.data).decode()
        good = "data:image/png;base64," + base64.b64encode(picture()).decode()
        body = {
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "look"},
                        {"type": "image_url", "image_url": {"url": good}},
                        {"type": "image_url", "image_url": {"url": url}},
                    ],
                }
            ]
        }
        async with httpx.AsyncClient(base_url=c.http) as client:
            reply = await client.post("/v1/chat/completions", json=body)
        assert reply.status_code == 400
        said = reply.json()["error"]
        assert said["param"] == "messages[0].content[2]"
        assert said["code"] == bad.reason.lower()
        assert said["type"] == "invalid_request_error"
        assert bad.word in said["message"]
        assert c.llms[0].journal.all("generate") == [], "nothing may reach an LLM replica"


async def test_truncated_body_behind_a_known_size_ends_the_request_with_its_place():
    """The size is known, so only the encoder finds out, while the LLM replica already waits."""
    async with cluster() as c:
        c.encoders[0].act = lambda _, item: (
            Fail("INVALID_ARGUMENT", "the image is truncated") if item.index == 1 else Publish()
        )
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await c.ask(question(picture("red"), "and", picture("blue")), timeout=10)
        error = from_rpc_error(caught.value)
        assert error.reason == "INVALID_ARGUMENT"
        assert error.field == "messages[0].parts[2]"
        await c.llms[0].journal.wait_count("generate_cancelled", 1)


def _with_sampling(**sampling: Any) -> pb.GenerateRequest:
    request = question("hello")
    for name, value in sampling.items():
        if isinstance(value, list):
            getattr(request.sampling, name).extend(value)
        else:
            setattr(request.sampling, name, value)
    return request


def _with_role(role: str) -> pb.GenerateRequest:
    request = question("hello")
    request.messages[0].role = role
    return request


def _with_empty_part() -> pb.GenerateRequest:
    request = question("hello")
    request.messages[0].parts.add()
    return request


def _with_url(kind: str, url: str) -> pb.GenerateRequest:
    request = question("hello")
    request.messages[0].parts.add(**{kind: url})
    return request


QUESTIONS = [
    ("no messages", pb.GenerateRequest(), "messages", "INVALID_ARGUMENT"),
    ("unknown role", _with_role("robot"), "messages[0].role", "INVALID_ARGUMENT"),
    ("no role", _with_role(""), "messages[0].role", "INVALID_ARGUMENT"),
    ("no parts", question(), "messages[0].parts", "INVALID_ARGUMENT"),
    ("empty part", _with_empty_part(), "messages[0].parts[1]", "INVALID_ARGUMENT"),
    (
        "negative max_tokens",
        question("hello", max_tokens=-1),
        "sampling.max_tokens",
        "INVALID_ARGUMENT",
    ),
    ("zero max_tokens", question("hello", max_tokens=0), "sampling.max_tokens", "INVALID_ARGUMENT"),
    (
        "temperature",
        _with_sampling(temperature=-0.1),
        "sampling.temperature",
        "INVALID_ARGUMENT",
    ),
    ("top_p", _with_sampling(top_p=0.0), "sampling.top_p", "INVALID_ARGUMENT"),
    ("nan", _with_sampling(top_p=float("nan")), "sampling.top_p", "INVALID_ARGUMENT"),
    ("stops", _with_sampling(stop=["x"] * 17), "sampling.stop", "INVALID_ARGUMENT"),
    ("logprobs", _with_sampling(num_logprobs=21), "sampling.num_logprobs", "INVALID_ARGUMENT"),
    ("unknown model", question("hello", model="gpt-7"), "model", "MODEL_NOT_FOUND"),
    ("long id", question("hello", request_id="x" * 129), "request_id", "INVALID_ARGUMENT"),
    ("odd id", question("hello", request_id="a\nb"), "request_id", "INVALID_ARGUMENT"),
    ("too long prompt", question("hello " * 600), "messages", "CONTEXT_TOO_LONG"),
    ("absurd prompt", question("a" * 100_000), "messages", "CONTEXT_TOO_LONG"),
    (
        "too long output",
        question("hello", max_tokens=511),
        "sampling.max_tokens",
        "CONTEXT_TOO_LONG",
    ),
    (
        "too many images",
        question(*[picture()] * 4),
        "messages[0].parts[3]",
        "POLICY_VIOLATION",
    ),
    (
        "too much together",
        question(*[noise(18_000)] * 3),
        "messages[0].parts[2]",
        "POLICY_VIOLATION",
    ),
    (
        "too large an embedding",
        question(picture(size=(320, 320))),
        "messages[0].parts[0]",
        "POLICY_VIOLATION",
    ),
    (
        "reserved token",
        question("see <|image_pad|> there"),
        "messages[0].parts[0].text",
        "INVALID_ARGUMENT",
    ),
    (
        "fetching is off",
        _with_url("image_url", "http://example.org/cat.png"),
        "messages[0].parts[1]",
        "POLICY_VIOLATION",
    ),
    (
        "no base64",
        _with_url("image_data_url", "data:image/png;base64,####"),
        "messages[0].parts[1]",
        "INVALID_ARGUMENT",
    ),
    (
        "no data url",
        _with_url("image_data_url", "data:image/png,abc"),
        "messages[0].parts[1]",
        "INVALID_ARGUMENT",
    ),
    (
        "data url too large",
        _with_url("image_data_url", "data:;base64," + "A" * 40_000),
        "messages[0].parts[1]",
        "POLICY_VIOLATION",
    ),
]


@pytest.mark.parametrize(
    ("request_", "field", "reason"),
    [case[1:] for case in QUESTIONS],
    ids=[case[0] for case in QUESTIONS],
)
async def test_bad_question(request_, field, reason):
    async with cluster(**LIMITS) as c:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await c.ask(request_, timeout=10)
        error = from_rpc_error(caught.value)
        assert (error.reason, error.field) == (reason, field)
        assert error.message
        assert c.llms[0].journal.all("generate") == []
        assert c.encoders[0].journal.all("encode") == []


def _chat(**fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "hello"}], **fields}


def _content(content: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": content}]}


BODIES = [
    ("no object", [], None),
    ("no messages", {}, "messages"),
    ("empty messages", {"messages": []}, "messages"),
    ("messages no list", {"messages": "hello"}, "messages"),
    ("role missing", {"messages": [{"content": "x"}]}, "messages[0].role"),
    ("unknown role", {"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
    ("no content", {"messages": [{"role": "user"}]}, "messages[0].content"),
    ("content no text", _content(7), "messages[0].content"),
    ("part no object", _content(["hi"]), "messages[0].content[0]"),
    ("part of unknown type", _content([{"type": "input_audio"}]), "messages[0].content[0].type"),
    ("part without text", _content([{"type": "text"}]), "messages[0].content[0].text"),
    (
        "part without url",
        _content([{"type": "image_url", "image_url": {}}]),
        "messages[0].content[0].image_url",
    ),
    ("reserved token", _content("a <|image_pad|>"), "messages[0].content"),
    ("negative max_tokens", _chat(max_tokens=-5), "max_tokens"),
    ("negative max_completion_tokens", _chat(max_completion_tokens=-5), "max_completion_tokens"),
    ("two limits", _chat(max_tokens=5, max_completion_tokens=6), "max_tokens"),
    ("huge max_tokens", _chat(max_tokens=2**70), "max_tokens"),
    ("text as number", _chat(temperature="hot"), "temperature"),
    ("top_p", _chat(top_p=1.5), "top_p"),
    ("stop of the wrong type", _chat(stop=[1]), "stop[0]"),
    ("too many stops", _chat(stop=["x"] * 17), "stop"),
    ("n", _chat(n=2), "n"),
    ("tools", _chat(tools=[{"type": "function"}]), "tools"),
    ("functions", _chat(functions=[{"name": "f"}]), "functions"),
    ("json", _chat(response_format={"type": "json_object"}), "response_format"),
    ("audio", _chat(audio={"voice": "x"}), "audio"),
    ("modalities", _chat(modalities=["text", "audio"]), "modalities"),
    ("logit_bias", _chat(logit_bias={"5": 1}), "logit_bias"),
    ("reasoning_effort", _chat(reasoning_effort="high"), "reasoning_effort"),
    ("misspelt field", _chat(temprature=1), "temprature"),
    ("top_logprobs alone", _chat(top_logprobs=2), "top_logprobs"),
    ("too many logprobs", _chat(logprobs=True, top_logprobs=21), "top_logprobs"),
    ("stream_options alone", _chat(stream_options={"include_usage": True}), "stream_options"),
    (
        "tool calls",
        {"messages": [{"role": "assistant", "content": "x", "tool_calls": [{}]}]},
        "messages[0].tool_calls",
    ),
    ("too long prompt", _content("hello " * 600), "messages"),
]


async def test_bad_bodies():
    """One router for all: each is refused before anything is dispatched."""
    async with cluster(**LIMITS) as c, httpx.AsyncClient(base_url=c.http) as client:
        for name, body, param in BODIES:
            reply = await client.post("/v1/chat/completions", json=body)
            assert reply.status_code == 400, name
            said = reply.json()["error"]
            assert said["param"] == param, (name, said)
            assert said["type"] == "invalid_request_error", name
            assert said["message"], name
            assert set(said) == {"message", "type", "param", "code"}, name
        assert c.llms[0].journal.all("generate") == []


async def test_bytes_that_are_no_message(capfd):
    async with cluster() as c, open_channel(c.router.server.address) as channel:
        for method in ("Generate", "GetOverview"):
            call: Any = channel.unary_stream(f"/redserve.v1.RouterService/{method}")
            sent_id = (("x-request-id", "no id of ours"),)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call(b"\xff\xff\xff\xff", timeout=30, metadata=sent_id).read()
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert method in str(caught.value.details())
        # One of them was to be a request.
        value = c.router.registry.get_sample_value
        assert value("redserve_requests_total", {"code": "INVALID_ARGUMENT"}) == 1
        told = capfd.readouterr().err
        assert told.count("request refused") == 1
        assert "Traceback" not in told
        assert "no id of ours" not in told


async def test_a_message_that_is_far_too_long_takes_no_memory():
    async with cluster(**LIMITS) as c, open_channel(c.router.server.address) as channel:
        call: Any = channel.unary_stream("/redserve.v1.RouterService/Generate")
        with pytest.raises(grpc.aio.AioRpcError, match="larger than max") as caught:
            await call(bytes(2 * 1024 * 1024), timeout=30).read()
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        error = from_rpc_error(caught.value)
        assert isinstance(error, InvalidArgument), "no later try would be taken"
        assert (
            c.router.registry.get_sample_value(
                "redserve_requests_total", {"code": "INVALID_ARGUMENT"}
            )
            == 0
        )


async def test_a_limit_that_grpc_cannot_count_is_no_limit():
    async with cluster(max_request_bytes=4 * 1024**3) as c:
        assert (await c.ask(question(picture("red")))).finished


async def test_harmless_fields_are_taken():
    async with cluster() as c, httpx.AsyncClient(base_url=c.http) as client:
        body = _chat(
            user="me",
            metadata={"a": "b"},
            store=False,
            n=1,
            response_format={"type": "text"},
            tools=None,
            logit_bias={},
            seed=-3,
            top_k=-1,
            service_tier="auto",
        )
        reply = await client.post("/v1/chat/completions", json=body)
        assert reply.status_code == 200, reply.text
        sampling = c.llms[0].journal.all("generate")[0].sampling
        assert sampling.seed == 2**64 - 3
        assert sampling.top_k == 0


async def test_http_errors_outside_of_a_completion():
    async with cluster(**LIMITS) as c, httpx.AsyncClient(base_url=c.http) as client:
        broken = await client.post("/v1/chat/completions", content=b'{"messages": [')
        unknown = await client.get("/v1/nothing")
        method = await client.get("/v1/chat/completions")
        model = await client.post("/v1/chat/completions", json=_chat(model="gpt-7"))
        other = await client.get("/v1/models/gpt-7")
        large = await client.post("/v1/chat/completions", content=b" " * 2_000_000)

        async def pieces() -> AsyncIterator[bytes]:
            for _ in range(30):
                yield b" " * 100_000

        streamed = await client.post("/v1/chat/completions", content=pieces())
        replies = {
            "broken": (broken, 400, "invalid_argument"),
            "unknown": (unknown, 404, "unknown_path"),
            "method": (method, 405, "method_not_allowed"),
            "model": (model, 404, "model_not_found"),
            "other": (other, 404, "model_not_found"),
            "large": (large, 413, "request_too_large"),
            "streamed": (streamed, 413, "request_too_large"),
        }
        for name, (reply, status, code) in replies.items():
            assert reply.status_code == status, name
            assert reply.json()["error"]["code"] == code, name
            assert reply.headers["x-request-id"], name
        assert "JSON" in broken.json()["error"]["message"]
        assert "'tiny'" in model.json()["error"]["message"]


async def test_error_of_a_stream_that_has_not_begun_has_its_own_status():
    async with cluster() as c, httpx.AsyncClient(base_url=c.http) as client:
        reply = await client.post("/v1/chat/completions", json=_chat(stream=True, max_tokens=-1))
        assert reply.status_code == 400
        assert reply.headers["content-type"] == "application/json"
        assert reply.json()["error"]["param"] == "max_tokens"


async def test_overload_says_when_to_come_back():
    async with cluster(max_inflight_requests=1) as c, httpx.AsyncClient(base_url=c.http) as client:
        go = asyncio.Event()

        async def hold(_n, _context):
            await go.wait()

        c.llms[0].before_token = hold
        first = asyncio.ensure_future(client.post("/v1/chat/completions", json=_chat()))
        await c.llms[0].journal.wait_count("generate", 1)
        reply = await client.post("/v1/chat/completions", json=_chat())
        assert reply.status_code == 429
        assert reply.headers["retry-after"] == "1"
        assert reply.json()["error"]["type"] == "rate_limit_error"
        go.set()
        assert (await first).status_code == 200
