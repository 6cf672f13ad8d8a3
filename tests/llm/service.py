"""A whole replica on loopback with a fake model, a fake encoder with a real producer, a client."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from redserve.domain import Item, SamplingParams, SequenceKey, SequenceRequest, Span
from redserve.spec.settings import LLMSettings
from redserve.v1 import llm_pb2 as pb
from redserve.v1 import llm_pb2_grpc
from redserve.wire.channel import open_channel
from redserve.wire.errors import from_rpc_error
from redserve.wire.llm import sequence_request_to_proto
from redserve_llm.delivery import RowShape
from redserve_llm.detokenizer import Vocabulary
from redserve_llm.fake import FakeRunner, fake_answer, fake_model
from redserve_llm.replica import LlmReplica
from redserve_llm.runner.interface import ItemRows
from tests.llm.fake_encoder import FakeEncoder

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from redserve.errors import RedServeError
    from redserve.v1.types_pb2 import TimelineBar

IMAGE = 9
SHAPE = RowShape(num_layers=2, hidden_size=512)
ROW_BYTES = SHAPE.num_bytes(1, "float32")
MIB = 1 << 20
TIMEOUT_S = 10.0


@lru_cache
def vocabulary() -> Vocabulary:
    """Byte-level: token n + 10 is the n-th letter of the byte alphabet."""
    specials = ["<unk>", "<s>", "</s>", *(f"<{n}>" for n in range(3, 10))]
    words = specials + sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={word: i for i, word in enumerate(words)}, merges=[]))
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(specials)
    return Vocabulary(PreTrainedTokenizerFast(tokenizer_object=core, eos_token="</s>"))


def rows_of(seed: int, num_rows: int) -> np.ndarray[Any, Any]:
    shape = (SHAPE.num_layers, num_rows, SHAPE.hidden_size)
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


@dataclass(frozen=True)
class Question:
    """A request, its rows, and what the fake model must answer."""

    request: SequenceRequest
    rows: tuple[np.ndarray[Any, Any], ...] = ()

    @property
    def answer(self) -> list[int]:
        items = [
            ItemRows(np.frombuffer(rows.tobytes(), np.uint8), *_dims(rows), "float32")
            for rows in self.rows
        ]
        return fake_answer(self.request, items, self.request.sampling.max_tokens)

    @property
    def text(self) -> str:
        return vocabulary().decode(self.answer)


def _dims(rows: np.ndarray[Any, Any]) -> tuple[int, int, int]:
    num_layers, num_rows, hidden_size = rows.shape
    return num_layers, num_rows, hidden_size


def question(
    request_id: str,
    num_images: int = 0,
    *,
    rows_per_image: int = 4,
    generation: int = 0,
    seed: int = 0,
    resume: tuple[int, ...] = (),
    **sampling: Any,
) -> Question:
    """Text, then images with a text token between them, then text."""
    ids = [11 + seed, 12, 13]
    items = []
    for index in range(num_images):
        span = Span(len(ids), rows_per_image)
        ids += [IMAGE] * rows_per_image
        ids.append(20 + index)
        digest = hashlib.sha256(f"{seed}/{index}".encode()).digest()
        items.append(Item(index, digest, rows_per_image, (span,)))
    ids += [14, 15]
    request = SequenceRequest(
        key=SequenceKey(request_id, generation),
        token_ids=tuple(ids),
        items=tuple(items),
        sampling=SamplingParams(**{"max_tokens": 6, **sampling}),
        resume_token_ids=resume,
    )
    all_rows = tuple(rows_of(seed * 100 + index, rows_per_image) for index in range(num_images))
    return Question(request, all_rows)


@dataclass
class Answer:
    """What came on a Generate stream."""

    token_ids: list[int] = field(default_factory=list)
    text: str = ""
    admitted: pb.Admitted | None = None
    landed: list[tuple[int, int]] = field(default_factory=list)
    needed: list[pb.ItemNeeded] = field(default_factory=list)
    begun: list[pb.Begun] = field(default_factory=list)
    bars: list[TimelineBar] = field(default_factory=list)
    finished: pb.SequenceFinished | None = None


class Call:
    """One Generate stream, read event by event."""

    def __init__(
        self,
        stub: Any,
        request: SequenceRequest,
        timeout_s: float | None = 30.0,
        *,
        watched: bool = False,
    ) -> None:
        proto = sequence_request_to_proto(request)
        proto.watched = watched
        self.rpc = stub.Generate(proto, timeout=timeout_s)
        self.answer = Answer()

    async def next(self) -> str:
        """Take the next event in; its name."""
        async with asyncio.timeout(TIMEOUT_S):
            response = await self.rpc.read()
        name = response.WhichOneof("event")
        answer = self.answer
        match name:
            case "admitted":
                answer.admitted = response.admitted
            case "item_landed":
                answer.landed.append((response.item_landed.index, response.item_landed.attempt))
            case "item_needed":
                answer.needed.append(response.item_needed)
            case "begun":
                assert answer.admitted is not None
                assert not answer.token_ids
                answer.begun.append(response.begun)
            case "tokens":
                answer.text += response.tokens.text
                answer.token_ids += [token.token_id for token in response.tokens.tokens]
            case "bars_made":
                answer.bars += response.bars_made.bars
            case "finished":
                answer.finished = response.finished
        return str(name)

    async def until(self, name: str) -> Answer:
        while await self.next() != name:
            pass
        return self.answer

    async def finish(self) -> Answer:
        return await self.until("finished")

    async def cancel(self) -> None:
        self.rpc.cancel()
        with suppress(asyncio.CancelledError):
            await self.rpc.wait_for_connection()


class Gate:
    """Stops the fake engine before a step until it is opened."""

    def __init__(self, runner: FakeRunner) -> None:
        self._open = threading.Event()
        self._open.set()
        self.reached = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        runner.before_step = self._wait

    def close(self) -> None:
        self.reached.clear()
        self._open.clear()

    def open(self) -> None:
        self._open.set()

    def _wait(self, batch: Any) -> None:
        if not self._open.is_set():
            self._loop.call_soon_threadsafe(self.reached.set)
        assert self._open.wait(TIMEOUT_S)


@dataclass
class Service:
    """A running replica and its client."""

    replica: LlmReplica
    runner: FakeRunner
    stub: Any
    encoder: FakeEncoder

    def call(
        self, asked: Question, timeout_s: float | None = 30.0, *, watched: bool = False
    ) -> Call:
        return Call(self.stub, asked.request, timeout_s, watched=watched)

    async def check_nothing_is_left(self) -> None:
        """No block, row, region, call or sequence of any request is left."""
        replica = self.replica

        def left() -> list[str]:
            stats = replica.scheduler.stats()
            return [
                name
                for name, value in {
                    "sequences": not replica.scheduler.is_idle,
                    "blocks": stats.blocks_total - stats.blocks_free,
                    "rows": stats.rows_held,
                    "arena bytes": replica.pool.used_bytes,
                    "runner": self.runner.num_known,
                    "calls": replica.hub.num_calls,
                    "leases": self.encoder.side.lease_table.num_leases,
                }.items()
                if value
            ]

        async with asyncio.timeout(TIMEOUT_S):
            while left():
                await _next_turn()
        replica.scheduler.check_integrity()


def check(call: Call, asked: Question) -> None:
    """The answer is what the fake model makes of the right rows."""
    assert call.answer.token_ids == asked.answer
    assert call.answer.text == asked.text


async def error_of(call: Call) -> RedServeError:
    """How a call fails."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.finish()
    return from_rpc_error(caught.value)


async def _next_turn() -> None:
    """Let other tasks and the engine's thread run: what they do has no event to wait on."""
    await asyncio.get_running_loop().run_in_executor(None, lambda: None)


@asynccontextmanager
async def running(
    *,
    arena_bytes: int = MIB,
    num_blocks: int = 64,
    block_size: int = 4,
    max_model_length: int = 200,
    **settings: Any,
) -> AsyncIterator[Service]:
    """A replica that serves; everything is closed afterwards."""
    model = fake_model(
        vocabulary(),
        num_blocks=num_blocks,
        block_size=block_size,
        max_model_length=max_model_length,
        shape=SHAPE,
    )
    assert isinstance(model.runner, FakeRunner)
    chosen = LLMSettings(name="llm-0", arena_bytes=arena_bytes, min_chunk=1, **settings)
    replica = LlmReplica(chosen, model)
    await replica.start()
    channel = open_channel(replica.address)
    encoder = FakeEncoder(replica.address)
    await encoder.server.start()
    try:
        stub = llm_pb2_grpc.LlmServiceStub(channel)
        yield Service(replica, model.runner, stub, encoder)
    finally:
        await encoder.close()
        await channel.close()
        await replica.close()
