"""`spec.transport`: how embeddings travel from encoders to LLM engines."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from redserve.spec.base import Rule, Spec
from redserve.spec.patterns import QUALIFIED_NAME

TransportType = Literal["Auto", "RDMA", "TCP", "GRPC", "InProcess"]


class Rdma(Spec):
    """RDMA devices of the pods."""

    resource_name: str = Field(
        min_length=1,
        max_length=317,
        pattern=QUALIFIED_NAME,
        description="Extended resource that stands for a device, for example rdma/ib.",
    )
    count: int = Field(default=1, ge=1, le=16, description="Devices of each pod.")
    memlock: Literal["IPCLock", "Runtime"] = Field(
        default="IPCLock",
        description="IPCLock adds the capability (needs a privileged namespace); Runtime trusts "
        "the node's memlock limit.",
    )


class TransportPlacement(Spec):
    """Keeps encoders and engines close."""

    topology_key: str = Field(
        min_length=1,
        max_length=317,
        pattern=QUALIFIED_NAME,
        description="Node label whose values count as close.",
    )
    mode: Literal["Preferred", "Required"] = Field(
        default="Preferred", description="Whether pods wait for a close node."
    )


class TransportSpec(Spec):
    """The data path."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "transport.rdma is required when type is RDMA",
            lambda self: self.type != "RDMA" or self.rdma is not None,
            cel="!has(self.type) || self.type != 'RDMA' || has(self.rdma)",
            field="rdma",
        ),
    )

    type: TransportType = Field(
        default="Auto",
        description="How engines fetch embeddings from encoders; Auto is RDMA where both have it, "
        "else GRPC. RDMA never falls back: what is missing keeps pods from becoming ready.",
    )
    rdma: Rdma | None = Field(
        default=None, description="RDMA devices of the pods, for the types Auto and RDMA."
    )
    placement: TransportPlacement | None = Field(
        default=None, description="Keeps encoders and engines close."
    )
    chunk_tokens: int | None = Field(
        default=None,
        ge=1,
        le=1_048_576,
        description="Embedding rows of one transfer; a whole image if not set.",
    )
    lease_seconds: int = Field(
        default=30,
        ge=1,
        le=3600,
        description="How long an encoder keeps an embedding for an engine that asked for it, "
        "seconds.",
    )
