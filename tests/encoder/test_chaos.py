"""All at once: a small pool, shared pictures, callers that leave, an LLM replica that balks."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import grpc
import pytest

from redserve.v1 import encoder_pb2 as pb
from redserve.v1 import llm_pb2
from redserve_encoder.fake import FakeVision
from tests.encoder.support import (
    MIB,
    TIMEOUT_S,
    Bench,
    FakeLlm,
    bench,
    failures,
    item,
    picture,
    published,
    sha,
)

NUM_REQUESTS = 60
PICTURES = [picture(64 + 16 * (shade % 5), 64, shade) for shade in range(12)]
DAMAGED = picture(64, 64, 77, form="JPEG")[:-30]


class Moody(FakeVision):
    """Takes a moment per batch and fails now and then."""

    def __init__(self, dice: random.Random) -> None:
        super().__init__(hidden_size=1024)
        self._dice = dice

    async def encode(self, batch: Any, destinations: Any) -> list[int]:
        await asyncio.sleep(self._dice.random() * 0.004)
        if len(batch) > 1 and self._dice.random() < 0.2:
            raise RuntimeError("out of memory")
        return await super().encode(batch, destinations)


async def one_request(b: Bench, dice: random.Random, number: int) -> None:
    """A request with its own fate; which is checked."""
    await asyncio.sleep(dice.random() * 0.3)
    name = f"r{number}"
    chosen = [dice.choice(PICTURES) for _ in range(dice.randint(1, 4))]
    items = [item(i, data) for i, data in enumerate(chosen)]
    if dice.random() < 0.1:
        items.append(item(len(items), DAMAGED, rows=16))
    fate = dice.choice(["finish", "finish", "finish", "leave", "cancel", "deadline"])
    timeout_s = dice.random() * 0.05 if fate == "deadline" else TIMEOUT_S
    call = b.call(name, items, idle=dice.random() < 0.5, timeout_s=timeout_s)
    events: list[pb.EncodeResponse] = []
    try:
        if fate == "cancel":
            await asyncio.sleep(dice.random() * 0.02)
            await b.stub.Cancel(pb.EncoderServiceCancelRequest(request_id=name), timeout=TIMEOUT_S)
        async for event in call:
            events.append(event)
            if fate == "leave":
                call.cancel()
    except grpc.aio.AioRpcError as error:
        if (fate, error.code()) != ("deadline", grpc.StatusCode.DEADLINE_EXCEEDED):
            raise
    except asyncio.CancelledError:
        if fate != "leave":
            raise
    if fate == "finish":
        assert len(events) == len(items)
        assert set(failures(events)) <= {i for i, x in enumerate(items) if x.num_rows == 16}
        assert len(published(events)) >= len(chosen)


@pytest.mark.parametrize("seed", range(3))
async def test_nothing_is_lost_leaked_or_mixed_up(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    dice = random.Random(seed)

    async def moody_answer(
        self: FakeLlm, request: llm_pb2.EmbeddingReadyRequest, context: Any
    ) -> llm_pb2.EmbeddingReadyResponse:
        self.accept = dice.random() < 0.9
        await asyncio.sleep(dice.random() * 0.01)
        return await plain_answer(self, request, context)

    plain_answer = FakeLlm.EmbeddingReady
    monkeypatch.setattr(FakeLlm, "EmbeddingReady", moody_answer)
    async with bench(Moody(dice), pool_bytes=MIB, batch_rows=64, preprocess_threads=2) as b:
        await asyncio.gather(*(one_request(b, dice, number) for number in range(NUM_REQUESTS)))
        # What was announced and then given up by its caller is dropped by its deadline at the
        # latest; here the router says so.
        for number in range(NUM_REQUESTS):
            request = pb.EncoderServiceCancelRequest(request_id=f"r{number}")
            await b.stub.Cancel(request, timeout=TIMEOUT_S)
        expected = {b.fake.embedding(sha(data), _rows(data)) for data in PICTURES}
        assert len(b.llm.landed) > NUM_REQUESTS // 2
        assert set(b.llm.landed.values()) <= expected


def _rows(data: bytes) -> int:
    return item(0, data).num_rows
