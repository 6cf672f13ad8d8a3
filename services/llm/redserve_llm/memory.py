"""How many KV blocks there are, and how long a sequence may be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from redserve.errors import ConfigError
from redserve.telemetry.log import get_logger

if TYPE_CHECKING:
    from redserve.spec.settings import LLMSettings

log = get_logger()

GIB = 1024**3
MAX_CPU_BYTES = GIB
"""What the KV cache takes of a CPU's memory unless `kv_cache_bytes` says otherwise: half of a
laptop's memory is more than its owner meant to give, and more than its cores can attend to."""


@dataclass(frozen=True, slots=True)
class CachePlan:
    """A KV cache that holds at least one sequence of the greatest length.

    Attributes:
        num_blocks: Blocks.
        max_model_length: Most tokens of a sequence.
    """

    num_blocks: int
    max_model_length: int


def plan_cache(
    settings: LLMSettings, *, block_bytes: int, max_positions: int, free_bytes: int, is_cpu: bool
) -> CachePlan:
    """Choose the size of the KV cache.

    Args:
        settings: `kv_cache_bytes`, or `memory_percent` of what is free (on a CPU at most 1 GiB).
        block_bytes: Of one block over all layers.
        max_positions: Longest sequence that the checkpoint was made for.
        free_bytes: Free on the device, the weights being loaded.
        is_cpu: Whether the device is the CPU.

    Raises:
        ConfigError: The length asked for is beyond the checkpoint, or not even one block fits.
    """
    if settings.max_model_length > max_positions:
        raise ConfigError(
            f"the checkpoint was made for {max_positions} tokens at most, not "
            f"{settings.max_model_length}",
            field="max_model_length",
        )
    wanted = settings.max_model_length or max_positions
    size = settings.kv_cache_bytes or free_bytes * settings.memory_percent // 100
    if is_cpu and not settings.kv_cache_bytes:
        size = min(size, MAX_CPU_BYTES)
    num_blocks = size // block_bytes
    if num_blocks < 1:
        raise ConfigError(
            f"{size} bytes do not hold a single KV block of {block_bytes} bytes; raise it, or "
            "memory_percent, or lower block_size",
            field="kv_cache_bytes",
        )
    fits = num_blocks * settings.block_size
    if fits < wanted:
        log.warning(
            "max_model_length is reduced to what the KV cache holds",
            wanted=wanted,
            max_model_length=fits,
            kv_cache_bytes=size,
        )
    return CachePlan(num_blocks, min(wanted, fits))
