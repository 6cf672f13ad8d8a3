from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redserve.cluster.check import check, without_effect
from redserve.cluster.facts import OPTIONAL_KINDS, ClusterFacts
from redserve.cluster.pod_fields import MINOR
from redserve.cluster.render import render
from redserve.spec.manifest import load_manifest
from redserve.spec.problems import field_steps
from redserve.spec.service import RedService
from tests.cluster.golden import HERE
from tests.cluster.pods import CONTEXT
from tests.spec.manifests import EXAMPLES, MINIMAL, ROOT, service
from tools.kubernetes_fields import TARGET, text

PLAIN = ClusterFacts()
EVERYTHING = ClusterFacts(36, frozenset(OPTIONAL_KINDS))
GPU = "nvidia.com/gpu"


def pod_template(**main: Any) -> dict[str, Any]:
    return {"spec": {"containers": [{"name": "main", **main}]}}


def gpus(number: Any, tensor: int = 1) -> dict[str, Any]:
    return {"resources": {"limits": {GPU: number}}, "parallelism": {"tensor": tensor}}


REFUSED: list[tuple[dict[str, Any], str, str, str]] = [
    ({"model": {"uri": "s3://a/b"}}, "ModelSourceUnsupported", "spec.model.uri", "pvc://claim"),
    ({"model": {"uri": "oci://a"}}, "ModelSourceUnsupported", "spec.model.uri", "oci:// cannot"),
    ({"model": {"uri": "hf://name"}}, "InvalidModelSource", "spec.model.uri", "organisation/name"),
    *(
        ({"model": {"uri": uri}}, "InvalidModelSource", "spec.model.uri", "hf://organisation/name")
        for uri in (
            "hf://../..",
            "hf://a/b@rev",
            "hf://a/..",
            "hf://-a/b",
            "hf://a/b/c",
            "hf://a/ b",
        )
    ),
    *(
        (
            {"model": {"uri": "hf://a/b", "revision": revision}},
            "InvalidModelSource",
            "spec.model.revision",
            "no commit, tag or branch",
        )
        for revision in ("../x", "a b", "a:b", "a^")
    ),
    *(
        ({"llm": {"image": image}}, "InvalidImage", "spec.llm.image", "registry/name:tag")
        for image in ("a b", " a", "/a", "a\n")
    ),
    ({"model": {"uri": "file:///"}}, "InvalidModelSource", "spec.model.uri", "file://folder"),
    ({"model": {"uri": "file://./"}}, "InvalidModelSource", "spec.model.uri", "file://folder"),
    ({"model": {"uri": "file://../a"}}, "InvalidModelSource", "spec.model.uri", "'..'"),
    ({"model": {"uri": "file://a/%2e%2e/b"}}, "InvalidModelSource", "spec.model.uri", "'..'"),
    ({"model": {"uri": "pvc:///a"}}, "InvalidModelSource", "spec.model.uri", "pvc://claim/folder"),
    ({"model": {"uri": "pvc://a/../b"}}, "InvalidModelSource", "spec.model.uri", "'..'"),
    ({"engine": {"name": "VLLM"}}, "EngineUnsupported", "spec.engine.name", "write Builtin"),
    (
        {"encoder": {"modalities": ["Image", "Audio"]}},
        "ModalityUnsupported",
        "spec.encoder.modalities",
        "only Image",
    ),
    ({"transport": {"type": "InProcess"}}, "TransportUnsupported", "spec.transport.type", "GRPC"),
    (
        {"transport": {"chunkTokens": 3}},
        "TransportUnsupported",
        "spec.transport.chunkTokens",
        "remove it",
    ),
    (
        {"llm": {"scaling": {"mode": "SLO", "maxReplicas": 2}}},
        "ScalingModeUnsupported",
        "spec.llm.scaling.mode",
        "the RedPool demo-llm",
    ),
    ({"router": {"tls": {"secretName": "a"}}}, "TlsUnsupported", "spec.router.tls", "gateway"),
    (
        {"router": {"grpc": {"host": "127.0.0.1"}}},
        "InvalidListener",
        "spec.router.grpc.host",
        "remove it",
    ),
    ({"router": {"http": {"port": 0}}}, "InvalidListener", "spec.router.http.port", "write one"),
    (
        {"router": {"openAI": "Disabled", "grpc": {"port": 9090}}},
        "InvalidListener",
        "spec.router.grpc.port",
        "choose another",
    ),
    (
        {"encoder": {"env": [{"name": "A"}, {"name": "POD_IP", "value": "1"}]}},
        "InvalidEnvironment",
        "spec.encoder.env[1].name",
        "choose another",
    ),
    (
        {"llm": {"extraArgs": ["--block-size=32", "--kv-cache-dtype=fp8"]}},
        "InvalidArguments",
        "spec.llm.extraArgs[1]",
        "no flag --kv-cache-dtype",
    ),
    (
        {"router": {"extraArgs": ["--no-url-fetch", "--grpc-port=7"]}},
        "InvalidArguments",
        "spec.router.extraArgs[1]",
        "--grpc-port is decided by",
    ),
    ({"llm": gpus(2)}, "GpuCountMismatch", "spec.llm.resources.limits", "write nvidia.com/gpu: 1"),
    (
        {"llm": {"podTemplate": pod_template(resources={"limits": {GPU: "2"}})}},
        "GpuCountMismatch",
        "spec.llm.resources.limits",
        "1 device(s), and a pod asks for 2",
    ),
    (
        {"encoder": {"device": "CPU", "resources": {"limits": {GPU: 1}}}},
        "GpuCountMismatch",
        "spec.encoder.resources.limits",
        "would idle",
    ),
    (
        {"llm": {"device": "CUDA"}},
        "GpuCountMismatch",
        "spec.llm.resources.limits",
        "write nvidia.com/gpu: 1, or device: Auto",
    ),
    (
        {
            "encoder": {"device": "CUDA", "resources": {"limits": {"rdma/a": 1, "b.c/d": 1}}},
            "llm": {"resources": {"limits": {"b.c/d": 1}}},
            "transport": {"rdma": {"resourceName": "b.c/d"}},
        },
        "GpuCountMismatch",
        "spec.encoder.resources.limits",
        "no GPU is asked for",
    ),
    (
        {"router": {"resources": {"limits": {GPU: 1}}}},
        "GpuCountMismatch",
        "spec.router.resources.limits",
        "remove the GPU",
    ),
    (
        {"llm": {"resources": {"requests": {GPU: 1}}}},
        "InvalidResources",
        "spec.llm.resources.requests",
        "must be in limits",
    ),
    (
        {"llm": {"resources": {"limits": {GPU: "500m"}}}},
        "InvalidResources",
        "spec.llm.resources.limits",
        "whole number",
    ),
    (
        {
            "llm": {"resources": {"limits": {"rdma/ib": 2}}},
            "transport": {"rdma": {"resourceName": "rdma/ib"}},
        },
        "InvalidResources",
        "spec.llm.resources.limits",
        "rdma/ib is 2 here and 1",
    ),
    (
        {"monitoring": {"podMonitor": "Enabled"}},
        "PodMonitorUnsupported",
        "spec.monitoring.podMonitor",
        "write Auto",
    ),
    (
        {"monitoring": {"rules": "Enabled"}},
        "PrometheusRuleUnsupported",
        "spec.monitoring.rules",
        "write Auto",
    ),
    (
        {"llm": {"podTemplate": {"specs": {}}}},
        "InvalidPodTemplate",
        "spec.llm.podTemplate.specs",
        "did you mean spec?",
    ),
    (
        {"llm": {"podTemplate": {"spec": {"containers": [{"name": "main", "$patch": "delete"}]}}}},
        "InvalidPodTemplate",
        "spec.llm.podTemplate.spec.containers",
        "must stay",
    ),
    (
        {"llm": {"podTemplate": {"spec": {"containers": [{"image": "a"}]}}}},
        "InvalidPodTemplate",
        "spec.llm.podTemplate.spec.containers[0]",
        "'name'",
    ),
    (
        {"llm": {"podTemplate": {"metadata": {"labels": {"redserve.dev/pool": "x"}}}}},
        "InvalidPodTemplate",
        "spec.llm.podTemplate.metadata.labels",
        "redserve.dev/pool is how pods are found",
    ),
    (
        {"llm": {"podTemplate": {"metadata": {"labels": {"app.kubernetes.io/name": None}}}}},
        "InvalidPodTemplate",
        "spec.llm.podTemplate.metadata.labels",
        "app.kubernetes.io/name",
    ),
    (
        {"llm": {"podTemplate": pod_template(env=[{"name": "REDSERVE_LLM_DEVICE"}])}},
        "InvalidPodTemplate",
        "spec.llm.podTemplate.spec.containers[0].env[0].name",
        "the manifest's field",
    ),
    *(
        (
            {"llm": {"podTemplate": pod_template(**part)}},
            "InvalidPodTemplate",
            f"spec.llm.podTemplate.spec.containers[0].{next(iter(part))}",
            mend,
        )
        for part, mend in (
            ({"env": None}, "POD_NAME, POD_IP, REDSERVE_LLM_NAME"),
            ({"env": [{"$patch": "replace"}, {"name": "A"}]}, "by their name only"),
            ({"envFrom": None}, "spec.llm.env"),
            ({"envFrom": [{"secretRef": {"name": "a"}}]}, "spec.llm.env"),
            ({"ports": [{"containerPort": 50051, "name": "g"}]}, "port 50051 must stay"),
            ({"ports": [{"containerPort": 9090, "$patch": "delete"}]}, "named 'metrics'"),
            ({"command": ["sh"]}, "the command is REDServe's"),
            ({"args": ["--help"]}, "spec.llm.extraArgs"),
        )
    ),
    (
        {"llm": {"podTemplate": pod_template(resources={"limits": 3})}},
        "InvalidPodTemplate",
        "spec.llm.podTemplate.spec.containers",
        "must be mappings",
    ),
    *(
        (
            {"router": {"podTemplate": {"spec": {name: value}}}},
            "InvalidPodTemplate",
            f"spec.router.podTemplate.spec.{name}",
            mend,
        )
        for name, value, mend in (
            ("restartPolicy", "Never", "leave it out"),
            ("activeDeadlineSeconds", 60, "leave it out"),
            ("serviceAccount", "mine", "serviceAccountName"),
        )
    ),
    *(
        (
            {"model": {"uri": "hf://a/b", "tokenSecretRef": {"name": "a", "key": key}}},
            "InvalidModelSource",
            "spec.model.tokenSecretRef.key",
            "no key of a Secret",
        )
        for key in (".", "..", "..a")
    ),
]


