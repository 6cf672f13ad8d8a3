"""What the engine asks of a model. No torch here, so that tests and load tests need no model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redserve.domain import ItemMetadata
    from redserve.transport.placement import DeviceMemory
    from redserve.transport.pool import Region
    from redserve.transport.slab import Slab

ITEM_SIZE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
"""Bytes of one number in each dtype that rows may have."""


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """The checkpoint that is served.

    Attributes:
        fingerprint: Digest over the checkpoint's files; must equal the LLM replica's.
        family: For example "qwen2_5_vl".
        placeholder: What the chat template emits per image.
        image_token_ids: Tokens whose positions receive rows.
        hidden_size: Columns of a row.
        num_layers: 1 + number of deepstack layers; an embedding is [num_layers, rows, hidden_size].
        dtype: "float32", "bfloat16" or "float16".
    """

    fingerprint: str
    family: str
    placeholder: str
    image_token_ids: tuple[int, ...]
    hidden_size: int
    num_layers: int
    dtype: str

    def embedding_bytes(self, num_rows: int) -> int:
        """Bytes of an embedding of `num_rows` rows."""
        return self.num_layers * num_rows * self.hidden_size * ITEM_SIZE_BYTES[self.dtype]


@dataclass(frozen=True, slots=True)
class Prepared:
    """A picture that is ready to be encoded.

    Attributes:
        metadata: Rows, grid and replacement text; a function of the picture's size alone.
        pixels: Whatever the model takes.
        num_bytes: Memory that `pixels` occupies.
    """

    metadata: ItemMetadata
    pixels: object
    num_bytes: int


class Vision(Protocol):
    """The vision side of a checkpoint."""

    @property
    def info(self) -> ModelInfo:
        """The checkpoint."""
        ...

    @property
    def device_memory(self) -> DeviceMemory | None:
        """Memory of the device that it computes on; None when that is the host's."""
        ...

    def adopt(self, memory: Slab) -> None:
        """Learn the memory in which all destinations will lie; once, before the first encode."""
        ...

    def describe(self, data: bytes) -> ItemMetadata:
        """What the size of an encoded picture tells, from its header if possible.

        Called from any thread.

        Raises:
            InvalidArgument: The data is no picture, or of a size that the model does not take.
            PolicyViolation: The picture has too many pixels.
        """
        ...

    def prepare(self, data: bytes) -> Prepared:
        """Decode and preprocess one picture. Called from several threads at once.

        Raises:
            InvalidArgument: The data is no picture, truncated or corrupt, or of a size that the
                model does not take.
            PolicyViolation: The picture has too many pixels.
        """
        ...

    async def encode(self, batch: Sequence[Prepared], destinations: Sequence[Region]) -> list[int]:
        """Encode a batch and write each embedding to its destination; it is there on return.

        Called by one task at a time. `destinations[i]` holds exactly the bytes of
        [num_layers, batch[i].metadata.num_rows, hidden_size], contiguous, in the memory of `adopt`.

        Returns:
            Rows that the model made of each item. Where the number is not the metadata's, the
            destination is left alone.

        Raises:
            DeviceLostError: The device will not come back within this process.
            Exception: Whatever the model raised; another batch may succeed.
        """
        ...

    def close(self) -> None:
        """Stop the model's threads. Idempotent."""
        ...


class DeviceLostError(Exception):
    """The accelerator's context is broken: only a new process can use it again."""
