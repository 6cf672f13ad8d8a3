"""The RedService: one source for manifests, the CustomResourceDefinition and `redserve up`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Final, Literal

from pydantic import Field, model_validator

from redserve.spec.base import BY_NAME, Lax, Rule, Spec, Switch, unique_by
from redserve.spec.encoder import EncoderSpec
from redserve.spec.llm import LLMSpec
from redserve.spec.mapping import Keys
from redserve.spec.model import ModelSpec
from redserve.spec.observe import Monitoring, ServiceLevelObjective
from redserve.spec.patterns import (
    ANNOTATION_NAME,
    LABEL_NAME,
    LABEL_VALUE,
    OBJECT_NAME,
    QUALIFIED_NAME,
    SERVICE_NAME,
)
from redserve.spec.router import RouterSpec
from redserve.spec.transport import TransportSpec

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

GROUP = "redserve.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
KIND = "RedService"


WRITTEN_BY_KUBERNETES: Final = frozenset(
    {
        "creationTimestamp",
        "deletionGracePeriodSeconds",
        "deletionTimestamp",
        "finalizers",
        "generateName",
        "generation",
        "managedFields",
        "ownerReferences",
        "resourceVersion",
        "selfLink",
        "uid",
    }
)
"""Fields of metadata that a manifest may contain and that mean nothing here."""


MAX_ANNOTATION_BYTES: Final = 256 * 1024
"""What the API server takes, keys included."""


class Metadata(Spec):
    """What Kubernetes needs to know of any object."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            f"annotations must not have more than {MAX_ANNOTATION_BYTES} bytes in all",
            lambda self: (
                sum(len(f"{key}{text}".encode()) for key, text in self.annotations.items())
                <= MAX_ANNOTATION_BYTES
            ),
            field="annotations",
        ),
    )

    name: str = Field(
        min_length=1,
        max_length=40,
        # A Kubernetes Service has this name, and those start with a letter (RFC 1035).
        pattern=SERVICE_NAME,
        description="Name of the service: lower-case letters, digits and '-', a letter first. "
        "Names of what is made for it are derived from it.",
    )
    namespace: str | None = Field(
        default=None,
        min_length=1,
        max_length=63,
        pattern=LABEL_NAME,
        description="Namespace in the cluster.",
    )
    labels: Annotated[
        dict[str, Annotated[str, Field(max_length=63, pattern=LABEL_VALUE)]],
        Field(max_length=1024),
        Keys(QUALIFIED_NAME),
    ] = Field(default_factory=dict, description="Labels.")
    annotations: Annotated[dict[str, str], Field(max_length=1024), Keys(ANNOTATION_NAME)] = Field(
        default_factory=dict, description="Annotations."
    )

    @model_validator(mode="before")
    @classmethod
    def _what_the_api_server_writes(cls, raw: object) -> object:
        """`kubectl get -o yaml` shows more than a manifest needs; it may stay there."""
        return _without(WRITTEN_BY_KUBERNETES, raw)


class EngineSpec(Spec):
    """Which software runs the model."""

    name: Literal["Builtin", "VLLM", "SGLang"] = Field(default="Builtin", description="The engine.")


class SecretName(Spec):
    """A Secret in the service's namespace."""

    name: str = Field(
        min_length=1, max_length=253, pattern=OBJECT_NAME, description="Name of the Secret."
    )


class RedServiceSpec(Spec):
    """Everything about a service."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "no two slos may have the same name",
            lambda self: unique_by(lambda slo: slo.name, self.slos),
            field="slos",
        ),
        Rule(
            "no two imagePullSecrets may have the same name",
            lambda self: unique_by(lambda secret: secret.name, self.image_pull_secrets),
            field="imagePullSecrets",
        ),
    )

    model: ModelSpec = Field(description="The checkpoint.")
    engine: EngineSpec = Field(default=EngineSpec(), description="Which software runs it.")
    encoder: EncoderSpec = Field(description="The pool that turns pictures into embeddings.")
    llm: LLMSpec = Field(description="The pool that prefills and decodes.")
    router: RouterSpec = Field(default=RouterSpec(), description="The door to the service.")
    transport: TransportSpec = Field(
        default=TransportSpec(), description="How embeddings travel from encoders to engines."
    )
    slos: Annotated[tuple[ServiceLevelObjective, ...], Lax] = Field(
        default=(), max_length=8, description="What is promised.", json_schema_extra=BY_NAME
    )
    monitoring: Monitoring = Field(default=Monitoring(), description="How it is watched.")
    network_policy: Switch = Field(
        default="Enabled", description="Let only those who need it reach the pods."
    )
    image_pull_secrets: Annotated[tuple[SecretName, ...], Lax] = Field(
        default=(),
        max_length=16,
        description="Secrets that container images are pulled with.",
        json_schema_extra=BY_NAME,
    )
    service_account_name: str | None = Field(
        default=None,
        min_length=1,
        max_length=253,
        pattern=OBJECT_NAME,
        description="ServiceAccount of all pods; made for the service if not set.",
    )
    reconcile: Literal["Active", "Paused", "Stopped"] = Field(
        default="Active",
        description="Paused freezes the operator for this object; Stopped also scales all pools "
        "to zero.",
    )


class RedService(Spec):
    """Serves one large multimodal model from an encoder pool and an LLM pool behind a router."""

    api_version: Literal["redserve.dev/v1alpha1"] = Field(description="Group and version.")
    kind: Literal["RedService"] = Field(description="Kind of object.")
    metadata: Metadata = Field(description="Name and labels.")
    spec: RedServiceSpec = Field(description="Everything about the service.")

    @model_validator(mode="before")
    @classmethod
    def _what_the_operator_writes(cls, raw: object) -> object:
        """The object as the API server has it is a manifest too."""
        return _without({"status"}, raw)

    @property
    def name(self) -> str:
        """Name of the service."""
        return self.metadata.name

    @property
    def model_name(self) -> str:
        """Name under which the model is served."""
        return self.spec.model.name or self.metadata.name


def _without(names: AbstractSet[str], raw: object) -> object:
    if not isinstance(raw, dict):
        return raw
    return {name: value for name, value in raw.items() if name not in names}