@pytest.mark.parametrize(
    ("spec", "reason", "field", "mend"), REFUSED, ids=[f"{case[1]} {case[2]}" for case in REFUSED]
)
def test_refused(spec: dict[str, Any], reason: str, field: str, mend: str) -> None:
    refusals = check(service(**spec), PLAIN)
    assert [(one.reason, one.field) for one in refusals] == [(reason, field)]
    assert mend in refusals[0].message
    assert field_steps(field)


@pytest.mark.parametrize(
    ("pool", "words"),
    [
        ("llm", ["--block-size", "32", "--min-chunk=8"]),
        ("llm", ["--overlap", "false"]),
        ("encoder", ["--num-threads=2", "--lease-ttl-s", "-1"]),
        ("router", ["--no-url-fetch", "--max-images", "3", "--url-allow-private"]),
        ("router", ["--url-allowed-hosts", "a.b,c.d"]),
    ],
)
def test_flags_of_settings_may_be_overridden(pool: str, words: list[str]) -> None:
    assert check(service(**{pool: {"extraArgs": words}}), PLAIN) == ()


@pytest.mark.parametrize(
    ("pool", "words", "at", "mend"),
    [
        ("llm", ["-h"], [0], "write flags of the built-in llm"),
        ("llm", ["--help"], [0], "remove it"),
        ("llm", ["foo"], [0], "no flag's value"),
        ("llm", ["--block-size=32", "x"], [1], "no flag's value"),
        ("llm", ["--"], [0], "has no flag --"),
        ("llm", ["--block-size"], [0], "--block-size=VALUE"),
        ("llm", ["--block-size", "--min-chunk=3"], [1], "value of --block-size"),
        ("llm", ["--no-overlap"], [0], "has no flag --no-overlap; did you mean overlap?"),
        ("router", ["--url-fetch=true"], [0], "--no-url-fetch"),
        ("router", ["--url-fetch", "true"], [1], "no flag's value"),
        ("router", ["--grpc-port", "7"], [0, 1], "remove it"),
    ],
)
def test_arguments_that_end_a_process(
    pool: str, words: list[str], at: list[int], mend: str
) -> None:
    found = check(service(**{pool: {"extraArgs": words}}), PLAIN)
    assert [one.field for one in found] == [f"spec.{pool}.extraArgs[{n}]" for n in at]
    assert {one.reason for one in found} == {"InvalidArguments"}
    assert mend in found[0].message


