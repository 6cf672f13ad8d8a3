"""A checkpoint's language side, loaded and ready to run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from redserve.modeling.checkpoint import fingerprint
from redserve.modeling.device_slab import device_memory
from redserve.modeling.devices import free_bytes, select_device
from redserve.modeling.parts import load_language
from redserve.modeling.tokenizer import load_tokenizer
from redserve.telemetry.log import get_logger
from redserve.transport.placement import place
from redserve_llm.delivery import RowShape
from redserve_llm.detokenizer import Vocabulary
from redserve_llm.memory import plan_cache
from redserve_llm.model import Model, ModelInfo
from redserve_llm.runner.kv_cache import KVCache, block_bytes
from redserve_llm.runner.model_runner import TorchRunner
from redserve_llm.sampling_defaults import sampling_defaults

if TYPE_CHECKING:
    from pathlib import Path

    from redserve.modeling.language import LanguagePart
    from redserve.spec.settings import LLMSettings
    from redserve_llm.model import CostGuess

log = get_logger()

_CPU_WARM_UP_TOKENS = 8


def load_model(path: Path, settings: LLMSettings) -> Model:
    """Load decoder and head, and give the KV cache its memory.

    Args:
        path: Folder of a checkpoint whose family is served.
        settings: Device, dtype and memory.

    Raises:
        UnsupportedModel: Weights are missing or the decoder is of another kind.
        ConfigError: The device is not there, or the memory does not do.
    """
    device = select_device(settings.device)
    part = load_language(path, device, settings.dtype)
    size = block_bytes(part.kv_layers, settings.block_size, part.dtype)
    memory = device_memory(device)
    arena = place(settings.transport, settings.arena_bytes, memory)
    arena_bytes = settings.arena_bytes if arena.memory == "vram" else 0
    plan = plan_cache(
        settings,
        block_bytes=size,
        max_positions=part.max_positions,
        free_bytes=max(free_bytes(device) - arena_bytes, 0),
        is_cpu=device.type == "cpu",
    )
    cache = KVCache(part.kv_layers, plan.num_blocks, settings.block_size, part.dtype, device)
    dtype = str(part.dtype).removeprefix("torch.")
    log.info(
        "loaded",
        family=part.family.model_type,
        device=str(device),
        dtype=dtype,
        weight_bytes=part.num_bytes,
        kv_cache_bytes=cache.num_bytes,
        num_blocks=plan.num_blocks,
        max_model_length=plan.max_model_length,
    )
    info = ModelInfo(
        fingerprint=fingerprint(path),
        family=part.family.model_type,
        shape=RowShape(1 + part.num_deepstack, part.hidden_size),
        dtype=dtype,
        num_blocks=plan.num_blocks,
        block_size=settings.block_size,
        max_model_length=plan.max_model_length,
        end_token_ids=part.eos_token_ids,
        sampling=sampling_defaults(path, plan.max_model_length),
        atomic_items=part.family.bidirectional_items,
    )
    warm_up_tokens = _CPU_WARM_UP_TOKENS if device.type == "cpu" else settings.token_budget
    runner = TorchRunner(part, cache, warm_up_tokens=warm_up_tokens)
    return Model(info, runner, Vocabulary(load_tokenizer(path)), _guess(part), memory)


def _guess(part: LanguagePart) -> CostGuess:
    """Coarse: weights once through memory per step, two operations per weight and token."""
    on_cpu = part.device.type == "cpu"
    bytes_per_s, operations_per_s = (1e10, 5e10) if on_cpu else (2e12, 2e14)
    per_token_s = 2 * part.num_bytes / part.dtype.itemsize / operations_per_s
    kv_bytes = block_bytes(part.kv_layers, 1, part.dtype)
    return (
        part.num_bytes / bytes_per_s,
        per_token_s,
        kv_bytes / operations_per_s,
        per_token_s,
        kv_bytes / bytes_per_s,
    )
