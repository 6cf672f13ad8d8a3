"""`spec.model`: which checkpoint is served, under which name."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from redserve.spec.base import Rule, Spec
from redserve.spec.patterns import DATA_KEY, OBJECT_NAME
from redserve.spec.quantity import AtLeast, Quantity

SCHEMES = ("hf", "file", "s3", "gs", "oci", "pvc")
"""Where a checkpoint may lie; `redserve up` can read the first two."""

ModelDType = Literal["Auto", "Float32", "BFloat16", "Float16"]


class SecretKey(Spec):
    """A key of a Secret in the service's namespace."""

    name: str = Field(
        min_length=1, max_length=253, pattern=OBJECT_NAME, description="Name of the Secret."
    )
    key: str = Field(
        default="HF_TOKEN",
        min_length=1,
        max_length=253,
        pattern=DATA_KEY,
        description="Key in the Secret.",
    )


class ClaimCache(Spec):
    """A volume that holds checkpoints."""

    claim_name: str = Field(
        min_length=1,
        max_length=253,
        pattern=OBJECT_NAME,
        description="Name of the PersistentVolumeClaim.",
    )
    read_only: bool = Field(
        default=False, description="Whether the pods mount it read-only; it must then be filled."
    )


class EphemeralCache(Spec):
    """Scratch space of each pod that holds the checkpoint."""

    size_limit: Annotated[Quantity, AtLeast("1Mi")] = Field(
        description="Most bytes of the scratch space."
    )


class ModelCache(Spec):
    """Where pods keep checkpoints; exactly one of the fields."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "set exactly one of persistentVolumeClaim and ephemeral",
            lambda self: (self.persistent_volume_claim is None) != (self.ephemeral is None),
            cel="has(self.persistentVolumeClaim) != has(self.ephemeral)",
        ),
    )

    persistent_volume_claim: ClaimCache | None = Field(
        default=None, description="A volume that pods share."
    )
    ephemeral: EphemeralCache | None = Field(
        default=None, description="Scratch space of each pod, filled when it starts."
    )


class ModelSpec(Spec):
    """The checkpoint."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "uri must start with " + ", ".join(f"{scheme}://" for scheme in SCHEMES),
            lambda self: re.match(rf"({'|'.join(SCHEMES)})://.", self.uri) is not None,
            cel=f"self.uri.matches('^({'|'.join(SCHEMES)})://.+')",
            field="uri",
        ),
    )

    uri: str = Field(
        min_length=6,
        max_length=1024,
        description="hf://organisation/name, file:///folder, file://folder (beside the manifest "
        "under `redserve up`, in /models of the container in a cluster), pvc://claim/path, "
        "s3://bucket/path, gs://bucket/path or oci://image.",
    )
    revision: str | None = Field(
        default=None,
        max_length=256,
        description="Commit, tag or digest; pin it for repeatable rollouts.",
    )
    name: str | None = Field(
        default=None,
        min_length=1,
        max_length=128,
        description="Served name; metadata.name if not set.",
    )
    token_secret_ref: SecretKey | None = Field(
        default=None, description="Token for a hub that asks for one."
    )
    cache: ModelCache | None = Field(default=None, description="Where pods keep the checkpoint.")
    max_model_length: int | None = Field(
        default=None,
        ge=1,
        le=16_777_216,
        description="Longest prompt plus output, tokens; the checkpoint's own if not set.",
    )
    dtype: ModelDType = Field(
        default="Auto",
        description="Number format of weights and activations; Auto is the checkpoint's own on a "
        "GPU and Float32 on a CPU.",
    )

    @property
    def scheme(self) -> str:
        """The part of the URI before `://`."""
        return self.uri.partition("://")[0]
