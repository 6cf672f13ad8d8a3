"""Rows and prompt text of each picture, known from its size before anything is encoded."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from redserve.errors import InternalError, Overloaded, RedServeError, Unavailable
from redserve.routing import ItemFacts, spread_items
from redserve_router.tasks import gather_all

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redserve.domain import ItemMetadata
    from redserve_router.deadline import Deadline
    from redserve_router.media.collect import Picture
    from redserve_router.replicas.encoder import EncoderReplica
    from redserve_router.replicas.pools import ReplicaPools

MAX_REMEMBERED = 65_536
PIXELS_PER_ROW = 28 * 28
"""Of the Qwen-VL families; a guess that only decides which encoder is asked."""
RETRY_DELAY_S = 0.1

_Key = tuple[str, tuple[int, int] | bytes]
"""Fingerprint of the checkpoint, and size of the picture; its hash if the size is not known."""


class MetadataBook:
    """Metadata by picture size: asked of an encoder once, then remembered.

    For every supported family the rows of a picture follow from height and width alone.
    """

    def __init__(self, pools: ReplicaPools, encoder_grace_s: float) -> None:
        self._pools = pools
        self._encoder_grace_s = encoder_grace_s
        self._known: OrderedDict[_Key, ItemMetadata] = OrderedDict()
        self._locks: WeakValueDictionary[_Key, asyncio.Lock] = WeakValueDictionary()

    async def of(
        self, pictures: Sequence[Picture], fingerprint: str, deadline: Deadline
    ) -> tuple[ItemMetadata, ...]:
        """Metadata of each picture, in order.

        Raises:
            InvalidArgument, PolicyViolation: An encoder cannot read a picture; names its field.
            Unavailable: No encoder answered in time.
        """
        keys = [_key(picture, fingerprint) for picture in pictures]
        metadata = {key: self._recall(key) for key in keys if key in self._known}
        unknown: dict[_Key, int] = {}
        for index, key in enumerate(keys):
            if key not in metadata:
                unknown.setdefault(key, index)
        if unknown:
            homes = self._likely_homes(pictures, fingerprint)
            learned = await gather_all(
                self._learn(key, pictures[index], homes.get(index), fingerprint, deadline)
                for key, index in unknown.items()
            )
            metadata.update(zip(unknown, learned, strict=True))
        return tuple(metadata[key] for key in keys)

    def _recall(self, key: _Key) -> ItemMetadata:
        self._known.move_to_end(key)
        return self._known[key]

    def _likely_homes(self, pictures: Sequence[Picture], fingerprint: str) -> dict[int, str]:
        """Where the pictures will probably be encoded: there the pixels should be prepared."""
        hashes = [picture.content_hash for picture in pictures]
        facts = (
            ItemFacts(index, picture.content_hash, _guess_rows(picture))
            for index, picture in enumerate(pictures)
        )
        encoders = self._pools.serving_encoders(fingerprint)
        return spread_items(facts, [encoder.snapshot(hashes) for encoder in encoders]) or {}

    async def _learn(
        self,
        key: _Key,
        picture: Picture,
        home: str | None,
        fingerprint: str,
        deadline: Deadline,
    ) -> ItemMetadata:
        # Requests that bring pictures of the same new size at the same time ask once.
        lock = self._locks.setdefault(key, asyncio.Lock())
        async with lock:
            if key in self._known:
                return self._recall(key)
            metadata = await self._ask(picture, home, fingerprint, deadline)
            self._known[key] = metadata
            if len(self._known) > MAX_REMEMBERED:
                self._known.popitem(last=False)
            return metadata

    async def _ask(
        self, picture: Picture, home: str | None, fingerprint: str, deadline: Deadline
    ) -> ItemMetadata:
        tried: set[str] = set()
        while True:
            encoder = await self._next_encoder(home, tried, fingerprint)
            tried.add(encoder.address)
            try:
                return await _describe(encoder, picture, deadline)
            except Overloaded:
                await asyncio.sleep(RETRY_DELAY_S)
            except Unavailable as error:
                encoder.broke(error)

    async def _next_encoder(
        self, home: str | None, tried: set[str], fingerprint: str
    ) -> EncoderReplica:
        def look() -> EncoderReplica | None:
            serving = {e.address: e for e in self._pools.serving_encoders(fingerprint)}
            if not serving.keys() - tried:
                tried.clear()  # all were tried: begin again
            fresh = [address for address in serving if address not in tried]
            if home in fresh:
                return serving[home]
            return serving[min(fresh)] if fresh else None

        encoder = await self._pools.find(look, self._encoder_grace_s)
        if encoder is None:
            raise Unavailable(
                f"no encoder serves; waited {self._encoder_grace_s:g} s", retry_after_s=1.0
            )
        return encoder


async def _describe(encoder: EncoderReplica, picture: Picture, deadline: Deadline) -> ItemMetadata:
    with encoder.use():
        results = await encoder.client.describe(
            [(picture.content_hash, picture.data)], deadline.remaining_s()
        )
    if len(results) != 1:
        raise InternalError(f"encoder {encoder.address} described {len(results)} of 1 pictures")
    result = results[0]
    if isinstance(result, RedServeError):
        raise type(result)(result.message, field=picture.field)
    encoder.note_described(picture.content_hash)
    return result


def _key(picture: Picture, fingerprint: str) -> _Key:
    return fingerprint, picture.upright_size or picture.content_hash


def _guess_rows(picture: Picture) -> int:
    height, width = picture.upright_size or (0, 0)
    return 1 + height * width // PIXELS_PER_ROW
