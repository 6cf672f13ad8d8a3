"""What the three pools (router, encoder, llm) have in common."""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from redserve.spec.base import BY_NAME, IntOrPercent, Lax, Rule, Spec, unique_by
from redserve.spec.mapping import Keys
from redserve.spec.patterns import ENV_NAME, LABEL_NAME, NO_NUL, QUALIFIED_NAME
from redserve.spec.quantity import Quantity

SETTINGS_PREFIX = "REDSERVE_"
"""Environment names that REDServe writes itself, from the manifest's fields."""


_ZERO = "^0+%?$"


def _is_zero(number: str) -> bool:
    return re.fullmatch(_ZERO, number) is not None


class Scaling(Spec):
    """A pool whose size changes."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "minReplicas must not exceed maxReplicas",
            lambda self: self.min_replicas <= self.max_replicas,
            cel="self.minReplicas <= self.maxReplicas",
            field="minReplicas",
        ),
    )

    mode: Literal["External", "SLO"] = Field(
        default="External",
        description="Who writes the replica count: External (HPA or KEDA through /scale) or SLO "
        "(the operator).",
    )
    min_replicas: int = Field(default=1, ge=0, le=1000, description="Fewest replicas.")
    max_replicas: int = Field(ge=1, le=1000, description="Most replicas.")
    scale_up_stabilization_seconds: int = Field(
        default=30, ge=0, le=3600, description="How long a need must last before growing, seconds."
    )
    scale_down_stabilization_seconds: int = Field(
        default=300,
        ge=0,
        le=3600,
        description="How long a lull must last before shrinking, seconds.",
    )


class ResourceClaim(Spec):
    """A claim of dynamic resource allocation."""

    name: str = Field(
        min_length=1,
        max_length=63,
        pattern=LABEL_NAME,
        description="Name in podTemplate.spec.resourceClaims.",
    )
    request: str | None = Field(
        default=None,
        min_length=1,
        max_length=63,
        pattern=LABEL_NAME,
        description="One request of the claim; all if not set.",
    )


Amounts = Annotated[dict[str, Quantity], Field(max_length=32), Keys(QUALIFIED_NAME)]
"""Resource -> amount."""


class Resources(Spec):
    """What each replica gets."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "no two claims may have the same name",
            lambda self: unique_by(lambda claim: claim.name, self.claims),
            field="claims",
        ),
    )

    limits: Amounts = Field(
        default_factory=dict,
        description="Most of each resource, by name: cpu, memory, nvidia.com/gpu, ...",
    )
    requests: Amounts = Field(default_factory=dict, description="Least of each resource, by name.")
    claims: Annotated[tuple[ResourceClaim, ...], Lax] = Field(
        default=(),
        max_length=16,
        description="Claims of dynamic resource allocation.",
        json_schema_extra=BY_NAME,
    )


class EnvVar(Spec):
    """One environment variable of the serving container."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            f"names that start with {SETTINGS_PREFIX} are written by REDServe: "
            "set the manifest's field instead",
            lambda self: not self.name.startswith(SETTINGS_PREFIX),
            cel=f"!self.name.startsWith('{SETTINGS_PREFIX}')",
            field="name",
        ),
        Rule(
            "set only one of value and valueFrom",
            lambda self: self.value is None or self.value_from is None,
            cel="!(has(self.value) && has(self.valueFrom))",
        ),
    )

    name: str = Field(min_length=1, max_length=256, pattern=ENV_NAME, description="Name.")
    value: str | None = Field(
        default=None, max_length=32_768, pattern=NO_NUL, description="Value; quote numbers."
    )
    value_from: dict[str, Any] | None = Field(
        default=None, description="Where a pod takes the value from, as in Kubernetes."
    )


class Rollout(Spec):
    """How replicas are replaced."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "maxSurge and maxUnavailable must not both be 0: nothing could ever be replaced",
            lambda self: not (_is_zero(self.max_surge) and _is_zero(self.max_unavailable)),
            cel="!has(self.maxSurge) || !has(self.maxUnavailable) || "
            f"!string(self.maxSurge).matches('{_ZERO}') || "
            f"!string(self.maxUnavailable).matches('{_ZERO}')",
            field="maxUnavailable",
        ),
    )

    max_surge: IntOrPercent = Field(default="1", description="Replicas above the wanted number.")
    max_unavailable: IntOrPercent = Field(
        default="0", description="Replicas that may be missing meanwhile."
    )
    drain_timeout_seconds: int = Field(
        default=120,
        ge=0,
        le=3600,
        description="Longest wait for running streams before a replica is stopped, seconds.",
    )


class Disruption(Spec):
    """How many replicas maintenance may take away at once."""

    max_unavailable: IntOrPercent = Field(default="1", description="Replicas that may be missing.")


class Parallelism(Spec):
    """How one replica is spread over devices."""

    tensor: int = Field(default=1, ge=1, le=64, description="Devices that share each layer.")
    pipeline: int = Field(default=1, ge=1, le=64, description="Stages of layers.")


class PoolSpec(Spec):
    """A pool of replicas."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "replicas and scaling are mutually exclusive",
            lambda self: self.replicas is None or self.scaling is None,
            cel="!(has(self.replicas) && has(self.scaling))",
        ),
        Rule(
            "env must not name a variable twice",
            lambda self: unique_by(lambda variable: variable.name, self.env),
            field="env",
        ),
    )

    replicas: int | None = Field(
        default=None,
        ge=0,
        le=1000,
        description="Fixed size; leave it out when scaling is set. 1 if neither is set.",
    )
    scaling: Scaling | None = Field(default=None, description="Changing size.")
    image: str | None = Field(
        default=None,
        min_length=1,
        max_length=512,
        description="Container image; the release's own if not set.",
    )
    resources: Resources = Field(default=Resources(), description="What each replica gets.")
    env: Annotated[tuple[EnvVar, ...], Lax] = Field(
        default=(),
        max_length=128,
        description="Environment of the serving container.",
        json_schema_extra=BY_NAME,
    )
    extra_args: Annotated[tuple[Annotated[str, Field(max_length=1024)], ...], Lax] = Field(
        default=(),
        max_length=64,
        description="Arguments appended to the command of the pods, in a cluster; the manifest's "
        "own fields come first.",
    )
    rollout: Rollout = Field(default=Rollout(), description="How replicas are replaced.")
    disruption: Disruption = Field(
        default=Disruption(), description="How many replicas maintenance may take away."
    )
    shared_memory_size: Quantity | None = Field(
        default=None, description="tmpfs at /dev/shm, bytes; 0 disables it."
    )
    pod_template: dict[str, Any] | None = Field(
        default=None,
        description="Pod template merged over the generated one (strategic merge; the serving "
        'container is named "main").',
    )

    @property
    def num_replicas(self) -> int:
        """Replicas to start with."""
        if self.scaling is not None:
            return self.scaling.min_replicas
        return 1 if self.replicas is None else self.replicas
