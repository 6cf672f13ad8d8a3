"""An encoder with a fake model on a real port, an LLM replica that pulls, and a router's hand."""

from __future__ import annotations

import asyncio
import hashlib
import io
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from PIL import Image

from redserve.spec.settings import EncoderSettings
from redserve.telemetry.clock import now_ns
from redserve.transport.factory import make_consumer
from redserve.transport.pool import Pool
from redserve.v1 import encoder_pb2 as pb
from redserve.v1 import encoder_pb2_grpc, llm_pb2, llm_pb2_grpc
from redserve.wire.channel import open_channel
from redserve.wire.server import ServiceServer
from redserve.wire.transport import peer_from_proto
from redserve_encoder.fake import FakeVision
from redserve_encoder.replica import EncoderReplica

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    import grpc

    from redserve_encoder.vision import Vision

MIB = 1024 * 1024
TIMEOUT_S = 20.0


def picture(width: int = 32, height: int = 32, shade: int = 0, form: str = "PNG") -> bytes:
    """A picture whose content depends on every argument; 4 rows by default."""
    image = Image.new("RGB", (width, height), (shade % 256, shade // 256, 99))
    file = io.BytesIO()
    image.save(file, form)
    return file.getvalue()


def sha(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def rows_of(data: bytes) -> int:
    """What FakeVision makes of it."""
    with Image.open(io.BytesIO(data)) as image:
        return -(-image.width // 16) * -(-image.height // 16)


def item(
    index: int, data: bytes, *, send: bool = True, rows: int | None = None, attempt: int = 1
) -> pb.EncodeItem:
    return pb.EncodeItem(
        index=index,
        attempt=attempt,
        picture=pb.Picture(content_hash=sha(data), data=data if send else b""),
        num_rows=rows_of(data) if rows is None else rows,
    )


class Gate:
    """Takes the place of computing: batches wait here until they are let through."""

    def __init__(self, *, is_open: bool = False) -> None:
        self.entered = 0
        self._tickets = asyncio.Semaphore(0)
        self._changed = asyncio.Condition()
        self.is_open = is_open

    async def __call__(self, _seconds: float) -> None:
        async with self._changed:
            self.entered += 1
            self._changed.notify_all()
        if not self.is_open:
            await self._tickets.acquire()

    def let(self, num_batches: int = 1) -> None:
        for _ in range(num_batches):
            self._tickets.release()

    def open(self) -> None:
        self.is_open = True
        self.let(1000)

    async def batches_entered(self, number: int) -> None:
        """Wait until `number` batches have begun since the start."""
        async with asyncio.timeout(TIMEOUT_S), self._changed:
            await self._changed.wait_for(lambda: self.entered >= number)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition that nothing signals."""
    async with asyncio.timeout(TIMEOUT_S):
        while not condition():  # noqa: ASYNC110  # the thing under test has no event for it
            await asyncio.sleep(0.002)


@dataclass
class Announcement:
    """What the LLM replica was told, and when."""

    request: llm_pb2.EmbeddingReadyRequest
    at_s: float = field(default_factory=time.monotonic)

    @property
    def name(self) -> tuple[str, int]:
        return self.request.tag.request_id, self.request.tag.item_index


class _OnlyEmbeddings(llm_pb2_grpc.LlmServiceServicer):
    """What an encoder never calls."""

    def Generate(self, request: Any, context: Any) -> Any:  # noqa: N802
        raise NotImplementedError

    def WatchLoad(self, request: Any, context: Any) -> Any:  # noqa: N802
        raise NotImplementedError

    def Cancel(self, request: Any, context: Any) -> Any:  # noqa: N802
        raise NotImplementedError

    def GetModelInfo(self, request: Any, context: Any) -> Any:  # noqa: N802
        raise NotImplementedError

    def CheckTransport(self, request: Any, context: Any) -> Any:  # noqa: N802
        raise NotImplementedError


class FakeLlm(_OnlyEmbeddings):
    """Accepts what it is told of and pulls it with the real puller.

    Attributes:
        accept: What it says to an announcement.
        pulls: Whether it pulls what it accepts.
        answers: Unset while it answers no announcement.
        questions: Unset while it does not answer whether it still wants something.
        announced: What it was told of.
        asked: What it was told of again, which asks whether it is still wanted.
        unwanted: Of these, what it says no to although it has not landed.
        landed: What it pulled.
    """

    def __init__(self) -> None:
        self.pool = Pool(32 * MIB)
        self.accept = True
        self.pulls = True
        self.answers = asyncio.Event()
        self.answers.set()
        self.questions = asyncio.Event()
        self.questions.set()
        self.announced: list[Announcement] = []
        self.asked: list[tuple[str, int]] = []
        self.unwanted: set[tuple[str, int]] = set()
        self.landed: dict[tuple[str, int], bytes] = {}
        self.errors: list[BaseException] = []
        self._server: ServiceServer | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, port: int = 0, transport: str = "grpc") -> None:
        self._server = ServiceServer("127.0.0.1", port)
        self._server.add(
            llm_pb2_grpc.add_LlmServiceServicer_to_server, self, "redserve.v1.LlmService"
        )
        await self._server.start()
        self.puller = make_consumer(transport, self.pool, "llm-0", self.address, None)

    @property
    def address(self) -> str:
        assert self._server is not None
        return self._server.address

    async def EmbeddingReady(  # noqa: N802
        self, request: llm_pb2.EmbeddingReadyRequest, context: Any
    ) -> llm_pb2.EmbeddingReadyResponse:
        announcement = Announcement(request)
        if any(request.tensor_key == known.request.tensor_key for known in self.announced):
            self.asked.append(announcement.name)
            await self.questions.wait()
            done = announcement.name in self.landed.keys() | self.unwanted
            return llm_pb2.EmbeddingReadyResponse(accepted=not done)
        self.announced.append(announcement)
        if self.accept and self.pulls:
            self.pull_soon(announcement)
        await self.answers.wait()
        return llm_pb2.EmbeddingReadyResponse(
            accepted=self.accept, why="" if self.accept else "late"
        )

    def pull_soon(self, announcement: Announcement) -> None:
        task = asyncio.create_task(self.pull(announcement))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def pull(self, announcement: Announcement) -> None:
        request = announcement.request
        size = {"float32": 4, "bfloat16": 2, "float16": 2}[request.dtype]
        for edge in request.shape:
            size *= edge
        region = self.pool.alloc(size)
        try:
            await self.puller.pull(
                peer_from_proto(request.producer), request.tensor_key, region, TIMEOUT_S
            )
            self.landed[announcement.name] = bytes(region.view)
        except BaseException as error:
            self.errors.append(error)
        finally:
            region.free()

    async def stop(self) -> None:
        assert self._server is not None
        self.answers.set()
        self.questions.set()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=TIMEOUT_S)
        await self.puller.close()
        await self._server.drain(0.5)


class Bench:
    """Everything on one event loop, over real sockets."""

    def __init__(self, replica: EncoderReplica, vision: Vision, llm: FakeLlm) -> None:
        self.replica = replica
        self.llm = llm
        self.channel: grpc.aio.Channel = open_channel(replica.address)
        self.stub: Any = encoder_pb2_grpc.EncoderServiceStub(self.channel)
        self._vision = vision

    @property
    def fake(self) -> FakeVision:
        assert isinstance(self._vision, FakeVision)
        return self._vision

    def call(
        self,
        request_id: str,
        items: Sequence[pb.EncodeItem],
        *,
        idle: bool = False,
        received_ns: int = 0,
        timeout_s: float = TIMEOUT_S,
        destination: str = "",
        generation: int = 1,
        metadata: Sequence[tuple[str, str]] = (),
    ) -> Any:
        """Begin an Encode call."""
        request = pb.EncodeRequest(
            request_id=request_id,
            generation=generation,
            destination=destination or self.llm.address,
            received_unix_ns=received_ns or now_ns(),
            items=items,
            destination_idle=idle,
        )
        return self.stub.Encode(request, timeout=timeout_s, metadata=metadata)

    async def encode(
        self, request_id: str, items: Sequence[pb.EncodeItem], **options: Any
    ) -> list[pb.EncodeResponse]:
        """All outcomes, in the order in which they came."""
        return [event async for event in self.call(request_id, items, **options)]

    async def describe(self, *pictures: bytes) -> list[pb.DescribedPicture]:
        request = pb.DescribeRequest(
            pictures=[pb.Picture(content_hash=sha(data), data=data) for data in pictures]
        )
        response = await self.stub.Describe(request, timeout=TIMEOUT_S)
        return list(response.pictures)

    async def landed(self, *names: tuple[str, int]) -> None:
        await until(lambda: all(name in self.llm.landed for name in names))

    async def waiting(self, num_items: int) -> None:
        """Until so many items are queued, prepared or encoded, and none is still on its way in."""
        lineup = self.replica.reception.lineup

        def placed() -> int:
            flights = lineup._flights.values()
            return len(lineup._queued) + sum(len(flight.deliveries) for flight in flights)

        await until(lambda: placed() == num_items == self.replica.reception.ledger.num_waiting)

    async def prepared(self, *pictures: bytes) -> None:
        """Until these pictures' pixels are there (and not merely on their way)."""
        kept = self.replica.pictures._prepared
        await until(lambda: all(sha(data) in kept for data in pictures))

    def metric(self, name: str, **labels: str) -> float:
        return self.replica.registry.get_sample_value(name, labels) or 0.0

    async def everything_is_back(self) -> None:
        """Nothing is held, leased or leaked: the pool is as it was."""
        replica = self.replica
        async with asyncio.timeout(TIMEOUT_S):
            await replica.reception.ledger.wait_empty()
        await until(lambda: replica.producer.lease_table.num_leases == 0)
        assert replica.publisher.num_held == 0
        assert replica.producer.lease_table.num_offers == 0
        assert replica.reception.lineup.num_rows == 0
        await until(lambda: replica.cache.num_pinned == 0)  # a batch that nobody waits for
        replica.cache.check_integrity()
        replica.cache.clear()
        assert replica.pool.used_bytes == 0
        await until(lambda: self.llm.pool.used_bytes == 0)


def settings(**changes: Any) -> EncoderSettings:
    defaults: dict[str, Any] = {"name": "encoder-0", "pool_bytes": 4 * MIB, "lease_ttl_s": 5.0}
    return EncoderSettings(**(defaults | changes))


@asynccontextmanager
async def bench(
    vision: Vision | None = None, *, all_back: bool = True, **changes: Any
) -> AsyncIterator[Bench]:
    """A running encoder and LLM replica; afterwards everything that was lent must be back."""
    llm = FakeLlm()
    await llm.start()
    vision = vision or FakeVision()
    replica = EncoderReplica(settings(**changes), vision)
    try:
        await replica.start()
        made = Bench(replica, vision, llm)
        try:
            yield made
            if all_back:
                await made.everything_is_back()
        finally:
            await made.channel.close()
    finally:
        await replica.close()
        await llm.stop()


def published(events: Sequence[pb.EncodeResponse]) -> list[int]:
    """Indices of the published items, in order of publication."""
    return [event.published.index for event in events if event.HasField("published")]


def failures(events: Sequence[pb.EncodeResponse]) -> dict[int, str]:
    """Reasons of the failed items."""
    return {
        event.failed.index: event.failed.error.reason
        for event in events
        if event.HasField("failed")
    }
