"""An LLM replica without a model: it waits for its items, then says its words."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from redserve.errors import Unavailable
from redserve.telemetry.clock import now_ns
from redserve.telemetry.timeline import TRANSFER, Bar
from redserve.v1 import llm_pb2 as pb
from redserve.v1 import types_pb2
from redserve.v1.llm_pb2_grpc import LlmServiceServicer, add_LlmServiceServicer_to_server
from redserve.wire.server import ServiceServer
from redserve.wire.types import bar_to_proto
from tests.router.journal import Journal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    import grpc

WORDS = ("one", " two", " three", " four", " five")
FIRST_TOKEN_ID = 20


async def fast_check(_encoder_address: str) -> pb.CheckTransportResponse:
    return pb.CheckTransportResponse(transport="grpc", num_bytes=32_000_000, seconds=0.016)


class FakeSequence:
    """One running sequence, as scripts see it."""

    def __init__(self, request: pb.LlmServiceGenerateRequest) -> None:
        self.request = request
        self.arrived: dict[int, int] = {}
        self.transfers: list[Bar] = []
        self.moved = asyncio.Event()

    def arrive(self, index: int, attempt: int, lane: str) -> None:
        self.arrived[index] = attempt
        self.transfers.append(Bar(lane, TRANSFER, now_ns(), now_ns(), index))
        self.moved.set()
        self.moved = asyncio.Event()

    async def wait_for_items(self, indices: set[int]) -> None:
        while not indices <= self.arrived.keys():
            await self.moved.wait()


class FakeLlm(LlmServiceServicer):
    """Attributes to script it.

    words: What it says; token n has id FIRST_TOKEN_ID + n.
    covered: Items that its prefix cache covers.
    before_token: Awaited before token n; may raise by calling context.abort.
    before_finish: Awaited before the last event.
    admit: Awaited before it admits.
    ask_again: Items that it loses once after they arrived.
    ask_stale: Reports once that an older attempt than the one that arrived was lost.
    ask_covered: Covered items that it needs after all: their blocks were lost.
    check: Measures the way from an encoder; the default finds 2 GB/s at once.
    """

    def __init__(self, name: str, *, fingerprint: str = "same") -> None:
        self.name = name
        self.fingerprint = fingerprint
        self.words: tuple[str, ...] = WORDS
        self.covered: frozenset[int] = frozenset()
        self.ask_again: tuple[int, ...] = ()
        self.ask_stale = False
        self.ask_covered: frozenset[int] = frozenset()
        self.check: Callable[[str], Awaitable[pb.CheckTransportResponse]] = fast_check
        self.journal = Journal()
        self.max_model_length = 512
        self.before_token: Callable[[int, Any], Awaitable[None]] | None = None
        self.before_finish: Callable[[Any], Awaitable[None]] | None = None
        self.admit: Callable[[Any], Awaitable[None]] | None = None
        self.sequences: dict[tuple[str, int], FakeSequence] = {}
        self.port = 0
        self._draining = asyncio.Event()
        self._sequence_ended = asyncio.Event()
        self._server: ServiceServer | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def start(self) -> None:
        self._draining = asyncio.Event()
        self._server = ServiceServer("127.0.0.1", self.port)
        self._server.add(add_LlmServiceServicer_to_server, self, "redserve.v1.LlmService")
        self.port = await self._server.start()

    async def drain(self, timeout_s: float) -> None:
        """As the engine does: no new sequences, announcements for the old ones, then the end."""
        assert self._server is not None
        self._draining.set()
        async with asyncio.timeout(timeout_s):
            while self.sequences:
                await self._sequence_ended.wait()
        await self._server.drain(timeout_s)

    async def kill(self) -> None:
        if self._server is not None:
            await self._server.grpc.stop(None)
            self._server = None

    async def GetModelInfo(self, _request: Any, _context: Any) -> pb.LlmServiceGetModelInfoResponse:  # noqa: N802
        return pb.LlmServiceGetModelInfoResponse(
            fingerprint=self.fingerprint,
            family="qwen2_5_vl",
            max_model_length=self.max_model_length,
            hidden_size=8,
            num_layers=1,
            max_item_bytes=4096,
            kv_cache_tokens=4096,
            default_sampling=types_pb2.SamplingParams(
                temperature=0.25, top_k=7, top_p=0.5, repetition_penalty=1.5
            ),
            transport="grpc",
        )

    async def CheckTransport(  # noqa: N802
        self, request: pb.CheckTransportRequest, _context: Any
    ) -> pb.CheckTransportResponse:
        self.journal.note("check", request.encoder_address)
        try:
            return await self.check(request.encoder_address)
        finally:
            self.journal.note("checked", request.encoder_address)

    async def EmbeddingReady(  # noqa: N802
        self, request: pb.EmbeddingReadyRequest, _context: Any
    ) -> pb.EmbeddingReadyResponse:
        tag = request.tag
        self.journal.note("ready", (tag.item_index, tag.attempt, tag.generation))
        sequence = self.sequences.get((tag.request_id, tag.generation))
        if sequence is None:
            return pb.EmbeddingReadyResponse(accepted=False, why="unknown sequence")
        sequence.arrive(tag.item_index, tag.attempt, self.name)
        return pb.EmbeddingReadyResponse(accepted=True)

    async def Generate(  # noqa: N802
        self,
        request: pb.LlmServiceGenerateRequest,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> AsyncIterator[pb.LlmServiceGenerateResponse]:
        if self._draining.is_set():
            raise Unavailable("this replica is shutting down; try another one")
        self.journal.note("generate", request)
        self.journal.note("time_remaining", context.time_remaining())
        key = (request.request_id, request.generation)
        sequence = self.sequences[key] = FakeSequence(request)
        try:
            if self.admit is not None:
                await self.admit(context)
            needed = {item.index for item in request.items} - self.covered
            yield pb.LlmServiceGenerateResponse(
                admitted=pb.Admitted(num_cached_tokens=0, needed_items=sorted(needed))
            )
            start_ns = now_ns()
            await sequence.wait_for_items(needed)
            for index in self.ask_again:
                lost = sequence.arrived.pop(index)
                yield pb.LlmServiceGenerateResponse(
                    item_needed=pb.ItemNeeded(index=index, lost_attempt=lost, why="evicted")
                )
            if self.ask_stale:
                yield pb.LlmServiceGenerateResponse(
                    item_needed=pb.ItemNeeded(index=0, lost_attempt=1, why="peer lost")
                )
            for index in self.ask_covered:
                yield pb.LlmServiceGenerateResponse(
                    item_needed=pb.ItemNeeded(index=index, lost_attempt=0, why="preempted")
                )
            await sequence.wait_for_items(needed | self.ask_covered)
            prefill = Bar(self.name, "prefill", start_ns, now_ns())
            yield pb.LlmServiceGenerateResponse(begun=pb.Begun(start_ns=start_ns))
            if request.watched:
                made = pb.BarsMade(bars=[bar_to_proto(prefill)])
                yield pb.LlmServiceGenerateResponse(bars_made=made)
            async for response in self._say(request, context):
                yield response
            if self.before_finish is not None:
                await self.before_finish(context)
            yield self._finished(request, [prefill, *sequence.transfers])
        except asyncio.CancelledError:
            self.journal.note("generate_cancelled", key)
            raise
        finally:
            del self.sequences[key]
            self._sequence_ended.set()
            self._sequence_ended = asyncio.Event()

    async def _say(
        self, request: pb.LlmServiceGenerateRequest, context: Any
    ) -> AsyncIterator[pb.LlmServiceGenerateResponse]:
        num_words = min(len(self.words), request.sampling.max_tokens)
        for n in range(len(request.resume_token_ids), num_words):
            if self.before_token is not None:
                await self.before_token(n, context)
            token = types_pb2.TokenOutput(token_id=FIRST_TOKEN_ID + n)
            if request.sampling.HasField("num_logprobs"):
                token.logprob = -0.5
                for rank in range(request.sampling.num_logprobs):
                    token.top.add(
                        token_id=FIRST_TOKEN_ID + n + rank, text=f"t{rank}", logprob=-0.5 - rank
                    )
            yield pb.LlmServiceGenerateResponse(
                tokens=pb.TokensMade(text=self.words[n], tokens=[token])
            )

    def _finished(
        self, request: pb.LlmServiceGenerateRequest, bars: list[Bar]
    ) -> pb.LlmServiceGenerateResponse:
        num_words = min(len(self.words), request.sampling.max_tokens)
        cut = num_words < len(self.words)
        reason = types_pb2.FINISH_REASON_LENGTH if cut else types_pb2.FINISH_REASON_STOP
        usage = types_pb2.Usage(
            num_prompt_tokens=len(request.token_ids),
            num_output_tokens=num_words,
            num_cached_tokens=3,
            num_item_tokens=sum(span.length for item in request.items for span in item.spans),
        )
        return pb.LlmServiceGenerateResponse(
            finished=pb.SequenceFinished(reason=reason, usage=usage, bars=map(bar_to_proto, bars))
        )

    async def Cancel(  # noqa: N802
        self, request: pb.LlmServiceCancelRequest, _context: Any
    ) -> pb.LlmServiceCancelResponse:
        self.journal.note("cancel", request.request_id)
        return pb.LlmServiceCancelResponse()

    async def WatchLoad(  # noqa: N802
        self, _request: Any, _context: Any
    ) -> AsyncIterator[pb.LlmServiceWatchLoadResponse]:
        yield pb.LlmServiceWatchLoadResponse(
            serving=not self._draining.is_set(), blocks_free=256, blocks_total=256
        )
        await self._draining.wait()
        yield pb.LlmServiceWatchLoadResponse(serving=False)
        await asyncio.Event().wait()
