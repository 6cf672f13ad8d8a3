from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from redserve.spec.base import Spec
from redserve.spec.crd import KINDS, RED_POOL, RED_SERVICE, crd_yaml, definition
from redserve.spec.crd_schema import structural
from redserve.spec.manifest import ManifestError, load_manifest, parse_manifest
from redserve.spec.problems import struct_in
from redserve.spec.service import RedServiceSpec
from redserve.spec.status import CONDITIONS, RedServiceStatus
from redserve_operator.decide.reasons import CONDITIONS as REPORTED
from tests.spec.manifests import ROOT
from tests.spec.verdicts import ACCEPTED, REFUSED
from tools.docs.fields import named_fields

if TYPE_CHECKING:
    from collections.abc import Iterator

    from redserve.spec.crd import Kind
    from tests.spec.verdicts import Case

LARGEST_CRD = 60_000
CHART = ROOT / "helm/redserve/files/crds"
OPAQUE = "x-kubernetes-preserve-unknown-fields"
INT_OR_STRING = "x-kubernetes-int-or-string"


def schema_of(kind: Kind) -> Any:
    return definition(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]


def nodes(schema: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every schema node with its path; not what stands inside of anyOf."""
    yield path, schema
    for name, field in schema.get("properties", {}).items():
        yield from nodes(field, f"{path}.{name}")
    for inner in ("items", "additionalProperties"):
        if inner in schema:
            yield from nodes(schema[inner], f"{path}[]")


def written(value: Any) -> Iterator[Any]:
    """Everything in plain data, keys included."""
    yield value
    if isinstance(value, dict):
        for key, one in value.items():
            yield key
            yield from written(one)
    elif isinstance(value, list):
        for one in value:
            yield from written(one)


def structs(model: type[Spec], path: str = "") -> Iterator[tuple[str, type[Spec]]]:
    """Every struct below a model with the path of its node, as `nodes` writes it."""
    yield path, model
    for name, field in named_fields(model).items():
        inner = struct_in(field.annotation)
        if inner is not None and issubclass(inner, Spec):
            several = "[]" if "tuple[" in str(field.annotation) else ""
            yield from structs(inner, f"{path}.{name}{several}")


def own_nodes(kind: Kind) -> list[tuple[str, Any]]:
    """Without apiVersion, kind and metadata, which the API server knows itself."""
    fields = schema_of(kind)["properties"]
    return [*nodes(fields["spec"], "spec"), *nodes(fields["status"], "status")]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_what_is_committed_is_fresh(kind: Kind) -> None:
    committed = (CHART / f"{kind.plural}.yaml").read_text()
    assert committed == crd_yaml(kind), "run 'make docs' and commit"
    assert yaml.safe_load(committed) == definition(kind)
    assert {path.name for path in CHART.iterdir()} == {f"{one.plural}.yaml" for one in KINDS}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_small(kind: Kind) -> None:
    assert len(json.dumps(definition(kind), separators=(",", ":"))) < LARGEST_CRD


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_structural(kind: Kind) -> None:
    words = list(written(schema_of(kind)))
    assert not {"$ref", "title", "null", "allOf", "oneOf", "const", "prefixItems"} & {
        word for word in words if isinstance(word, str)
    }
    assert not any(isinstance(word, float) for word in words)
    for path, node in nodes(schema_of(kind)):
        if node.get(INT_OR_STRING):
            assert node["anyOf"] == [{"type": "integer"}, {"type": "string"}], path
        else:
            assert node["type"] in {"object", "array", "string", "integer", "boolean"}, path
            assert "anyOf" not in node, path


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_everything_is_bounded_and_described(kind: Kind) -> None:
    for path, node in own_nodes(kind):
        assert path.endswith("[]") or node["description"], path
        match node.get("type"):
            case "string":
                assert "enum" in node or "maxLength" in node, path
            case "integer":
                assert {"minimum", "maximum", "format"} <= set(node), path
            case "array":
                assert {"maxItems", "x-kubernetes-list-type"} <= set(node), path
            case "object":
                assert "properties" in node or "maxProperties" in node or node[OPAQUE], path
            case None:
                assert {"pattern", "maxLength", "minimum", "maximum"} <= set(node), path


def test_only_pods_are_opaque() -> None:
    opaque = {path.rpartition(".")[2] for path, node in own_nodes(RED_SERVICE) if OPAQUE in node}
    assert opaque == {"podTemplate", "valueFrom"}


def test_keyed_lists() -> None:
    lists = {
        path: node.get("x-kubernetes-list-map-keys", [node["x-kubernetes-list-type"]])[0]
        for path, node in own_nodes(RED_SERVICE)
        if node.get("type") == "array"
    }
    assert lists["spec.slos"] == lists["spec.llm.env"] == lists["spec.imagePullSecrets"] == "name"
    assert lists["spec.router.resources.claims"] == lists["status.pools"] == "name"
    assert lists["status.conditions"] == "type"
    assert lists["spec.encoder.modalities"] == "set"
    assert lists["spec.llm.extraArgs"] == "atomic"


def test_structs_default_to_nothing_and_their_fields_to_their_values() -> None:
    found = {path: node.get("default") for path, node in own_nodes(RED_SERVICE)}
    assert found["spec.router"] == found["spec.router.media"] == found["spec.llm.rollout"] == {}
    assert found["spec.encoder"] is found["spec.llm.resources"] is found["spec.slos"] is None
    assert found["spec.llm.arenaSize"] == "256Mi"
    assert found["spec.llm.rollout.maxSurge"] == 1
    assert found["spec.encoder.modalities"] == ["Image"]
    assert found["spec.llm.replicas"] is None


def test_status_has_no_defaults() -> None:
    """Else what the operator reads would differ from what it wrote."""
    for path, node in nodes(structural(RedServiceStatus)):
        assert "default" not in node, path
    assert {path for path, node in own_nodes(RED_POOL) if "default" in node} == {
        "spec.replicas",
        "status.replicas",
    }


@pytest.mark.parametrize(
    ("path", "struct"),
    [(path, one) for path, one in structs(RedServiceSpec) if one.RULES],
    ids=[path or "spec" for path, one in structs(RedServiceSpec) if one.RULES],
)
def test_every_rule_reaches_the_api_server(path: str, struct: type[Spec]) -> None:
    schema = dict(nodes(structural(RedServiceSpec)))
    entries = schema[path].get("x-kubernetes-validations", [])
    for rule in struct.RULES:
        if rule.cel is not None:
            assert rule.to_cel() in entries
        else:
            assert schema[f"{path}.{rule.field}"]["x-kubernetes-list-type"] in {"map", "set"}


def test_every_rule_is_in_the_table() -> None:
    """Each rule refuses a manifest of `REFUSED`, so that the API server is seen to refuse it."""
    told = set()
    for case in REFUSED:
        with pytest.raises(ManifestError) as caught:
            parse_manifest(json.dumps(case.manifest()), Path("x.yaml"))
        told |= {problem.message for problem in caught.value.problems}
    rules = {rule.message for _, struct in structs(RedServiceSpec) for rule in struct.RULES}
    assert rules <= told


@pytest.mark.parametrize("case", ACCEPTED, ids=lambda case: case.name)
def test_the_models_accept(case: Case) -> None:
    parse_manifest(json.dumps(case.manifest()), Path("x.yaml"))


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.name)
def test_the_models_refuse(case: Case) -> None:
    with pytest.raises(ManifestError) as caught:
        parse_manifest(json.dumps(case.manifest()), Path("x.yaml"))
    assert case.field in [problem.field for problem in caught.value.problems]


def test_subresources_and_columns() -> None:
    service, pool = (definition(kind)["spec"]["versions"][0] for kind in KINDS)
    assert service["subresources"] == {"status": {}}
    assert pool["subresources"]["scale"]["labelSelectorPath"] == ".status.selector"
    wide = {c["name"] for c in service["additionalPrinterColumns"] if c.get("priority")}
    assert wide == {"Model", "Routers", "Endpoint"}


def test_the_page_lists_the_conditions_that_the_operator_sets() -> None:
    assert tuple(CONDITIONS) == REPORTED


@pytest.mark.parametrize("name", ["redservice", "redservice-minimal", "redservice-complete"])
def test_examples(name: str) -> None:
    assert load_manifest(ROOT / f"examples/{name}.yaml")


def test_the_complete_example_has_every_field() -> None:
    text = (ROOT / "examples/redservice-complete.yaml").read_text()
    missing = [
        f"{path}.{name}"
        for path, struct in structs(RedServiceSpec)
        for name in named_fields(struct)
        if f"{name}:" not in text
    ]
    assert not missing


def test_the_minimal_example_is_short() -> None:
    lines = (ROOT / "examples/redservice-minimal.yaml").read_text().splitlines()
    assert len(lines) <= 16


def test_status_is_read_as_it_is_written() -> None:
    """By the models too, for those who report or watch a service in Python."""
    written = {
        "observedGeneration": 1,
        "conditions": [
            {
                "type": "Ready",
                "status": "True",
                "lastTransitionTime": "2026-01-01T00:00:00Z",
                "reason": "Serving",
                "message": "",
            }
        ],
        "pools": [{"name": "llm", "desired": 2, "ready": 2, "readyText": "2/2"}],
        "endpoints": {"grpc": "demo:50051"},
    }
    made = RedServiceStatus.model_validate(written)
    assert made.model_dump(by_alias=True, mode="json", exclude_none=True) == written
