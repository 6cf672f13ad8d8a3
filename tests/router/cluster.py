"""A whole router with fake replicas behind it, on loopback."""

from __future__ import annotations

import io
from contextlib import asynccontextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

from PIL import Image

from demo_model.config import build_tokenizer
from redserve.modeling.families import FAMILIES
from redserve.modeling.prompt import PromptRenderer
from redserve.spec.settings import RouterSettings
from redserve.v1 import router_pb2 as pb
from redserve.v1.router_pb2_grpc import RouterServiceStub
from redserve.wire.channel import open_channel
from redserve_router.assembly import Router
from tests.router.fake_encoder import FakeEncoder
from tests.router.fake_llm import FakeLlm

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import grpc

MODEL = "tiny"


@cache
def renderer() -> PromptRenderer:
    """The demo model's tokenizer: each <|image_pad|> is one row."""
    tokenizer = build_tokenizer()
    return PromptRenderer(
        tokenizer,
        FAMILIES["qwen2_5_vl"],
        chat_template=tokenizer.chat_template,
        row_token_id=tokenizer.convert_tokens_to_ids("<|image_pad|>"),
    )


class Cluster:
    """Router, fakes and a client stub."""

    def __init__(
        self,
        router: Router,
        encoders: list[FakeEncoder],
        llms: list[FakeLlm],
        channel: grpc.aio.Channel,
    ) -> None:
        self.router = router
        self.encoders = encoders
        self.llms = llms
        self.stub: Any = RouterServiceStub(channel)

    @property
    def http(self) -> str:
        return f"http://127.0.0.1:{self.router.http_port}"

    async def until_ready(self) -> None:
        pools = self.router.pools
        ready = await pools.find(lambda: True if pools.why_not_ready is None else None, 15.0)
        assert ready, pools.why_not_ready

    async def until_all_serve(self) -> None:
        pools = self.router.pools
        replicas = (*pools.encoders, *pools.llms)
        found = await pools.find(lambda: True if all(r.serving for r in replicas) else None, 15.0)
        assert found, pools.report()

    async def ask(self, request: pb.GenerateRequest, **options: Any) -> Answer:
        answer = Answer()
        async for event in self.stub.Generate(request, **options):
            answer.add(event)
        return answer


class Answer:
    """A whole answer."""

    def __init__(self) -> None:
        self.started = pb.Started()
        self.finished = pb.Finished()
        self.text = ""
        self.token_ids: list[int] = []
        self.kinds: list[str | None] = []

    def add(self, event: pb.GenerateResponse) -> None:
        kind = event.WhichOneof("event")
        assert (kind == "started") == (not self.kinds), "starts once, with its first event"
        assert "finished" not in self.kinds, "an event after the last one"
        self.kinds.append(kind)
        match kind:
            case "started":
                self.started = event.started
            case "tokens":
                self.text += event.tokens.text
                self.token_ids += [token.token_id for token in event.tokens.tokens]
            case "finished":
                self.finished = event.finished


@asynccontextmanager
async def cluster(
    num_encoders: int = 1,
    num_llms: int = 1,
    *,
    surroundings: Any = None,
    **overrides: Any,
) -> AsyncIterator[Cluster]:
    """`surroundings` are arguments of the router beside its settings, `overrides` are settings."""
    encoders = [FakeEncoder(f"encoder-{n}") for n in range(num_encoders)]
    llms = [FakeLlm(f"llm-{n}") for n in range(num_llms)]
    fakes: list[FakeEncoder | FakeLlm] = [*encoders, *llms]
    for fake in fakes:
        await fake.start()
    settings = RouterSettings.model_validate(
        {
            "model_name": MODEL,
            "http_port": 0,
            "encoder_addresses": tuple(e.address for e in encoders),
            "llm_addresses": tuple(r.address for r in llms),
            **overrides,
        }
    )
    router = Router(settings, renderer(), MODEL, **(surroundings or {}))
    await router.start()
    channel = open_channel(router.server.address)
    try:
        built = Cluster(router, encoders, llms, channel)
        await built.until_all_serve()
        yield built
    finally:
        await channel.close()
        await router.stop(0.0)
        for fake in fakes:
            await fake.kill()


def picture(
    colour: str = "red", size: tuple[int, int] = (32, 32), kind: str = "PNG", **save: Any
) -> bytes:
    """An encoded picture; `size` is (width, height)."""
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, kind, **save)
    return buffer.getvalue()


COLOURS = ("red", "green", "blue", "yellow", "purple", "orange", "black", "white")


def question(
    *parts: str | bytes, max_tokens: int | None = None, **fields: Any
) -> pb.GenerateRequest:
    """A user turn of texts and pictures."""
    request = pb.GenerateRequest(**fields)
    message = request.messages.add(role="user")
    for part in parts:
        if isinstance(part, str):
            message.parts.add(text=part)
        else:
            message.parts.add(image_bytes=part)
    if max_tokens is not None:
        request.sampling.max_tokens = max_tokens
    return request
