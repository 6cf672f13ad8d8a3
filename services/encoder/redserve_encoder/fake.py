"""A model without weights: rows follow from the content, time passes as it is told to.

Decoding, sizes and errors are real; only the network in the middle is not there.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from typing import TYPE_CHECKING, cast

import numpy as np

from redserve.domain import ItemMetadata
from redserve.modeling.images import decode_image
from redserve.transport.buffer import write
from redserve_encoder.sizes import upright_size
from redserve_encoder.vision import ModelInfo, Prepared

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from redserve.transport.placement import DeviceMemory
    from redserve.transport.pool import Region
    from redserve.transport.slab import Slab

CELL = 16
"""Edge in pixels of the square that one row stands for."""
ROW_TOKEN_ID = 7

_NUM_REMEMBERED = 4096


class FakeVision:
    """`Vision` whose embeddings are a function of the content hash alone.

    Attributes:
        batches: The content hashes of each batch, the latest ones.
    """

    def __init__(
        self,
        *,
        hidden_size: int = 8,
        num_layers: int = 1,
        dtype: str = "float32",
        seconds_per_row: float = 0.0,
        wait: Callable[[float], Awaitable[None]] = asyncio.sleep,
        max_image_pixels: int = 64_000_000,
    ) -> None:
        """Make a model.

        Args:
            hidden_size: Columns of a row.
            num_layers: 1 + number of deepstack layers.
            dtype: "float32", "bfloat16" or "float16".
            seconds_per_row: What `wait` is given per row of a batch.
            wait: Takes the place of computing; awaited once per batch.
            max_image_pixels: Most pixels of one picture.
        """
        self._seconds_per_row = seconds_per_row
        self._wait = wait
        self._max_pixels = max_image_pixels
        self._info = ModelInfo(
            fingerprint="fake",
            family="fake",
            placeholder="<image>",
            image_token_ids=(ROW_TOKEN_ID,),
            hidden_size=hidden_size,
            num_layers=num_layers,
            dtype=dtype,
        )
        self.batches: deque[tuple[bytes, ...]] = deque(maxlen=_NUM_REMEMBERED)

    @property
    def info(self) -> ModelInfo:
        """See `Vision`."""
        return self._info

    @property
    def device_memory(self) -> DeviceMemory | None:
        """See `Vision`."""
        return None

    def adopt(self, memory: Slab) -> None:
        """See `Vision`."""

    def describe(self, data: bytes) -> ItemMetadata:
        """See `Vision`: one row per `CELL` x `CELL` pixels, edges rounded up."""
        return _metadata(*upright_size(data, max_pixels=self._max_pixels))

    def prepare(self, data: bytes) -> Prepared:
        """See `Vision`: decodes for real, keeps the hash."""
        image = decode_image(data, max_pixels=self._max_pixels, field="picture")
        metadata = _metadata(image.height, image.width)
        return Prepared(metadata, hashlib.sha256(data).digest(), num_bytes=len(image.tobytes()))

    async def encode(self, batch: Sequence[Prepared], destinations: Sequence[Region]) -> list[int]:
        """See `Vision`."""
        contents = tuple(cast("bytes", item.pixels) for item in batch)
        self.batches.append(contents)
        num_rows = [item.metadata.num_rows for item in batch]
        await self._wait(self._seconds_per_row * sum(num_rows))
        for content, rows, destination in zip(contents, num_rows, destinations, strict=True):
            write(destination, 0, self.embedding(content, rows))
        return num_rows

    def embedding(self, content_hash: bytes, num_rows: int) -> bytes:
        """The bytes of [num_layers, num_rows, hidden_size] for a content."""
        shape = (self._info.num_layers, num_rows, self._info.hidden_size)
        seed = int.from_bytes(content_hash[:8], "little")
        values = np.random.default_rng(seed).standard_normal(shape, np.float32)
        if self._info.dtype == "float16":
            return values.astype(np.float16).tobytes()
        if self._info.dtype == "bfloat16":  # the upper half of a float32
            return (values.view(np.uint32) >> 16).astype(np.uint16).tobytes()
        return values.tobytes()

    def close(self) -> None:
        """See `Vision`."""


def _metadata(height: int, width: int) -> ItemMetadata:
    rows, columns = -(-height // CELL), -(-width // CELL)
    return ItemMetadata(rows * columns, (1, rows, columns), f"<{'r' * (rows * columns)}>")
