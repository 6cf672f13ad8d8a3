"""A router that answers from a script, in this process or as a child of `redserve up`."""

from __future__ import annotations

import asyncio
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from redserve.errors import ModelNotFound, Overloaded
from redserve.spec.settings import RouterSettings
from redserve.v1 import router_pb2 as pb
from redserve.v1 import router_pb2_grpc, types_pb2
from redserve.wire.server import ServiceServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

MS = 1_000_000
EPOCH = 1_700_000_000_000 * MS


def timeline(request_id: str) -> types_pb2.Timeline:
    """Two encodes and a prefill, half of which overlaps; it hides a transfer."""
    bars = [
        ("encoder-0", "encode", 0, 40),
        ("encoder-1", "encode", 0, 40),
        ("llm-0", "prefill", 20, 60),
        ("llm-0", "transfer", 41, 45),
    ]
    return types_pb2.Timeline(
        request_id=request_id,
        bars=[
            types_pb2.TimelineBar(
                lane=lane,
                name=name,
                start_unix_ns=EPOCH + start * MS,
                end_unix_ns=EPOCH + end * MS,
                item_index=0 if name == "transfer" else None,
                num_tokens=9,
            )
            for lane, name, start, end in bars
        ],
        overlap_ratio=0.5,
        received_unix_ns=EPOCH,
        first_token_unix_ns=EPOCH + 60 * MS,
        finished_unix_ns=EPOCH + 80 * MS,
    )


def overview() -> pb.GetOverviewResponse:
    """A service that keeps one promise, breaks another and has not begun a third."""

    def tallies(good: int, bad: int) -> list[pb.SloTally]:
        windows = (60.0, 300.0, 3600.0, 0.0)
        return [pb.SloTally(window_s=window_s, good=good, bad=bad) for window_s in windows]

    return pb.GetOverviewResponse(
        model="fake",
        uptime_s=3723.0,
        slos=[
            pb.SloStatus(
                name="first", indicator="TimeToFirstToken", threshold_s=0.8, target=0.99,
                window_s=2_419_200.0, tallies=tallies(999, 1), attainment=0.999, budget_left=0.9,
            ),
            pb.SloStatus(
                name="up", indicator="Availability", target=0.999, window_s=86_400.0,
                tallies=tallies(90, 10), attainment=0.9, budget_left=-99.0,
            ),
            pb.SloStatus(
                name="encode", indicator="EncodeLatency", threshold_s=0.02, target=0.5,
                window_s=3600.0, tallies=tallies(0, 0),
            ),
        ],
        requests_per_s=1.25,
        failures_per_s=0.125,
        output_tokens_per_s=40.0,
        time_to_first_token=pb.Latency(p50_s=0.123, p95_s=0.5, p99_s=2.5, count=75),
        time_per_output_token=pb.Latency(p50_s=0.0123, p95_s=0.02, p99_s=0.03, count=70),
        num_inflight=7,
        num_queued=2,
    )  # fmt: skip


EVENTS = (
    pb.SloEvents(slo="quick", good=1),
    pb.SloEvents(slo="steady", bad=1),
    pb.SloEvents(slo="images", good=2, bad=1),
)


class FakeRouter(router_pb2_grpc.RouterServiceServicer):
    """Says what it was asked; `requests` remembers."""

    def __init__(self, replicas: dict[str, str] | None = None) -> None:
        self.requests: list[pb.GenerateRequest] = []
        self.waiting = threading.Event()
        self.cancelled = threading.Event()
        self.pairs: list[pb.PairCheck] = []
        self.overview = overview()
        self.num_overviews = 0
        self._replicas = replicas or {"127.0.0.1:7010": "encoder", "127.0.0.1:7030": "llm"}

    async def Generate(self, request: pb.GenerateRequest, _context: Any) -> AsyncIterator[Any]:  # noqa: N802
        self.requests.append(request)
        parts = request.messages[-1].parts
        question = parts[-1].text
        if question == "too much":
            raise Overloaded("the queue is full", retry_after_s=1.0)
        yield pb.GenerateResponse(started=pb.Started(request_id="r-1", model="fake"))
        words = f"{len(parts) - 1} pictures, {len(request.messages)} messages: {question}"
        for word in words.split(" "):
            tokens = pb.Tokens(text=f"{word} ", tokens=[types_pb2.TokenOutput(token_id=1)])
            yield pb.GenerateResponse(tokens=tokens)
        if question == "for ever":
            try:
                self.waiting.set()
                await asyncio.Event().wait()
            finally:
                self.cancelled.set()
        finished = pb.Finished(reason=types_pb2.FINISH_REASON_STOP)
        if request.include_timeline:
            finished.timeline.CopyFrom(timeline("r-1"))
            if question == "judged":
                finished.judged.CopyFrom(pb.Judged(events=EVENTS))
        yield pb.GenerateResponse(finished=finished)

    async def GetModel(self, _request: Any, _context: Any) -> Any:  # noqa: N802
        return pb.GetModelResponse(name="fake", max_model_length=4096, max_images=8, family="fake")

    async def GetTimeline(self, request: pb.GetTimelineRequest, _context: Any) -> Any:  # noqa: N802
        if request.request_id == "gone":
            raise ModelNotFound("no request 'gone' is remembered")
        return pb.GetTimelineResponse(timeline=timeline(request.request_id or "the-last"))

    async def ListReplicas(self, _request: Any, _context: Any) -> Any:  # noqa: N802
        return pb.ListReplicasResponse(replicas=self._all(), pair_checks=self.pairs)

    async def GetOverview(self, _request: Any, _context: Any) -> pb.GetOverviewResponse:  # noqa: N802
        answer = pb.GetOverviewResponse(replicas=self._all())
        answer.MergeFrom(self.overview)
        self.num_overviews += 1
        return answer

    def _all(self) -> list[pb.Replica]:
        return [
            pb.Replica(
                pool=pool,
                address=address,
                serving=True,
                transport="grpc",
                load={"queued_rows": 3},
            )
            for address, pool in self._replicas.items()
        ]


async def serve(router: FakeRouter, host: str, port: int) -> ServiceServer:
    """Start; the caller drains."""
    server = ServiceServer(host, port)
    add = router_pb2_grpc.add_RouterServiceServicer_to_server
    server.add(add, router, "redserve.v1.RouterService")
    await server.start()
    server.set_ready(True)
    return server


@contextmanager
def running(router: FakeRouter) -> Iterator[str]:
    """The router in a thread of its own; yields its address."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    server = asyncio.run_coroutine_threadsafe(serve(router, "127.0.0.1", 0), loop).result(20)
    try:
        yield server.address
    finally:
        asyncio.run_coroutine_threadsafe(server.drain(0.0), loop).result(20)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(20)
        loop.close()


async def main() -> None:
    settings = RouterSettings.from_env()
    pools = dict.fromkeys(settings.encoder_addresses, "encoder")
    pools |= dict.fromkeys(settings.llm_addresses, "llm")
    server = await serve(FakeRouter(pools), settings.grpc_host, settings.grpc_port)
    print(f"router of {settings.model_name} on {server.address}", flush=True)
    await server.wait_for_signal()
    await server.drain(settings.drain_timeout_s)


if __name__ == "__main__":
    asyncio.run(main())
