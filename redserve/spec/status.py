"""What the operator reports in `.status`.

No defaults: the API server would fill them in, and what the operator wrote would differ from what
it reads.
"""

from __future__ import annotations

from datetime import datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Final, Literal

from pydantic import Field, WithJsonSchema

from redserve.spec.base import BY_NAME, Lax, Spec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic.config import JsonDict

BY_TYPE: Final[JsonDict] = {
    "x-kubernetes-list-type": "map",
    "x-kubernetes-list-map-keys": ["type"],
}

CONDITIONS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "Accepted": "the manifest can be kept here, and the API server takes the pods made from it",
        "ModelCached": "the checkpoint lies where pods read it, or needs no place of its own",
        "EncoderReady": "as many encoders of the newest revision serve as are wanted",
        "LLMReady": "as many LLM engines of the newest revision serve as are wanted",
        "RouterReady": "as many routers of the newest revision serve as are wanted",
        "TransportReady": "encoders and engines have a data path between them",
        "MonitoringReady": "what Prometheus is to read of the service is made as the manifest says",
        "Ready": "requests are answered: by the newest revision, or by the one before while it "
        "starts",
        "Progressing": "something is being started, replaced or stopped; False with the reason "
        "RolloutComplete when the newest revision serves alone",
        "Degraded": "something that served before does not, or will not without help",
    }
)
"""Types of a RedService's conditions, in the order of a request's way, and what True means."""

Count = Annotated[int, Field(ge=0, le=1_000_000)]
Generation = Annotated[int, Field(ge=0, le=2**53)]
Text = Annotated[str, Field(max_length=32_768)]
Moment = Annotated[
    datetime, Lax, WithJsonSchema({"type": "string", "format": "date-time", "maxLength": 64})
]


class Condition(Spec):
    """One aspect of the state, in the shape that all of Kubernetes uses."""

    type: str = Field(min_length=1, max_length=316, description="Which aspect.")
    status: Literal["True", "False", "Unknown"] = Field(description="Whether it holds.")
    observed_generation: Generation | None = Field(
        default=None, description="Generation of the manifest that this is about."
    )
    last_transition_time: Moment = Field(description="When status last changed.")
    reason: str = Field(
        min_length=1,
        max_length=1024,
        pattern=r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$",
        description="Why, as one CamelCase word.",
    )
    message: Text = Field(description="Why, as a sentence.")


Conditions = Annotated[tuple[Condition, ...], Lax]


class PoolStatus(Spec):
    """One pool."""

    name: Literal["encoder", "llm", "router"] = Field(description="Which pool.")
    desired: Count | None = Field(default=None, description="Replicas that are wanted.")
    replicas: Count | None = Field(
        default=None, description="Replicas that exist, of every revision."
    )
    ready: Count | None = Field(
        default=None, description="Replicas of the newest revision that are ready."
    )
    updated: Count | None = Field(default=None, description="Replicas of the newest revision.")
    ready_text: str | None = Field(
        default=None,
        max_length=32,
        description="ready (of the newest revision) and desired for people: 2/3.",
    )
    message: Text | None = Field(default=None, description="What keeps replicas from serving.")


class ModelStatus(Spec):
    """The checkpoint that the loader Job has put into the volume."""

    uri: Text | None = Field(default=None, description="What the manifest names.")
    loader: str | None = Field(
        default=None, max_length=253, description="Name of the Job that has succeeded."
    )
    revision: str | None = Field(
        default=None,
        max_length=256,
        description="Commit that an unpinned revision was resolved to.",
    )


class Endpoints(Spec):
    """Where clients reach the service inside the cluster."""

    grpc: Text | None = Field(default=None, description="host:port of the gRPC API.")
    http: Text | None = Field(default=None, description="URL of the OpenAI-compatible API.")


class RedServiceStatus(Spec):
    """What the operator made of the manifest."""

    observed_generation: Generation | None = Field(
        default=None, description="Generation of the manifest that was acted upon."
    )
    conditions: Conditions = Field(
        default=(), max_length=16, description="The state, by aspect.", json_schema_extra=BY_TYPE
    )
    pools: Annotated[tuple[PoolStatus, ...], Lax] = Field(
        default=(), max_length=3, description="The state, by pool.", json_schema_extra=BY_NAME
    )
    current_revision: str | None = Field(
        default=None, max_length=64, description="Revision that was fully rolled out last."
    )
    update_revision: str | None = Field(
        default=None,
        max_length=64,
        description="Revision that the manifest asks for; the same when nothing is being rolled.",
    )
    model: ModelStatus | None = Field(default=None, description="The checkpoint.")
    endpoints: Endpoints | None = Field(
        default=None, description="Where clients reach the service inside the cluster."
    )