@pytest.mark.parametrize("revision", ["main", "v1.0", "refs/pr/3", "feature/a-b", "0cfaf48"])
def test_revisions_of_a_hub(revision: str) -> None:
    model = {"uri": "hf://Qwen/Qwen2.5-VL-7B-Instruct", "revision": revision}
    assert check(service(model=model), PLAIN) == ()


@pytest.mark.parametrize(
    ("template", "field", "mend"),
    [
        ({"spec": {"nodeSelecto": {"a": "b"}}}, "spec.nodeSelecto", "did you mean nodeSelector?"),
        (pod_template(imagePullPolic="Always"), "spec.containers[0].imagePullPolic", "Policy?"),
        ({"spec": {"initContainers": [{"name": "a", "env": [{"name": "b", "valu": "c"}]}]}},
         "spec.initContainers[0].env[0].valu", "did you mean value?"),
    ],
)  # fmt: skip
def test_misspelt_fields_of_a_pod(template: dict[str, Any], field: str, mend: str) -> None:
    made = service(llm={"podTemplate": template})
    (refusal,) = check(made, PLAIN)
    assert (refusal.reason, refusal.field) == (
        "InvalidPodTemplate", f"spec.llm.podTemplate.{field}",
    )  # fmt: skip
    assert mend in refusal.message
    # A newer cluster may have such a field.
    assert check(made, ClusterFacts(MINOR + 1)) == ()


