"""An encoder as an LLM replica sees it: a real producer, and announcements."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import numpy as np

from redserve.transport.factory import make_producer
from redserve.transport.pool import Pool
from redserve.v1 import llm_pb2 as pb
from redserve.v1 import llm_pb2_grpc
from redserve.wire.channel import open_channel
from redserve.wire.server import ServiceServer
from redserve.wire.transport import peer_to_proto

if TYPE_CHECKING:
    from tests.llm.service import Question

MIB = 1 << 20
TIMEOUT_S = 10.0


class FakeEncoder:
    """Holds embeddings and announces them as an encoder would."""

    def __init__(self, address_of_llm: str, pool_bytes: int = 8 * MIB, ttl_s: float = 10.0) -> None:
        self.server = ServiceServer("127.0.0.1", 0)
        port = self.server.bind()
        self.pool = Pool(pool_bytes)
        self.side = make_producer(
            "grpc", self.pool, "encoder-0", f"127.0.0.1:{port}", ttl_s, metrics=None
        )
        self.side.add_to(self.server)
        self.channel = open_channel(address_of_llm)
        self.stub = llm_pb2_grpc.LlmServiceStub(self.channel)
        self.released: asyncio.Queue[tuple[str, bool]] = asyncio.Queue()
        self._regions: dict[str, Any] = {}
        self._loop = asyncio.get_running_loop()

    async def announce(
        self,
        asked: Question,
        index: int,
        attempt: int = 1,
        *,
        generation: int | None = None,
        offer: bool = True,
        **changes: Any,
    ) -> pb.EmbeddingReadyResponse:
        key = asked.request.key
        rows = asked.rows[index]
        tensor_key = f"{key.request_id}/{key.generation}/{index}/{attempt}"
        if offer:
            self.offer(tensor_key, rows)
        fields: dict[str, Any] = {
            "tensor_key": tensor_key,
            "shape": rows.shape,
            "dtype": "float32",
            "producer": peer_to_proto(self.side.peer_info),
        }
        tag = pb.GenerationTag(
            request_id=key.request_id,
            generation=key.generation if generation is None else generation,
            item_index=index,
            attempt=attempt,
        )
        request = pb.EmbeddingReadyRequest(tag=tag, **{**fields, **changes})
        return await self.stub.EmbeddingReady(request, timeout=TIMEOUT_S)

    def offer(self, tensor_key: str, rows: np.ndarray[Any, Any]) -> None:
        region = self.pool.alloc(rows.nbytes)
        region.view[:] = np.frombuffer(rows.tobytes(), np.uint8)
        self._regions[tensor_key] = region
        self.side.lease_table.offer(tensor_key, region, self._on_released)

    def withdraw(self, tensor_key: str) -> None:
        self.side.lease_table.withdraw(tensor_key)
        self._regions.pop(tensor_key).free()

    def _on_released(self, key: str, consumed: bool) -> None:
        self._loop.call_soon_threadsafe(self.released.put_nowait, (key, consumed))

    async def stop(self) -> None:
        """Vanish, as if killed: connections break, nothing is withdrawn."""
        await self.server.grpc.stop(None)

    async def close(self) -> None:
        await self.channel.close()
        await self.server.grpc.stop(None)
        self.side.close()
