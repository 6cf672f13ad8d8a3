"""`spec.router`: the door to the service."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from redserve.spec.base import AutoSwitch, Lax, Rule, Spec, Switch
from redserve.spec.mapping import Keys
from redserve.spec.patterns import ANNOTATION_NAME, OBJECT_NAME
from redserve.spec.pool import PoolSpec
from redserve.spec.quantity import AtLeast, Quantity, cel_quantity

_HOST = (
    "Address to listen on; 127.0.0.1 under `redserve up`, every address in a cluster if not set."
)


class RouterService(Spec):
    """The Kubernetes Service in front of the routers."""

    type: Literal["ClusterIP", "NodePort", "LoadBalancer"] = Field(
        default="ClusterIP", description="Kind of Service."
    )
    annotations: Annotated[
        dict[str, Annotated[str, Field(max_length=4096)]],
        Field(max_length=32),
        Keys(ANNOTATION_NAME),
    ] = Field(default_factory=dict, description="Annotations of the Service.")


class RouterTLS(Spec):
    """Certificates of the router."""

    secret_name: str = Field(
        min_length=1,
        max_length=253,
        pattern=OBJECT_NAME,
        description="Secret with tls.crt and tls.key.",
    )


class HttpListener(Spec):
    """Where the OpenAI-compatible HTTP API listens."""

    host: str | None = Field(default=None, min_length=1, max_length=253, description=_HOST)
    port: int = Field(default=8000, ge=0, le=65535, description="Port; 0 takes a free one.")


class GrpcListener(Spec):
    """Where the gRPC API listens."""

    host: str | None = Field(default=None, min_length=1, max_length=253, description=_HOST)
    port: int = Field(default=50051, ge=0, le=65535, description="Port; 0 takes a free one.")


class MediaPolicy(Spec):
    """Which pictures are taken."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "maxImageSize must not exceed maxRequestSize",
            lambda self: self.max_image_size.value <= self.max_request_size.value,
            cel="!has(self.maxImageSize) || !has(self.maxRequestSize) || "
            f"{cel_quantity('self.maxImageSize')}"
            f".compareTo({cel_quantity('self.maxRequestSize')}) <= 0",
            field="maxImageSize",
        ),
        Rule(
            "allowedHosts needs urlFetch: Enabled",
            lambda self: not self.allowed_hosts or self.url_fetch == "Enabled",
            cel="!has(self.allowedHosts) || size(self.allowedHosts) == 0 || "
            "self.urlFetch == 'Enabled'",
            field="allowedHosts",
        ),
    )

    max_images: int = Field(
        default=32, ge=0, le=10_000, description="Most images of one request; 0 is text only."
    )
    max_image_size: Annotated[Quantity, AtLeast("1")] = Field(
        default=Quantity.parse("20Mi"), description="Most bytes of one encoded image."
    )
    max_image_pixels: int = Field(
        default=64_000_000, ge=1, le=2_000_000_000, description="Most pixels of one image."
    )
    max_request_size: Annotated[Quantity, AtLeast("1")] = Field(
        default=Quantity.parse("64Mi"), description="Most bytes of one request with its images."
    )
    url_fetch: Switch = Field(
        default="Disabled", description="Whether the router fetches http(s) image addresses."
    )
    allowed_hosts: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=253)], ...], Lax
    ] = Field(
        default=(),
        max_length=64,
        description="When not empty, images are fetched from these hosts only.",
    )
    private_addresses: Switch = Field(
        default="Disabled",
        description="Whether images may come from loopback and private addresses; for closed "
        "networks only.",
    )
    fetch_timeout_seconds: int = Field(
        default=10, ge=1, le=600, description="Longest fetch of one image, seconds."
    )


class RouterSpec(PoolSpec):
    """The routers."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        *PoolSpec.RULES,
        Rule(
            "http.port and grpc.port must differ",
            lambda self: self.http.port != self.grpc.port or self.http.port == 0,
            cel="!has(self.http) || !has(self.grpc) || self.http.port == 0 || "
            "self.http.port != self.grpc.port",
            field="http.port",
        ),
        Rule(
            "playground: Enabled needs openAI: Enabled",
            lambda self: self.playground != "Enabled" or self.open_ai == "Enabled",
            cel="!has(self.playground) || self.playground != 'Enabled' || !has(self.openAI) || "
            "self.openAI == 'Enabled'",
            field="playground",
        ),
    )

    service: RouterService = Field(
        default=RouterService(), description="The Kubernetes Service in front of the routers."
    )
    open_ai: Switch = Field(
        default="Enabled",
        alias="openAI",
        description="Serve the OpenAI-compatible HTTP API next to gRPC.",
    )
    playground: AutoSwitch = Field(
        default="Auto",
        description="Serve a page at / to ask questions and to see where their time went; Auto "
        "does so under `redserve up` and not in a cluster.",
    )
    tls: RouterTLS | None = Field(default=None, description="Certificates; plain text if not set.")
    http: HttpListener = Field(default=HttpListener(), description="Where HTTP listens.")
    grpc: GrpcListener = Field(default=GrpcListener(), description="Where gRPC listens.")
    media: MediaPolicy = Field(default=MediaPolicy(), description="Which pictures are taken.")
    request_timeout_seconds: int = Field(
        default=300,
        ge=1,
        le=86_400,
        description="Deadline of a request that brings none, seconds.",
    )
    max_inflight_requests: int = Field(
        default=1024, ge=1, le=1_000_000, description="Requests in flight before one is refused."
    )
    encoder_grace_seconds: int = Field(
        default=60,
        ge=0,
        le=86_400,
        description="How long a request waits while no encoder serves, seconds.",
    )
    llm_grace_seconds: int = Field(
        default=3,
        ge=0,
        le=86_400,
        description="How long a request waits while no LLM engine serves, seconds; the default "
        "outlasts a connection that has broken, not an engine that starts.",
    )
    kept_timelines: int = Field(
        default=256, ge=1, le=100_000, description="Timelines kept for `redserve trace`."
    )
