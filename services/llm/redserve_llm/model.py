"""A model that is ready to run, real or fake, and what the replica must know of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from redserve.domain import SamplingParams
    from redserve.transport.placement import DeviceMemory
    from redserve_llm.delivery import RowShape
    from redserve_llm.detokenizer import Vocabulary
    from redserve_llm.runner.interface import ModelRunner

CostGuess = tuple[float, float, float, float, float]
"""Coefficients that a cost model starts from; see `redserve.scheduling.CostModel`."""


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """Facts.

    Attributes:
        fingerprint: Digest over the checkpoint's files; must equal the encoders'.
        family: For example "qwen2_5_vl".
        shape: Of every embedding.
        dtype: "float32", "bfloat16" or "float16": what it computes in.
        num_blocks: Blocks of the KV cache.
        block_size: Tokens per block.
        max_model_length: Most tokens of prompt and output; the KV cache holds as many.
        end_token_ids: The checkpoint's end tokens.
        sampling: The checkpoint's defaults.
        atomic_items: No prefill chunk may end inside a span.
    """

    fingerprint: str
    family: str
    shape: RowShape
    dtype: str
    num_blocks: int
    block_size: int
    max_model_length: int
    end_token_ids: tuple[int, ...]
    sampling: SamplingParams
    atomic_items: bool = False


@dataclass(frozen=True, slots=True)
class Model:
    """A model and its parts.

    Attributes:
        info: Facts.
        runner: Computes steps.
        vocabulary: Turns tokens into text.
        cost_guess: How long a step may take, before any was measured.
        device_memory: Of the device that the runner computes on; None when that is the host's.
    """

    info: ModelInfo
    runner: ModelRunner
    vocabulary: Vocabulary
    cost_guess: CostGuess
    device_memory: DeviceMemory | None = None
