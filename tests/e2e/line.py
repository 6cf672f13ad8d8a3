"""The whole line in one event loop: real router, encoders and engine, real gRPC on loopback."""

from __future__ import annotations

import io
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch

from redserve.modeling.prompt import PromptRenderer
from redserve.spec.settings import EncoderSettings, LLMSettings, RouterSettings
from redserve.v1 import router_pb2 as pb
from redserve.v1.router_pb2_grpc import RouterServiceStub
from redserve.v1.types_pb2 import SamplingParams, Timeline
from redserve.wire.channel import open_channel
from redserve_encoder.checkpoint_vision import CheckpointVision
from redserve_encoder.replica import EncoderReplica
from redserve_llm.checkpoint_model import load_model
from redserve_llm.replica import LlmReplica
from redserve_router.assembly import Router

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from PIL import Image

MIB = 1 << 20
KV_CACHE_BYTES = 4 * MIB
READY_S = 30.0
ANSWER_S = 50.0


@dataclass(slots=True)
class Answer:
    """What a client received."""

    token_ids: list[int] = field(default_factory=list)
    text: str = ""
    finished: pb.Finished = field(default_factory=pb.Finished)

    @property
    def timeline(self) -> Timeline:
        return self.finished.timeline


@dataclass(slots=True)
class Line:
    """Everything that runs, and a client of it."""

    router: Router
    encoders: list[EncoderReplica]
    engine: LlmReplica
    stub: Any

    async def ask(
        self,
        messages: Sequence[dict[str, Any]],
        images: Sequence[Image.Image],
        max_tokens: int,
        **sampling: Any,
    ) -> Answer:
        """Ask once, greedy unless `sampling` says otherwise, and wait for the end."""
        request = pb.GenerateRequest(
            messages=to_proto(messages, images),
            sampling=SamplingParams(
                **{"temperature": 0, "max_tokens": max_tokens, "ignore_eos": True, **sampling}
            ),
            include_timeline=True,
        )
        answer = Answer()
        async for event in self.stub.Generate(request, timeout=ANSWER_S):
            if event.HasField("tokens"):
                answer.text += event.tokens.text
                answer.token_ids += [token.token_id for token in event.tokens.tokens]
            elif event.HasField("finished"):
                answer.finished = event.finished
        return answer

    def assert_nothing_is_left(self) -> None:
        """No block, no arena byte, no delivery and no sequence outlives its request."""
        stats = self.engine.scheduler.stats()
        assert (stats.num_waiting, stats.num_running, stats.num_preempted) == (0, 0, 0)
        assert self.engine.pool.used_bytes == 0
        assert [len(encoder.reception.ledger) for encoder in self.encoders] == [0, 0]
        self.engine.scheduler.check_integrity()


def to_proto(messages: Sequence[dict[str, Any]], images: Sequence[Image.Image]) -> list[pb.Message]:
    """Image parts of the conversation become PNG files, in order."""
    queue = iter(images)
    turns = []
    for message in messages:
        parts = [
            pb.Part(text=part["text"])
            if part["type"] == "text"
            else pb.Part(image_bytes=png(next(queue)))
            for part in message["content"]
        ]
        turns.append(pb.Message(role=message["role"], parts=parts))
    return turns


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


@lru_cache(maxsize=1)
def renderer(path: Path) -> PromptRenderer:
    return PromptRenderer.from_checkpoint(path)


@asynccontextmanager
async def running_line(
    path: Path,
    *,
    encoder: dict[str, Any] | None = None,
    engine: dict[str, Any] | None = None,
    router: dict[str, Any] | None = None,
) -> AsyncIterator[Line]:
    """Two encoders, one engine, one router on the checkpoint, all ready."""
    encoders = []
    for number in range(2):
        encoder_settings = EncoderSettings(
            **{"name": f"encoder-{number}", "pool_bytes": 16 * MIB, **(encoder or {})}
        )
        vision = CheckpointVision.load(path, torch.device("cpu"), "float32", max_image_pixels=10**7)
        encoders.append(EncoderReplica(encoder_settings, vision))
    llm_settings = LLMSettings(
        **{
            "name": "llm-0",
            "kv_cache_bytes": KV_CACHE_BYTES,
            "arena_bytes": 4 * MIB,
            "dtype": "float32",
            **(engine or {}),
        }
    )
    replica = LlmReplica(llm_settings, load_model(path, llm_settings))
    for encoder_replica in encoders:
        await encoder_replica.start()
    await replica.start()
    door = Router(
        RouterSettings(
            **{
                "http_port": 0,
                "encoder_addresses": [part.address for part in encoders],
                "llm_addresses": [replica.address],
                **(router or {}),
            }
        ),
        renderer(path),
        "tiny",
    )
    await door.start()
    channel = open_channel(door.server.address)
    try:
        replicas = (*door.pools.encoders, *door.pools.llms)
        serving = await door.pools.find(
            lambda: True if all(part.serving for part in replicas) else None, READY_S
        )
        assert serving, door.pools.why_not_ready
        yield Line(door, encoders, replica, RouterServiceStub(channel))
    finally:
        await channel.close()
        await door.stop(1.0)
        await replica.close()
        for part in encoders:
            await part.close()
