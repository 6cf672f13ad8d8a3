from __future__ import annotations

from typing import Any, get_args

import pytest
import yaml
from pydantic import BaseModel, ValidationError

from redserve.spec.base import Spec
from redserve.spec.manifest import load_manifest
from redserve.spec.problems import struct_in
from redserve.spec.service import RedService
from tests.spec.manifests import EXAMPLES, MINIMAL, ROOT, service


def all_structs(model: type[BaseModel] = RedService) -> list[type[BaseModel]]:
    found = [model]
    for field in model.model_fields.values():
        inner = struct_in(field.annotation)
        if inner is not None:
            found += [one for one in all_structs(inner) if one not in found]
    return found


@pytest.mark.parametrize(
    "path",
    [EXAMPLES / "minimal.yaml", EXAMPLES / "complete.yaml", ROOT / "examples/redservice.yaml"],
    ids=lambda path: path.name,
)
def test_examples_are_valid(path: Any) -> None:
    assert load_manifest(path).spec.model.uri


def test_the_complete_example_means_what_it_says() -> None:
    made = load_manifest(EXAMPLES / "complete.yaml")
    spec = made.spec
    assert made.model_name == "qwen3-vl"
    assert spec.encoder.num_replicas == 2
    assert spec.encoder.resources.limits["memory"].num_bytes == 64 * 1024**3
    assert spec.llm.parallelism.tensor == 4
    assert spec.transport.rdma is not None
    assert spec.slos[0].objective_percent == "99"
    assert spec.monitoring.tracing is not None


def test_defaults_are_valid_when_written_out() -> None:
    made = RedService.model_validate(MINIMAL)
    again = made.model_dump(by_alias=True, mode="json", exclude_none=True)
    assert RedService.model_validate(yaml.safe_load(yaml.safe_dump(again))) == made


@pytest.mark.parametrize("struct", all_structs(), ids=lambda struct: struct.__name__)
def test_conventions_of_every_struct(struct: type[BaseModel]) -> None:
    assert issubclass(struct, Spec)
    assert struct.__doc__
    for name, field in struct.model_fields.items():
        assert field.description, f"{name} says nothing"
        assert field.description.endswith("."), name
        assert "_" not in (field.alias or name), name
        assert float not in (field.annotation, *get_args(field.annotation)), name
        if field.annotation in (int, int | None):
            assert {type(bound).__name__ for bound in field.metadata} >= {"Ge", "Le"}, name


def test_lists_and_maps_are_bounded() -> None:
    for struct in all_structs():
        for name, field in struct.model_fields.items():
            if "tuple[" in str(field.annotation) or str(field.annotation).startswith("dict[str, r"):
                assert any(type(bound).__name__ == "MaxLen" for bound in field.metadata), name


def test_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        service().spec.llm.token_budget = 1


BROKEN: list[tuple[dict[str, Any], str]] = [
    ({"llm": {"replicas": 1, "scaling": {"maxReplicas": 2}}}, "replicas and scaling are mutually"),
    ({"llm": {"scaling": {"minReplicas": 3, "maxReplicas": 2}}}, "minReplicas must not exceed"),
    ({"model": {"uri": "http://x/y"}}, "uri must start with hf://"),
    ({"model": {"uri": "file://"}}, "uri must start with hf://"),
    ({"model": {"uri": "hf://a/b", "cache": {}}}, "exactly one of persistentVolumeClaim"),
    ({"transport": {"type": "RDMA"}}, "transport.rdma is required"),
    ({"slos": [{"name": "a", "indicator": "RequestLatency"}]}, "thresholdMilliseconds is required"),
    (
        {"slos": [{"name": "a", "indicator": "Availability", "thresholdMilliseconds": 7}]},
        "thresholdMilliseconds must not be given for Availability",
    ),
    ({"llm": {"kvCacheSize": "1Gi", "memoryPercent": 50}}, "only one of kvCacheSize"),
    ({"llm": {"minChunk": 64, "tokenBudget": 32}}, "minChunk must not exceed"),
    ({"encoder": {"batchRows": 8, "idleBatchRows": 9}}, "idleBatchRows must not exceed"),
    ({"encoder": {"modalities": ["Image", "Image"]}}, "modalities must not repeat"),
    ({"encoder": {"env": [{"name": "A"}, {"name": "A"}]}}, "env must not name a variable twice"),
    ({"router": {"http": {"port": 1}, "grpc": {"port": 1}}}, "http.port and grpc.port must differ"),
    ({"router": {"media": {"allowedHosts": ["a"]}}}, "allowedHosts needs urlFetch"),
    ({"router": {"media": {"maxRequestSize": "1Mi"}}}, "maxImageSize must not exceed"),
    (
        {"slos": [{"name": "a", "indicator": "Availability"}] * 2},
        "no two slos may have",
    ),
    (
        {"slos": [{"name": "a", "indicator": "Availability", "objectivePercent": "100"}]},
        "below 100",
    ),
    (
        {"slos": [{"name": "a", "indicator": "Availability", "objectivePercent": 99.9}]},
        "quote frac",
    ),
    ({"llm": {"rollout": {"maxSurge": "a lot"}}}, "a number such as 1 or a share"),
    ({"llm": {"resources": {"limits": {"cpu": 0.5}}}}, 'quote fractions: write "0.5"'),
]


@pytest.mark.parametrize(("spec", "message"), BROKEN, ids=[message for _, message in BROKEN])
def test_rules_over_several_fields(spec: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        service(**spec)


def test_free_ports_may_be_equal() -> None:
    made = service(router={"http": {"port": 0}, "grpc": {"port": 0}})
    assert made.spec.router.http.port == 0


def test_rules_travel_with_the_schema() -> None:
    schema = RedService.model_json_schema(by_alias=True)
    rules = schema["$defs"]["Scaling"]["x-kubernetes-validations"]
    assert rules == [
        {
            "rule": "self.minReplicas <= self.maxReplicas",
            "message": "minReplicas must not exceed maxReplicas",
            "fieldPath": ".minReplicas",
        }
    ]
    assert schema["$defs"]["LLMSpec"]["properties"]["arenaSize"]["x-kubernetes-int-or-string"]
