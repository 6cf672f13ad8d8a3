"""Telling LLM replicas that an embedding can be pulled."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc

from redserve.errors import DeadlineExceeded, Unavailable
from redserve.transport.base import PeerInfo
from redserve.v1 import llm_pb2 as pb
from redserve.v1 import llm_pb2_grpc
from redserve.wire.channel import open_channel
from redserve.wire.errors import from_rpc_error
from redserve.wire.transport import peer_to_proto

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from redserve_encoder.delivery import GenerationTag
    from redserve_encoder.vision import ModelInfo

    Metadata = tuple[tuple[str, str], ...]

MAX_CHANNELS = 64
"""Connections that are kept; replicas come and go, and each old address would keep one."""
RETRY_DELAYS_S = (0.1, 0.25, 0.5)
"""Pauses before the second and later tries at a replica that cannot be reached."""
ANSWER_TIMEOUT_S = 10.0
"""An announcement is a dictionary look-up over there: who takes longer hangs."""
QUESTION_TIMEOUT_S = 2.0
"""The same for a question, which is asked again anyhow."""
_KNOWN = PeerInfo("", "", "")
"""For a question: the replica has been told who has it."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the LLM replica will do.

    Attributes:
        accepted: It will pull and release. False: late or doubled, nobody wants it.
        why: Why not, for people.
    """

    accepted: bool
    why: str


class LlmClients:
    """Announces embeddings over one channel per LLM replica. The event loop owns it."""

    def __init__(self, producer: Callable[[], Awaitable[PeerInfo]], model: ModelInfo) -> None:
        """Connect to nobody yet.

        Args:
            producer: This process, for whoever pulls; see `ProducerSide.current`.
            model: Says what an embedding looks like.
        """
        self._producer = producer
        self._model = model
        self._channels: OrderedDict[str, grpc.aio.Channel] = OrderedDict()
        self._num_calls: dict[str, int] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def expect(self, address: str) -> None:
        """Connect to a replica that there will be something to tell."""
        self._channel(address).get_state(try_to_connect=True)

    async def announce(
        self,
        address: str,
        tag: GenerationTag,
        key: str,
        num_rows: int,
        deadline_s: float,
        metadata: Metadata = (),
    ) -> Answer:
        """Say that `num_rows` rows can be pulled under `key`.

        A replica that cannot be reached is tried again a few times within the deadline.

        Args:
            address: host:port of the LLM replica.
            tag: Which delivery.
            key: What to prepare at this process.
            num_rows: Rows per layer.
            deadline_s: When to give up, seconds of the monotonic clock.
            metadata: Goes with the call.

        Raises:
            Unavailable: It cannot be reached or does not answer.
            DeadlineExceeded: The deadline has passed.
            RedServeError: Whatever else it says.
        """
        try:
            async with asyncio.timeout(deadline_s - time.monotonic()):
                producer = await self._producer()
        except TimeoutError:
            raise DeadlineExceeded("the deadline passed, and nobody could read from here") from None
        request = self._request(tag, key, num_rows, producer)
        for delay_s in RETRY_DELAYS_S:
            try:
                return await self._call(address, request, deadline_s, metadata, ANSWER_TIMEOUT_S)
            except Unavailable:
                if time.monotonic() + delay_s >= deadline_s:
                    raise
            await asyncio.sleep(delay_s)
        return await self._call(address, request, deadline_s, metadata, ANSWER_TIMEOUT_S)

    async def still_wants(
        self, address: str, tag: GenerationTag, key: str, num_rows: int, deadline_s: float
    ) -> bool:
        """Ask once whether what was announced will still be pulled.

        Args:
            address: host:port of the LLM replica.
            tag: Which delivery.
            key: What was announced.
            num_rows: Rows per layer.
            deadline_s: When the request's time is up, seconds of the monotonic clock.

        Raises:
            DeadlineExceeded: That time is up.
            RedServeError: There is no answer.
        """
        request = self._request(tag, key, num_rows, _KNOWN)
        answer = await self._call(address, request, deadline_s, (), QUESTION_TIMEOUT_S)
        return answer.accepted

    async def close(self) -> None:
        """Close every channel."""
        for address in list(self._channels):
            self._close(address)
        await asyncio.gather(*self._closing)

    def _request(
        self, tag: GenerationTag, key: str, num_rows: int, producer: PeerInfo
    ) -> pb.EmbeddingReadyRequest:
        return pb.EmbeddingReadyRequest(
            tag=pb.GenerationTag(
                request_id=tag.request_id,
                generation=tag.generation,
                item_index=tag.item_index,
                attempt=tag.attempt,
            ),
            tensor_key=key,
            shape=[self._model.num_layers, num_rows, self._model.hidden_size],
            dtype=self._model.dtype,
            producer=peer_to_proto(producer),
        )

    async def _call(
        self,
        address: str,
        request: pb.EmbeddingReadyRequest,
        deadline_s: float,
        metadata: Metadata,
        timeout_s: float,
    ) -> Answer:
        remaining_s = deadline_s - time.monotonic()
        if remaining_s <= 0:
            raise DeadlineExceeded("the deadline passed before the LLM replica could be told")
        stub = llm_pb2_grpc.LlmServiceStub(self._channel(address))
        self._num_calls[address] = self._num_calls.get(address, 0) + 1
        try:
            response = await stub.EmbeddingReady(
                request, timeout=min(remaining_s, timeout_s), metadata=metadata
            )
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED and time.monotonic() < deadline_s:
                raise Unavailable(
                    f"LLM replica {address} did not answer within {timeout_s:g} s"
                ) from error
            if error.code() is grpc.StatusCode.UNAVAILABLE:
                raise Unavailable(f"LLM replica {address} cannot be reached") from error
            raise from_rpc_error(error) from error
        finally:
            if address in self._num_calls:
                self._num_calls[address] -= 1
        return Answer(response.accepted, response.why)

    def _channel(self, address: str) -> grpc.aio.Channel:
        channel = self._channels.get(address)
        if channel is not None:
            self._channels.move_to_end(address)
            return channel
        idle = [known for known in self._channels if not self._num_calls.get(known)]
        for known in idle[: max(0, len(self._channels) + 1 - MAX_CHANNELS)]:
            self._close(known)
        channel = self._channels[address] = open_channel(address)
        return channel

    def _close(self, address: str) -> None:
        self._num_calls.pop(address, None)
        task = asyncio.create_task(self._channels.pop(address).close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
