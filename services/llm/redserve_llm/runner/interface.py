"""What the engine asks of a runner and gets back. No torch: the fake one stands on this too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    from redserve.domain import SequenceKey, SequenceRequest
    from redserve.modeling.device_slab import DevicePiece
    from redserve.scheduling.micro_batch import MicroBatch


@dataclass(frozen=True, slots=True)
class ItemRows:
    """Embedding rows of one item as they lie in the arena.

    Attributes:
        data: uint8, num_layers * num_rows * hidden_size * item size bytes; row-major
            [num_layers, num_rows, hidden_size]. Valid until the engine gave the rows up. In
            memory of a device they are a piece, which becomes an array by a copy.
        num_layers: 1 + number of deepstack layers.
        num_rows: Rows per layer.
        hidden_size: Columns.
        dtype: "float32", "bfloat16" or "float16".
    """

    data: NDArray[np.uint8] | DevicePiece
    num_layers: int
    num_rows: int
    hidden_size: int
    dtype: str


ITEM_SIZES: dict[str, int] = {"float32": 4, "bfloat16": 2, "float16": 2}
"""Bytes per element of every dtype that rows may have."""


@dataclass(frozen=True, slots=True)
class SampledToken:
    """One token that a chunk produced.

    Attributes:
        token_id: The token.
        logprob: Natural-log probability, if the request asked for it.
        top: (token, natural-log probability) of the most likely tokens, best first.
    """

    token_id: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


class RunnerDead(Exception):
    """The runner can run no further step: its device or its state is lost."""


class RowSource(Protocol):
    """Gives the rows of an item that the scheduler put into a chunk."""

    def __call__(self, key: SequenceKey, item_index: int) -> ItemRows:
        """The rows; they stay where they are until the batch is updated."""
        ...


class ModelRunner(Protocol):
    """Runs micro-batches. `run` is called from the engine's thread only."""

    def add(self, request: SequenceRequest) -> None:
        """Make ready for a sequence; from any thread.

        Raises:
            InvalidArgument: The request cannot be run.
        """
        ...

    def remove(self, key: SequenceKey) -> None:
        """Forget a sequence that is in no batch any more; from any thread. Idempotent."""
        ...

    def run(self, batch: MicroBatch, rows: RowSource) -> Mapping[SequenceKey, SampledToken]:
        """Compute a batch; one token for every chunk with `samples`.

        Raises:
            Overloaded: The device ran out of memory; a smaller batch may run.
            RunnerDead: No further step can run.
        """
        ...

    def warm_up(self) -> None:
        """Run once what is slow, or fails, the first time; before any sequence was added.

        Raises:
            Overloaded: The device has not enough memory for a full step.
        """
        ...
