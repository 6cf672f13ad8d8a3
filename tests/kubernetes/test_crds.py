"""Both definitions on a real API server: it says what the models say."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import pytest
import yaml

from redserve.spec.crd import KINDS, RED_POOL, RED_SERVICE, definition
from redserve.spec.manifest import ManifestError, parse_manifest
from redserve.spec.service import API_VERSION, RedService
from redserve.spec.yaml_source import YamlSource
from tests.kubernetes.definitions import CRDS, install, path_of
from tests.spec.manifests import ROOT
from tests.spec.probes import probes
from tests.spec.verdicts import ACCEPTED, BASE, REFUSED
from tools.kubernetes.async_api import ApiError

if TYPE_CHECKING:
    from pathlib import Path

    from tests.spec.verdicts import Case
    from tools.kubernetes.control_plane import ControlPlane

pytestmark = pytest.mark.cluster

APPLY = "application/apply-patch+yaml"
DRY_RUN = urlencode({"dryRun": "All", "fieldValidation": "Strict"})
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


@pytest.fixture(scope="module")
def installed(control_plane: ControlPlane) -> ControlPlane:
    """The control plane with both definitions; left there, other tests use them too."""
    install(control_plane)
    return control_plane


def send(api: Any, manifest: dict[str, Any], namespace: str = "default") -> Any:
    """What the API server makes of a manifest, without keeping it."""
    return api.post(f"{path_of(namespace, 'redservices')}?{DRY_RUN}", manifest)


@pytest.mark.parametrize("case", ACCEPTED, ids=lambda case: case.name)
def test_accepted(installed: ControlPlane, tmp_path: Path, case: Case) -> None:
    stored = send(installed.api, case.manifest())
    ours = parse_manifest(json.dumps(case.manifest()), tmp_path)
    # What comes back, defaults and all, means what the models understood.
    stored["metadata"].pop("namespace")
    assert RedService.model_validate(stored) == ours


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.name)
def test_refused(installed: ControlPlane, case: Case) -> None:
    with pytest.raises(ApiError) as caught:
        send(installed.api, case.manifest())
    assert caught.value.status in {400, 422}, caught.value
    assert (case.named or case.field or "") in str(caught.value)


def test_the_rules_are_worded_alike(installed: ControlPlane) -> None:
    words = "minReplicas must not exceed maxReplicas"
    case = next(case for case in REFUSED if case.name == "min above max")
    with pytest.raises(ApiError, match=words):
        send(installed.api, case.manifest())
    with pytest.raises(ValueError, match=words):
        RedService.model_validate(case.manifest())


def test_defaults_are_the_models_own(installed: ControlPlane) -> None:
    """Every default is there to be read with kubectl, and none differs from the models'."""
    stored = send(installed.api, BASE)
    ours = RedService.model_validate(BASE).model_dump(by_alias=True, mode="json", exclude_none=True)
    assert stored["spec"] == plain(ours["spec"])


def plain(value: Any) -> Any:
    """Without empty lists and mappings of the models that the schema does not write."""
    if isinstance(value, dict):
        fields = {name: plain(field) for name, field in value.items()}
        return {name: field for name, field in fields.items() if field not in ({}, [])}
    if isinstance(value, list):
        return [plain(one) for one in value]
    return int(value) if isinstance(value, str) and value.isdecimal() else value


@pytest.mark.parametrize("name", ["redservice", "redservice-minimal", "redservice-complete"])
def test_examples(installed: ControlPlane, name: str) -> None:
    manifest = yaml.safe_load((ROOT / f"examples/{name}.yaml").read_text())
    manifest["metadata"].pop("namespace", None)
    assert send(installed.api, manifest)["kind"] == "RedService"


def test_installing_again_changes_nothing(installed: ControlPlane) -> None:
    paths = [f"{DEFINITIONS}/{kind.crd_name}" for kind in KINDS]
    before = [installed.api.get(path)["metadata"]["resourceVersion"] for path in paths]
    installed.kubectl("apply", "--server-side", "-f", str(CRDS))
    assert [installed.api.get(path)["metadata"]["resourceVersion"] for path in paths] == before


