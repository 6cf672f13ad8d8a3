"""The official client, unchanged, against the router."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import grpc
import httpx
import openai
import pytest

from tests.router.cluster import COLOURS, MODEL, cluster, picture
from tests.router.fake_encoder import Fail, Hang
from tests.router.fake_llm import WORDS

TEXT = "".join(WORDS)


def data_url(data: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(data).decode()


def vision(*data: bytes) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = [{"type": "text", "text": "what do you see?"}]
    parts += [
        {"type": "image_url", "image_url": {"url": data_url(d), "detail": "high"}} for d in data
    ]
    return [
        {"role": "developer", "content": "be brief"},
        {"role": "user", "content": parts},
    ]


def client_of(c) -> Any:  # its answers are full of optional fields
    return openai.AsyncOpenAI(base_url=f"{c.http}/v1", api_key="none", max_retries=0, timeout=20)


async def test_async_whole():
    async with cluster() as c, client_of(c) as client:
        reply = await client.chat.completions.create(
            model=MODEL, messages=vision(picture()), max_completion_tokens=3, temperature=0
        )
        (choice,) = reply.choices
        assert choice.message.content == "".join(WORDS[:3])
        assert choice.message.role == "assistant"
        assert choice.finish_reason == "length"
        assert reply.object == "chat.completion"
        assert reply.model == MODEL
        assert reply.usage.completion_tokens == 3
        assert reply.usage.total_tokens == reply.usage.prompt_tokens + 3
        assert reply.usage.prompt_tokens_details.cached_tokens == 3
        request = c.llms[0].journal.all("generate")[0]
        assert reply.usage.prompt_tokens == len(request.token_ids)
        assert request.sampling.temperature == 0


async def test_async_stream_with_usage_and_timeline():
    async with cluster() as c, client_of(c) as client:
        stream = await client.chat.completions.create(
            model=MODEL,
            messages=vision(*(picture(name) for name in COLOURS[:3])),
            stream=True,
            stream_options={"include_usage": True},
            extra_body={"redserve": {"timeline": True}},
            extra_headers={"x-request-id": "trace-7"},
        )
        chunks = [chunk async for chunk in stream]
        assert stream.response.headers["x-request-id"] == "trace-7"
        assert {chunk.id for chunk in chunks} == {"chatcmpl-trace-7"}
        assert chunks[0].choices[0].delta.role == "assistant"
        pieces = [c.choices[0].delta.content for c in chunks[1:-2]]
        assert pieces == list(WORDS)
        closing, usage = chunks[-2:]
        assert closing.choices[0].finish_reason == "stop"
        timeline = closing.redserve["timeline"]
        names = {bar["name"] for bar in timeline["bars"]}
        assert {"preprocess", "tokenize", "encode", "prefill"} <= names
        assert [item["item_index"] for item in timeline["transport"]] == [0, 1, 2]
        assert timeline["transport"][0].keys() > {"exposed_ns", "hidden_ns"}
        parts_ns = timeline["first_token_parts_ns"]
        assert sum(parts_ns.values()) == timeline["first_token_ns"] - timeline["received_ns"]
        assert usage.choices == []
        assert usage.usage.completion_tokens == 5
        assert all(chunk.usage is None for chunk in chunks[:-1])


async def test_progress_is_told_to_those_who_ask():
    body = {
        "messages": vision(picture("red"), picture("blue")),
        "stream": True,
        "redserve": {"timeline": True, "progress": True},
    }
    async with cluster() as c, httpx.AsyncClient(base_url=c.http) as client:
        reply = await client.post("/v1/chat/completions", json=body, timeout=20)
        events = [block.splitlines() for block in reply.text.strip().split("\n\n")]
        told = [
            json.loads(lines[1].removeprefix("data: "))["redserve"]["progress"]
            for lines in events
            if lines[0] == "event: redserve.progress"
        ]
        assert told[0]["awaited_items"] == [0, 1]
        assert {bar["name"] for bar in told[0]["bars"]} == {"preprocess", "describe", "tokenize"}
        assert told[-1]["awaited_items"] == []
        names = [bar["name"] for one in told[1:] for bar in one["bars"]]
        assert names.count("encode") == 2
        assert names.count("prefill") == 1
        timeline = json.loads(events[-2][0].removeprefix("data: "))["redserve"]["timeline"]
        assert names.count("prefill") == [bar["name"] for bar in timeline["bars"]].count("prefill")
        # Without these events it is the stream that everybody gets.
        rest = [lines for lines in events if lines[0] != "event: redserve.progress"]
        assert all(len(lines) == 1 for lines in rest)
        pieces = [json.loads(lines[0].removeprefix("data: ")) for lines in rest[1:-2]]
        assert "".join(piece["choices"][0]["delta"]["content"] for piece in pieces) == TEXT


async def test_nobody_else_hears_of_progress():
    async with cluster() as c, httpx.AsyncClient(base_url=c.http) as client:
        body = {"messages": vision(picture()), "stream": True}
        reply = await client.post("/v1/chat/completions", json=body, timeout=20)
        assert "event:" not in reply.text
        assert not c.llms[0].journal.all("generate")[0].watched
        body = {"messages": vision(picture()), "redserve": {"progress": True}}
        reply = await client.post("/v1/chat/completions", json=body, timeout=20)
        assert reply.status_code == 400
        assert reply.json()["error"]["param"] == "redserve.progress"


async def test_sync_client_whole_and_streamed():
    async with cluster() as c:

        def talk() -> tuple[Any, str]:
            made = openai.OpenAI(base_url=f"{c.http}/v1", api_key="none", max_retries=0, timeout=20)
            client: Any
            with made as client:
                whole = client.chat.completions.create(model=MODEL, messages=vision(picture()))
                stream = client.chat.completions.create(
                    model=MODEL, messages=vision(picture()), stream=True
                )
                pieces = [chunk.choices[0].delta.content or "" for chunk in stream]
                return whole.choices[0].message.content, "".join(pieces)

        assert await asyncio.to_thread(talk) == (TEXT, TEXT)


async def test_logprobs():
    async with cluster() as c, client_of(c) as client:
        reply = await client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": "hello"}],
            logprobs=True,
            top_logprobs=2,
        )
        content = reply.choices[0].logprobs.content
        assert len(content) == 5
        assert content[0].token == "t0"
        assert content[0].logprob == -0.5
        assert [top.logprob for top in content[0].top_logprobs] == [-0.5, -1.5]
        assert bytes(content[0].bytes) == b"t0"

        stream = await client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": "hello"}],
            logprobs=True,
            stream=True,
        )
        shown = [
            token
            async for chunk in stream
            if chunk.choices[0].logprobs
            for token in chunk.choices[0].logprobs.content
        ]
        assert len(shown) == 5
        assert all(token.top_logprobs == [] for token in shown)
        assert all(token.token for token in shown)


async def test_models():
    async with cluster() as c, client_of(c) as client:
        models = await client.models.list()
        assert [model.id for model in models.data] == [MODEL]
        assert (await client.models.retrieve(MODEL)).id == MODEL
        with pytest.raises(openai.NotFoundError):
            await client.models.retrieve("gpt-7")


async def test_typed_errors():
    async with cluster(max_images=1) as c, client_of(c) as client:
        with pytest.raises(openai.BadRequestError) as bad:
            await client.chat.completions.create(model=MODEL, messages=vision(*[picture()] * 2))
        assert bad.value.param == "messages[1].content[2]"
        assert bad.value.code == "policy_violation"
        with pytest.raises(openai.NotFoundError):
            await client.chat.completions.create(
                model="gpt-7", messages=[{"role": "user", "content": "hi"}]
            )
        with pytest.raises(openai.BadRequestError) as many:
            await client.chat.completions.create(
                model=MODEL, messages=[{"role": "user", "content": "hi"}], n=3
            )
        assert many.value.param == "n"


async def test_error_in_mid_stream_ends_it():
    async with cluster(llm_grace_s=0) as c, client_of(c) as client:

        async def die(n, context):
            if n == 2:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "crash")

        c.llms[0].before_token = die
        stream = await client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "hi"}], stream=True
        )
        got = []

        async def listen() -> None:
            async for chunk in stream:
                got.append(chunk.choices[0].delta.content)

        with pytest.raises(openai.APIError) as caught:
            await listen()
        assert got == ["", *WORDS[:2]]
        assert "no other serves" in caught.value.message
        assert caught.value.code == "unavailable"


async def test_raw_stream_ends_with_done_and_an_error_with_none():
    async with cluster() as c, httpx.AsyncClient(base_url=c.http) as client:
        body = {"messages": [{"role": "user", "content": "hi"}], "stream": True}
        good = await client.post("/v1/chat/completions", json=body)
        assert good.headers["content-type"].startswith("text/event-stream")
        assert good.text.endswith("data: [DONE]\n\n")
        c.encoders[0].act = lambda *_: Fail("INVALID_ARGUMENT", "broken inside")
        body["messages"] = vision(picture())
        bad = await client.post("/v1/chat/completions", json=body)
        last = bad.text.strip().split("\n\n")[-1]
        assert last.startswith("event: error\ndata: ")
        said = json.loads(last.split("data: ", 1)[1])["error"]
        assert said["param"] == "messages[1].content[1]"
        assert "[DONE]" not in bad.text


@pytest.mark.parametrize("stream", [True, False])
async def test_client_that_goes_is_noticed_at_once(stream):
    async with cluster() as c, client_of(c) as client:
        c.encoders[0].act = lambda *_: Hang()
        asked = asyncio.ensure_future(
            client.chat.completions.create(
                model=MODEL, messages=vision(picture()), stream=stream, timeout=20
            )
        )
        await c.encoders[0].journal.wait_count("encode", 1)
        if stream:
            await (await asked).close()
        else:
            asked.cancel()
        await c.llms[0].journal.wait_count("generate_cancelled", 1)
        await c.encoders[0].journal.wait_count("encode_cancelled", 1)


async def test_health_and_metrics():
    async with cluster() as c, httpx.AsyncClient(base_url=c.http) as client:
        assert (await client.get("/health")).status_code == 200
        body = {"messages": vision(*(picture(name) for name in COLOURS[:2]))}
        await client.post("/v1/chat/completions", json=body)
        await client.post("/v1/chat/completions", json={**body, "model": "gpt-7"})
        metrics = (await client.get("/metrics")).text
        for line in (
            'redserve_requests_total{code="OK"} 1.0',
            'redserve_requests_total{code="NOT_FOUND"} 1.0',
            'redserve_items_total{outcome="encoded"} 2.0',
            "redserve_output_tokens_total 5.0",
            "redserve_inflight_requests 0.0",
            "redserve_queue_requests 0.0",
            "redserve_time_to_first_token_seconds_count 1.0",
            "redserve_time_per_output_token_seconds_count 1.0",
            "redserve_request_duration_seconds_count 1.0",
            "redserve_overlap_ratio_count 1.0",
            'redserve_transport_item_seconds_count{part="exposed"} 2.0',
            'redserve_transport_item_seconds_count{part="hidden"} 2.0',
            'redserve_time_to_first_token_part_seconds_count{part="queue"} 1.0',
            f'redserve_replica_serving{{address="{c.llms[0].address}",replica_pool="llm"}} 1.0',
        ):
            assert line in metrics, line
        pools = c.router.pools
        await c.encoders[0].kill()
        await pools.find(lambda: pools.why_not_ready, 10)
        sick = await client.get("/health")
        assert sick.status_code == 503
        assert "no encoder serves" in sick.json()["reason"]
        await c.encoders[0].start()
        await c.until_ready()
        assert (await client.get("/health")).status_code == 200


async def test_many_clients_at_once():
    async with cluster(num_encoders=2, num_llms=2) as c, client_of(c) as client:

        async def one(n: int) -> Any:
            messages = vision(picture(COLOURS[n % 8]))
            reply = await client.chat.completions.create(model=MODEL, messages=messages)
            return reply.choices[0].message.content

        answers = await asyncio.gather(*(one(n) for n in range(60)))
        assert answers == [TEXT] * 60
