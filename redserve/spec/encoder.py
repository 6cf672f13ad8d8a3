"""`spec.encoder`: the pool that turns pictures into embeddings."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from redserve.spec.base import AS_SET, Lax, Rule, unique_by
from redserve.spec.pool import Parallelism, PoolSpec
from redserve.spec.quantity import AtLeast, Quantity

DeviceKind = Literal["Auto", "CPU", "CUDA"]
"""Auto is a GPU where there is one, else the CPU."""

Modality = Literal["Image", "Video", "Audio"]


class EncoderSpec(PoolSpec):
    """The encoder pool."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        *PoolSpec.RULES,
        Rule(
            "idleBatchRows must not exceed batchRows",
            lambda self: self.idle_batch_rows <= self.batch_rows,
            cel="self.idleBatchRows <= self.batchRows",
            field="idleBatchRows",
        ),
        Rule(
            "modalities must not repeat one",
            lambda self: unique_by(lambda modality: modality, self.modalities),
            field="modalities",
        ),
    )

    modalities: Annotated[tuple[Modality, ...], Lax] = Field(
        default=("Image",),
        min_length=1,
        max_length=3,
        description="What requests may contain.",
        json_schema_extra=AS_SET,
    )
    parallelism: Parallelism = Field(
        default=Parallelism(), description="How one replica is spread over devices."
    )
    device: DeviceKind = Field(default="Auto", description="What a replica computes on.")
    batch_rows: int = Field(
        default=1024,
        ge=1,
        le=1_048_576,
        description="Embedding rows of one batch while the LLM engine has work to do.",
    )
    idle_batch_rows: int = Field(
        default=1,
        ge=1,
        le=1_048_576,
        description="Embedding rows of one batch while the LLM engine waits; small, so that "
        "prefill can start on the first picture. A batch holds at least one picture.",
    )
    pool_size: Annotated[Quantity, AtLeast("1Mi")] = Field(
        default=Quantity.parse("256Mi"),
        description="Memory for embeddings that are waiting to be fetched or cached, bytes.",
    )
    preprocess_threads: int = Field(
        default=1, ge=1, le=256, description="Threads that decode and resize pictures."
    )
    max_queued_rows: int = Field(
        default=1_000_000,
        ge=1,
        le=2_000_000_000,
        description="Embedding rows that may wait before new work is refused.",
    )