def test_definitions_have_no_complaints(installed: ControlPlane) -> None:
    """Such as NonStructuralSchema, or rules that the API server takes but cannot type."""
    for kind in KINDS:
        crd = installed.api.get(f"{DEFINITIONS}/{kind.crd_name}")
        told = {c["type"]: c["status"] for c in crd["status"]["conditions"]}
        assert told == {"NamesAccepted": "True", "Established": "True"}
        assert crd["status"]["storedVersions"] == ["v1alpha1"]


def test_status_is_apart(installed: ControlPlane, namespace: str) -> None:
    api, path = installed.api, path_of(namespace, "redservices", "demo")
    api.post(path_of(namespace, "redservices"), {**BASE, "status": {"observedGeneration": 9}})
    assert "status" not in api.get(path)  # writing the object does not write its status
    status = {
        "observedGeneration": 1,
        "conditions": [
            {
                "type": "Ready",
                "status": "False",
                "observedGeneration": 1,
                "lastTransitionTime": "2026-01-01T00:00:00Z",
                "reason": "PodsNotReady",
                "message": "1 of 2 encoders serve",
            }
        ],
        "pools": [
            {"name": "encoder", "desired": 2, "replicas": 2, "ready": 1, "updated": 2,
             "readyText": "1/2", "message": "encoder-x: pulling"},
            {"name": "llm", "readyText": "3/3"},
            {"name": "router", "readyText": "4/4"},
        ],
        "currentRevision": "0a1b2c3d",
        "updateRevision": "4e5f6a7b",
        "model": {"revision": "abc"},
        "endpoints": {"grpc": "demo:50051", "http": "http://demo:8000/v1"},
    }  # fmt: skip
    body = {"apiVersion": API_VERSION, "kind": "RedService", "status": status}
    query = urlencode({"fieldManager": "test", "fieldValidation": "Strict"})
    api.patch(f"{path}/status?{query}", body, content_type=APPLY)
    stored = api.get(path)
    assert stored["status"] == status  # nothing added: else the operator would write for ever
    assert stored["metadata"]["generation"] == 1
    shown = installed.kubectl("get", "rsvc", "demo", "-n", namespace, "-o", "wide").split()
    for cell in ("hf://a/b", "False", "PodsNotReady", "1/2", "3/3", "4/4", "demo:50051"):
        assert cell in shown


BAD_STATUS = [
    ({"pools": [{"name": "loader"}]}, "status.pools[0].name"),
    ({"conditions": [{"type": "Ready", "status": "True"}]}, "status.conditions[0].reason"),
    ({"pools": [{"name": "llm"}] * 2}, "status.pools[1]"),
    ({"phase": "Running"}, "status.phase"),
]


@pytest.mark.parametrize(("status", "field"), BAD_STATUS, ids=[field for _, field in BAD_STATUS])
def test_a_wrong_status_is_refused(
    installed: ControlPlane, namespace: str, status: dict[str, Any], field: str
) -> None:
    stored = installed.api.post(path_of(namespace, "redservices"), BASE)
    path = path_of(namespace, "redservices", "demo", "status?fieldValidation=Strict")
    with pytest.raises(ApiError) as caught:
        installed.api.request("PUT", path, {**stored, "status": status})
    assert field in str(caught.value)


def pool(**spec: Any) -> dict[str, Any]:
    fields = {"role": "Encoder", "serviceName": "demo", **spec}
    metadata = {"name": "demo-encoder"}
    return {"apiVersion": API_VERSION, "kind": "RedPool", "metadata": metadata, "spec": fields}


