"""A real API server takes what is rendered, and enforces the restricted standard on its pods."""

from __future__ import annotations

from dataclasses import replace
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import pytest

from redserve.cluster.documents import documents
from tests.cluster.golden import CASES, Case
from tests.cluster.pods import pod_templates
from tests.cluster.test_golden import FOREIGN
from tools.kubernetes.async_api import ApiError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from tools.kubernetes.client import ApiClient
    from tools.kubernetes.control_plane import ControlPlane

pytestmark = pytest.mark.cluster

APPLY: Final = "application/apply-patch+yaml"
PLURALS: Final[Mapping[str, str]] = {"NetworkPolicy": "networkpolicies"}
NEEDED: Final = (
    (
        "/apis/scheduling.k8s.io/v1/priorityclasses",
        {"metadata": {"name": "serving-high"}, "value": 1000},
    ),
    ("/apis/node.k8s.io/v1/runtimeclasses", {"metadata": {"name": "nvidia"}, "handler": "nvidia"}),
)
"""What manifests name and a cluster's administrator has made."""


@pytest.fixture(scope="module")
def api(control_plane: ControlPlane) -> Iterator[ApiClient]:
    for path, body in NEEDED:
        control_plane.api.post(path, body)
    yield control_plane.api
    for path, body in NEEDED:
        control_plane.api.delete(f"{path}/{body['metadata']['name']}")  # type: ignore[index]


def path_of(manifest: Mapping[str, Any]) -> str:
    kind, version = manifest["kind"], manifest["apiVersion"]
    group = f"/api/{version}" if version == "v1" else f"/apis/{version}"
    plural = PLURALS.get(kind, f"{kind.lower()}s")
    return f"{group}/namespaces/{manifest['metadata']['namespace']}/{plural}"


def apply(api: ApiClient, manifest: Mapping[str, Any]) -> Any:
    path = f"{path_of(manifest)}/{manifest['metadata']['name']}"
    query = "?fieldManager=redserve-operator&force=true"
    return api.patch(f"{path}{query}", manifest, content_type=APPLY)


def objects_of(case: Case, namespace: str) -> list[Any]:
    context = replace(case.context, namespace=namespace, owner=None)
    return [one for one in documents(case.service(), context) if one["kind"] not in FOREIGN]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_it_is_taken_and_applying_it_again_changes_nothing(
    case: Case, api: ApiClient, make_namespace: Callable[..., str]
) -> None:
    namespace = make_namespace(restricted=case.name != "complete")
    for manifest in objects_of(case, namespace):
        first, again = apply(api, manifest)["metadata"], apply(api, manifest)["metadata"]
        # Controllers write a status meanwhile, which makes a new version but no new generation.
        mark = "generation" if "generation" in first else "resourceVersion"
        assert again[mark] == first[mark], manifest["kind"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_its_pods_are_welcome_in_a_restricted_namespace(
    case: Case, api: ApiClient, make_namespace: Callable[..., str]
) -> None:
    namespace = make_namespace(restricted=True)
    context = replace(case.context, namespace=namespace, owner=None)
    objects = documents(case.service(), context)
    own = case.service().spec.service_account_name
    for name in {own, f"{case.service().name}-router", f"{case.service().name}-worker"} - {None}:
        account = {"metadata": {"name": name}}
        api.post(f"/api/v1/namespaces/{namespace}/serviceaccounts", account)
    path = f"/api/v1/namespaces/{namespace}/pods?dryRun=All&fieldValidation=Strict"
    for template in pod_templates(objects):
        pod = {**template, "apiVersion": "v1", "kind": "Pod"}
        pod["metadata"] = {**template["metadata"], "generateName": "pod-"}
        locks = "IPC_LOCK" in str(template)
        if not locks:
            api.post(path, pod)
            continue
        with pytest.raises(ApiError, match="restricted") as caught:
            api.post(path, pod)
        assert caught.value.status == HTTPStatus.FORBIDDEN
