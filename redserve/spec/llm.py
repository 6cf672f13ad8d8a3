"""`spec.llm`: the pool that prefills and decodes."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from redserve.spec.base import Rule, Switch
from redserve.spec.encoder import DeviceKind
from redserve.spec.pool import Parallelism, PoolSpec
from redserve.spec.quantity import AtLeast, Quantity


class LLMSpec(PoolSpec):
    """The LLM engine pool."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        *PoolSpec.RULES,
        Rule(
            "set only one of kvCacheSize and memoryPercent",
            lambda self: self.kv_cache_size is None or self.memory_percent is None,
            cel="!(has(self.kvCacheSize) && has(self.memoryPercent))",
            field="memoryPercent",
        ),
        Rule(
            "minChunk must not exceed tokenBudget",
            lambda self: self.min_chunk <= self.token_budget,
            cel="self.minChunk <= self.tokenBudget",
            field="minChunk",
        ),
    )

    parallelism: Parallelism = Field(
        default=Parallelism(), description="How one replica is spread over devices."
    )
    device: DeviceKind = Field(default="Auto", description="What a replica computes on.")
    token_budget: int = Field(
        default=2048, ge=1, le=1_048_576, description="Most tokens of one micro-batch."
    )
    tpot_target_milliseconds: int | None = Field(
        default=None,
        ge=1,
        le=60_000,
        description="Time per output token to keep, milliseconds: the token budget shrinks while "
        "requests decode so that a step stays below it. Off if not set.",
    )
    block_size: int = Field(default=16, ge=1, le=1024, description="Tokens of one KV block.")
    kv_cache_size: Annotated[Quantity, AtLeast("1Mi")] | None = Field(
        default=None, description="Memory of the KV cache, bytes; memoryPercent if not set."
    )
    memory_percent: int | None = Field(
        default=None,
        ge=1,
        le=95,
        description="Share of the memory that is free after loading for the KV cache, percent; "
        "50 if neither this nor kvCacheSize is set.",
    )
    max_sequences: int = Field(
        default=64, ge=1, le=65_536, description="Most sequences that run at once."
    )
    max_queued_requests: int = Field(
        default=512, ge=1, le=1_000_000, description="Requests that may wait before one is refused."
    )
    min_chunk: int = Field(
        default=16,
        ge=1,
        le=1_048_576,
        description="Least tokens of a prefill chunk while the request is still being encoded.",
    )
    overlap: Switch = Field(
        default="Enabled",
        description="Prefill what is ready while the rest of the request is being encoded; "
        "Disabled waits for every embedding first.",
    )
    prefix_cache: Switch = Field(
        default="Enabled", description="Keep the KV of finished prompts for the next ones."
    )
    arena_size: Annotated[Quantity, AtLeast("1Mi")] = Field(
        default=Quantity.parse("256Mi"),
        description="Memory where embeddings land before they are prefilled, bytes.",
    )