def test_a_pool_can_be_scaled(installed: ControlPlane, namespace: str) -> None:
    api, path = installed.api, path_of(namespace, "redpools", "demo-encoder")
    api.post(path_of(namespace, "redpools"), pool())
    scale = api.get(f"{path}/scale")
    assert scale["spec"] == {"replicas": 1}  # the schema's default
    assert scale["status"] == {"replicas": 0}
    status = {"replicas": 2, "readyReplicas": 1, "selector": "redserve.dev/pool=encoder"}
    api.patch(f"{path}/status", {"status": status})
    api.patch(f"{path}/scale", {"spec": {"replicas": 5}})
    scale = api.get(f"{path}/scale")
    assert scale["spec"]["replicas"] == 5
    assert scale["status"] == {"replicas": 2, "selector": "redserve.dev/pool=encoder"}
    installed.kubectl("scale", "rpool/demo-encoder", "--replicas=3", "-n", namespace)
    assert api.get(path)["spec"]["replicas"] == 3
    shown = installed.kubectl("get", "rpool", "-n", namespace).splitlines()
    assert shown[0].split() == ["NAME", *(column.name.upper() for column in RED_POOL.columns)]
    assert shown[1].split()[:6] == ["demo-encoder", "demo", "Encoder", "3", "2", "1"]
    with pytest.raises(ApiError, match=r"spec\.replicas"):
        api.patch(f"{path}/scale", {"spec": {"replicas": 1001}})


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"role": "LLM"}, "spec.role"),
        ({"serviceName": "other"}, "spec.serviceName"),
        ({"replicas": -1}, "spec.replicas"),
    ],
)
def test_a_pool_stays_what_it_is(
    installed: ControlPlane, namespace: str, change: dict[str, Any], field: str
) -> None:
    installed.api.post(path_of(namespace, "redpools"), pool())
    with pytest.raises(ApiError) as caught:
        installed.api.patch(path_of(namespace, "redpools", "demo-encoder"), {"spec": change})
    assert field in str(caught.value)


@pytest.mark.parametrize("spec", [{"role": "Loader"}, {"serviceName": "A"}, {"size": 1}])
def test_bad_pools_are_refused(installed: ControlPlane, spec: dict[str, Any]) -> None:
    with pytest.raises(ApiError, match=next(iter(spec))):
        installed.api.post(f"{path_of('default', 'redpools')}?{DRY_RUN}", pool(**spec))


def test_names_for_kubectl(installed: ControlPlane, namespace: str) -> None:
    installed.api.post(path_of(namespace, "redservices"), BASE)
    installed.api.post(path_of(namespace, "redpools"), pool())
    shown = installed.kubectl("get", "redserve", "-n", namespace, "-o", "name").split()
    assert shown == [
        f"{RED_POOL.name.lower()}.redserve.dev/demo-encoder",
        f"{RED_SERVICE.name.lower()}.redserve.dev/demo",
    ]
    told = installed.kubectl("explain", "redservice.spec.llm.tokenBudget")
    assert "Most tokens of one micro-batch." in told


WORDS = """\
[y, n, yes, On, off, true, 1e3, 1.5e1, 12e4567, 1:30, 010, 0o10, 089, 0b11, 0x1F, 1_000, 2.0, .5,
5., -3, +3, 2026-01-02, 2026-01-02T03:04:05Z, ~, null, =, ._5, 1e-1, '1e3', 1e18, nan, 0o, Nope]
"""


def test_yaml_means_what_kubectl_makes_of_it(control_plane: ControlPlane, tmp_path: Path) -> None:
    path = tmp_path / "words.yaml"
    keys = "{1: a, true: b, 2.5: c, 010: d, 1e3: e, text: f}"
    path.write_text(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\n"
        f"keys: {keys}\nwords:\n{WORDS}".replace("\n5.", "\n  5.").replace("words:\n", "words: ")
    )
    arguments = ("create", "--dry-run=client", "--validate=false", "-o", "json", "-f", str(path))
    theirs = json.loads(control_plane.kubectl(*arguments))
    ours = YamlSource.parse(path.read_text()).value
    assert ours["keys"] == theirs["keys"]
    assert ours["words"] == theirs["words"]
    assert [type(word) for word in ours["words"]] == [type(word) for word in theirs["words"]]


def test_every_edge_of_every_field_has_one_verdict(installed: ControlPlane, tmp_path: Path) -> None:
    """Values at and beyond every bound of every field: nobody is stricter than the other."""
    version = definition(RED_SERVICE)["spec"]["versions"][0]
    spec = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
    disagreements, num_tried, num_accepted = [], 0, 0
    for tried, manifest in probes(spec):
        ours = theirs = ""
        try:
            parse_manifest(json.dumps(manifest), tmp_path)
        except ManifestError as error:
            ours = str(error)
        try:
            send(installed.api, manifest)
        except ApiError as error:
            theirs = str(error) if error.status in {400, 422} else ""
        num_tried += 1
        num_accepted += not ours
        if bool(ours) != bool(theirs):
            disagreements.append(f"{tried}: models: {ours!r}; API server: {theirs!r}")
    assert not disagreements, "\n".join(disagreements)
    assert num_tried > 2500
    assert num_accepted > 500