def test_the_table_of_pod_fields_is_that_of_the_newest_schemas() -> None:
    assert TARGET.read_text() == text(), "run python -m tools.kubernetes_fields"


def test_a_replaced_container_has_lost_everything() -> None:
    patch = pod_template(**{"$patch": "replace", "env": "a"})
    refusals = check(service(llm={"podTemplate": patch}), PLAIN)
    assert len(refusals) == 5
    assert {one.reason for one in refusals} == {"InvalidPodTemplate"}
    parts = {one.message.partition(":")[0] for one in refusals}
    assert {"command", "envFrom", "ports"} < parts


def test_a_pod_template_may_add_variables_and_ports() -> None:
    added = pod_template(
        env=[{"name": "A", "value": "1"}],
        ports=[{"containerPort": 5}, {"containerPort": 9090, "hostPort": 9090}],
    )
    assert check(service(llm={"podTemplate": added}), PLAIN) == ()


def test_parallelism_cannot_be_served_yet() -> None:
    refusals = check(service(llm=gpus(2, tensor=2)), PLAIN)
    assert [one.reason for one in refusals] == ["ParallelismUnsupported"]


def reasons(spec: dict[str, Any], facts: ClusterFacts = PLAIN) -> set[str]:
    return {one.reason for one in check(service(**spec), facts)} - {"ParallelismUnsupported"}


def test_gpus_must_be_asked_for() -> None:
    assert reasons({"llm": {"parallelism": {"tensor": 2}}}) == {"GpuCountMismatch"}
    claims = {"claims": [{"name": "gpus"}]}
    assert reasons({"llm": {"parallelism": {"tensor": 2}, "resources": claims}}) == set()
    assert reasons({"llm": gpus(3, tensor=4)}) == {"GpuCountMismatch"}
    assert reasons({"llm": gpus(4, tensor=4)}) == set()


@pytest.mark.parametrize(
    "resources",
    [
        {"limits": {GPU: 1}},
        {"limits": {"example.com/accelerator": 1}},
        {"claims": [{"name": "gpu"}]},
    ],
)
def test_cuda_has_a_device(resources: dict[str, Any]) -> None:
    assert reasons({"llm": {"device": "CUDA", "resources": resources}}) == set()


