"""The CustomResourceDefinitions, made from the models (ADR 0011)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import yaml

from redserve.spec.crd_schema import structural
from redserve.spec.pool_resource import POOL_KIND, RedPoolSpec, RedPoolStatus
from redserve.spec.service import GROUP, KIND, VERSION, Metadata, RedService, RedServiceSpec
from redserve.spec.status import RedServiceStatus

if TYPE_CHECKING:
    from redserve.spec.base import Spec
    from redserve.spec.crd_schema import Schema

_CONDITION: Final = '.status.conditions[?(@.type=="Ready")]'
_POOL: Final = '.status.pools[?(@.name=="{}")].readyText'


@dataclass(frozen=True, slots=True)
class Column:
    """What `kubectl get` shows.

    Attributes:
        name: Heading.
        path: Where the value is.
        description: What it means.
        type: As Kubernetes names it.
        wide: Whether it takes `-o wide` to see it.
    """

    name: str
    path: str
    description: str
    type: str = "string"
    wide: bool = False

    def to_schema(self) -> Schema:
        """An entry of `additionalPrinterColumns`."""
        made = {"name": self.name, "type": self.type, "jsonPath": self.path}
        made["description"] = self.description
        return {**made, "priority": 1} if self.wide else made


_AGE: Final = Column("Age", ".metadata.creationTimestamp", "Time since it was made.", "date")


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of the group.

    Attributes:
        name, plural, short: What it is called.
        description: What it is.
        spec, status: Its models.
        columns: What `kubectl get` shows.
        scale: The `/scale` subresource, if it has one.
    """

    name: str
    plural: str
    short: str
    description: str
    spec: type[Spec]
    status: type[Spec]
    columns: tuple[Column, ...]
    scale: Schema | None = None

    @property
    def crd_name(self) -> str:
        """Name of the CustomResourceDefinition."""
        return f"{self.plural}.{GROUP}"


RED_SERVICE: Final = Kind(
    name=KIND,
    plural="redservices",
    short="rsvc",
    description=str(RedService.__doc__),
    spec=RedServiceSpec,
    status=RedServiceStatus,
    columns=(
        Column("Model", ".spec.model.uri", "The checkpoint.", wide=True),
        Column("Ready", f"{_CONDITION}.status", "Whether requests are answered."),
        Column("Reason", f"{_CONDITION}.reason", "Why it does or does not."),
        Column(
            "Encoders", _POOL.format("encoder"), "Encoders of the newest revision: ready/wanted."
        ),
        Column("LLMs", _POOL.format("llm"), "LLM engines of the newest revision: ready/wanted."),
        Column(
            "Routers",
            _POOL.format("router"),
            "Routers of the newest revision: ready/wanted.",
            wide=True,
        ),
        Column("Endpoint", ".status.endpoints.grpc", "Where gRPC clients connect.", wide=True),
        _AGE,
    ),
)

RED_POOL: Final = Kind(
    name=POOL_KIND,
    plural="redpools",
    short="rpool",
    description="The scale target of one pool of a RedService. Made by the operator: do not "
    "write one.",
    spec=RedPoolSpec,
    status=RedPoolStatus,
    columns=(
        Column("Service", ".spec.serviceName", "The RedService."),
        Column("Role", ".spec.role", "What the pool does."),
        Column("Desired", ".spec.replicas", "Replicas that are wanted.", "integer"),
        Column("Current", ".status.replicas", "Replicas that exist.", "integer"),
        Column("Ready", ".status.readyReplicas", "Replicas that serve.", "integer"),
        _AGE,
    ),
    scale={
        "specReplicasPath": ".spec.replicas",
        "statusReplicasPath": ".status.replicas",
        "labelSelectorPath": ".status.selector",
    },
)

KINDS: Final = (RED_SERVICE, RED_POOL)


def definition(kind: Kind) -> dict[str, Any]:
    """The CustomResourceDefinition of a kind, as plain data."""
    subresources: Schema = {"status": {}}
    if kind.scale is not None:
        subresources["scale"] = dict(kind.scale)
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": kind.crd_name},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": kind.name,
                "listKind": f"{kind.name}List",
                "plural": kind.plural,
                "singular": kind.name.lower(),
                "shortNames": [kind.short],
                "categories": ["redserve"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "additionalPrinterColumns": [column.to_schema() for column in kind.columns],
                    "subresources": subresources,
                    "schema": {"openAPIV3Schema": _object(kind)},
                }
            ],
        },
    }


def crd_yaml(kind: Kind) -> str:
    """The CustomResourceDefinition as it is committed."""
    text = yaml.dump(
        definition(kind), Dumper=_Dumper, sort_keys=False, width=100, allow_unicode=True
    )
    return f"# Made by `make docs` from redserve.spec; do not edit.\n{text}"


class _Dumper(yaml.SafeDumper):
    """Without anchors, which kubectl reads but people do not."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _object(kind: Kind) -> Schema:
    made: Schema = {
        "description": kind.description,
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": structural(kind.spec),
            "status": structural(kind.status),
        },
    }
    if kind is RED_SERVICE:
        made["x-kubernetes-validations"] = _name_rules()
    return made


def _name_rules() -> list[Schema]:
    """What the API server itself does not ask of a name; nothing else of metadata may be ruled."""
    name = structural(Metadata)["properties"]["name"]
    return [
        {
            "rule": f"size(self.metadata.name) <= {name['maxLength']}",
            "message": f"metadata.name must have at most {name['maxLength']} characters: names of "
            "what is made for the service begin with it",
        },
        {
            "rule": f"self.metadata.name.matches('{name['pattern']}')",
            "message": "metadata.name must be lower-case letters, digits and '-', a letter first",
        },
    ]
