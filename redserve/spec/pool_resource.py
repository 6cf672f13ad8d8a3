"""The RedPool: one pool of a RedService as a thing that can be scaled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal

from pydantic import Field

from redserve.spec.base import Spec
from redserve.spec.patterns import SERVICE_NAME
from redserve.spec.status import BY_TYPE, Conditions, Count, Generation

if TYPE_CHECKING:
    from collections.abc import Mapping

    from redserve.spec.placement import Role

POOL_KIND: Final = "RedPool"
PoolRole = Literal["Router", "Encoder", "LLM"]
ROLES: Final[Mapping[Role, PoolRole]] = {"encoder": "Encoder", "llm": "LLM", "router": "Router"}
"""Pool -> `spec.role` of its RedPool."""


def _immutable(field: str) -> dict[str, Any]:
    return {
        "x-kubernetes-validations": [
            {"rule": "self == oldSelf", "message": f"{field} cannot be changed"}
        ]
    }


class RedPoolSpec(Spec):
    """Which pool, and its size."""

    role: PoolRole = Field(
        description="What the pool does; cannot be changed.", json_schema_extra=_immutable("role")
    )
    service_name: str = Field(
        min_length=1,
        max_length=40,
        pattern=SERVICE_NAME,
        description="The RedService that it belongs to; cannot be changed.",
        json_schema_extra=_immutable("serviceName"),
    )
    replicas: int = Field(
        default=1,
        ge=0,
        le=1000,
        description="Replicas that are wanted: written by the operator, or through /scale by HPA, "
        "KEDA and kubectl scale where the manifest has scaling.",
    )


class RedPoolStatus(Spec):
    """The pool as it is; what /scale shows."""

    replicas: Count = Field(default=0, description="Replicas that exist, of every revision.")
    ready_replicas: Count | None = Field(
        default=None, description="Replicas of the newest revision that serve."
    )
    selector: str | None = Field(
        default=None,
        max_length=1024,
        description="Selects one pod of each replica, for autoscalers.",
    )
    observed_generation: Generation | None = Field(
        default=None, description="Generation of the RedPool that was acted upon."
    )
    conditions: Conditions = Field(
        default=(), max_length=16, description="The state, by aspect.", json_schema_extra=BY_TYPE
    )
