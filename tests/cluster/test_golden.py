"""Rendered objects: as reviewed, valid for every Kubernetes that is served, and well named."""

from __future__ import annotations

import functools
import re
import sys
from typing import TYPE_CHECKING, Any

import kubernetes_validate
import pytest
import yaml

from redserve.cluster.documents import documents
from redserve.cluster.facts import OPTIONAL_KINDS
from redserve.spec.patterns import LABEL_NAME, LABEL_VALUE, OBJECT_NAME, QUALIFIED_NAME
from redserve.spec.pool_resource import POOL_KIND
from redserve.spec.service import RedService
from redserve.spec.yaml_scalars import KubernetesLoader
from tests.cluster.golden import CASES, EVERYTHING, GOLDEN
from tests.spec.manifests import MINIMAL

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cluster.golden import Case

VERSIONS = [f"1.{minor}" for minor in range(32, 38)]
FOREIGN = {*OPTIONAL_KINDS, POOL_KIND}
every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


@every_case
def test_rendered_as_reviewed(case: Case) -> None:
    assert case.text() == case.path.read_text(), "if it is meant: python -m tests.cluster.golden"


def test_no_golden_file_is_forgotten() -> None:
    assert {path.stem for path in GOLDEN.iterdir()} == {case.name for case in CASES}


@every_case
def test_kubectl_reads_what_was_rendered(case: Case) -> None:
    assert list(yaml.load_all(case.text(), KubernetesLoader)) == case.objects()


@pytest.fixture
def schemas_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library reads megabytes of definitions for each object."""
    utils = sys.modules[kubernetes_validate.validate.__module__]
    monkeypatch.setattr(utils, "schema_contents", functools.cache(utils.schema_contents))


@pytest.mark.usefixtures("schemas_are_read_once")
@pytest.mark.parametrize("version", VERSIONS)
def test_valid_for_every_kubernetes(version: str) -> None:
    for case in CASES:
        for manifest in case.objects():
            if manifest["kind"] not in FOREIGN:
                kubernetes_validate.validate(manifest, version, strict=True)


@every_case
def test_templates_of_other_kinds_are_valid_pods(case: Case) -> None:
    for manifest in case.objects():
        if manifest["kind"] == "LeaderWorkerSet":
            template = manifest["spec"]["leaderWorkerTemplate"]["workerTemplate"]
            pod = {"apiVersion": "v1", "kind": "Pod", **template}
            kubernetes_validate.validate(pod, VERSIONS[0], strict=True)


def maps_of_labels(value: Any) -> Iterator[dict[str, str]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            is_map = isinstance(inner, dict) and "matchLabels" not in inner
            if name in ("labels", "matchLabels", "selector") and is_map:
                yield inner
            yield from maps_of_labels(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from maps_of_labels(inner)


@every_case
def test_labels_are_labels(case: Case) -> None:
    for labels in maps_of_labels(case.objects()):
        for name, value in labels.items():
            assert re.fullmatch(QUALIFIED_NAME, name), name
            assert re.fullmatch(LABEL_VALUE, value), value
            assert len(value) <= 63


def test_the_longest_name_fits() -> None:
    name = "a" + "b" * 39
    service = RedService.model_validate({**MINIMAL, "metadata": {"name": name}})
    objects = documents(service, EVERYTHING)
    for manifest in objects:
        metadata = manifest["metadata"]
        assert re.fullmatch(OBJECT_NAME, metadata["name"])
        assert len(metadata["name"]) <= 63
        if manifest["kind"] == "Service":
            assert re.fullmatch(LABEL_NAME, metadata["name"])
    for labels in maps_of_labels(objects):
        assert all(len(value) <= 63 for value in labels.values())


@every_case
def test_no_object_is_there_twice(case: Case) -> None:
    keys = [(one["kind"], one["metadata"]["name"]) for one in case.objects()]
    assert len(keys) == len(set(keys))


@every_case
def test_everything_is_labelled_owned_and_in_the_namespace(case: Case) -> None:
    owner = case.context.owner
    for manifest in case.objects():
        metadata = manifest["metadata"]
        assert metadata["namespace"] == "serving"
        assert metadata["labels"]["redserve.dev/service"] == case.service().name
        owners = metadata.get("ownerReferences", [])
        assert [one["uid"] for one in owners] == ([owner.uid] if owner else [])