def test_a_replica_that_spans_nodes_needs_another_kind() -> None:
    spec = {"llm": gpus(4, tensor=8)}
    refusal = next(
        one for one in check(service(**spec), PLAIN) if one.reason == "MultiNodeUnsupported"
    )
    assert refusal.field == "spec.llm.parallelism"
    assert "is 8 device(s), and a pod asks for 4" in refusal.message
    assert "install it" in refusal.message
    assert reasons(spec, EVERYTHING) == set()


@pytest.mark.parametrize(("length", "fits"), [(35, True), (36, False)])
def test_groups_have_shorter_names(length: int, fits: bool) -> None:
    spec = {**MINIMAL["spec"], "llm": gpus(4, tensor=8)}
    made = RedService.model_validate({**MINIMAL, "metadata": {"name": "a" * length}, "spec": spec})
    found = {one.field: one.message for one in check(made, EVERYTHING)}
    assert ("metadata.name" not in found) is fits
    if not fits:
        assert "at most 35 characters" in found["metadata.name"]


def test_old_clusters() -> None:
    refusals = check(service(), ClusterFacts(31))
    assert [one.reason for one in refusals] == ["KubernetesUnsupported"]


@pytest.mark.parametrize(
    "path",
    [
        ROOT / "examples/redservice.yaml",
        EXAMPLES / "minimal.yaml",
        HERE / "manifests/hf-pvc.yaml",
        HERE / "manifests/hf-ephemeral.yaml",
        HERE / "manifests/pod-template.yaml",
    ],
    ids=lambda path: path.name,
)
def test_examples_can_be_kept(path: Any) -> None:
    assert check(load_manifest(path), PLAIN) == ()


def test_an_example_for_one_machine_lacks_only_its_gpus() -> None:
    found = check(load_manifest(EXAMPLES / "tuned.yaml"), PLAIN)
    assert {one.reason for one in found} == {"GpuCountMismatch"}


def test_the_complete_example_asks_for_more_than_there_is() -> None:
    found = {one.reason for one in check(load_manifest(EXAMPLES / "complete.yaml"), EVERYTHING)}
    assert found == {
        "ParallelismUnsupported", "ModalityUnsupported", "ScalingModeUnsupported",
        "TlsUnsupported", "InvalidArguments",
    }  # fmt: skip


def test_what_has_no_effect_is_told() -> None:
    made = service(
        model={"uri": "file://a", "tokenSecretRef": {"name": "t"},
               "cache": {"ephemeral": {"sizeLimit": "1Gi"}}},
    )  # fmt: skip
    assert without_effect(made) == ("spec.model.cache", "spec.model.tokenSecretRef")
    hub = {"uri": "hf://a/b", "tokenSecretRef": {"name": "t"}}
    assert without_effect(service(model=hub)) == ()
    for kind, idle in (("TCP", True), ("GRPC", True), ("RDMA", False), ("Auto", False)):
        rdma = service(transport={"type": kind, "rdma": {"resourceName": "rdma/ib"}})
        assert without_effect(rdma) == (("spec.transport.rdma",) if idle else ())


anything = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 9) | st.sampled_from(["main", "delete", "a"]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(
                ["name", "containers", "env", "$patch", "labels", "resources", "limits", GPU,
                 "redserve.dev/pool", "volumes", "initContainers", "claims", "cpu"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=15,
)  # fmt: skip
templates = st.fixed_dictionaries(
    {},
    optional={
        "metadata": anything | st.fixed_dictionaries({"labels": anything}),
        "spec": anything
        | st.fixed_dictionaries(
            {
                "containers": st.lists(
                    st.fixed_dictionaries(
                        {"name": st.sampled_from(["main", "b"])},
                        optional={"resources": anything, "env": anything},
                    ),
                    max_size=2,
                )
            }
        ),
    },
)


@given(st.sampled_from(["encoder", "llm", "router"]), templates)
@settings(max_examples=300)
def test_whatever_passes_the_check_can_be_rendered(pool: str, template: dict[str, Any]) -> None:
    made = service(**{pool: {"podTemplate": template}})
    # Of a newer cluster: there any field may exist.
    if not check(made, ClusterFacts(MINOR + 1)):
        rendered = render(made, CONTEXT)
        assert len(rendered.pools) == 3
