from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redserve.cluster.check import check
from redserve.cluster.facts import LEADER_WORKER_SET, ClusterFacts
from redserve.cluster.render import render
from redserve.cluster.resources import is_gpu
from redserve.spec.quantity import Quantity
from tests.cluster.pods import CONTEXT, main_of, pod_of, pod_templates
from tests.spec.manifests import service

GROUPS = ClusterFacts(kinds=frozenset({LEADER_WORKER_SET}))
RESOURCES = ["nvidia.com/gpu", "amd.com/gpu", "nvidia.com/mig-3g.40gb", "nvidia.com/gpu.shared"]


def num_gpus_of(pod: dict[str, Any]) -> int:
    return sum(
        Quantity.parse(amount).ceil
        for container in [*pod["containers"], *pod.get("initContainers", [])]
        for name, amount in container.get("resources", {}).get("limits", {}).items()
        if is_gpu(name)
    )


@given(
    pool=st.sampled_from(["encoder", "llm"]),
    tensor=st.integers(1, 16),
    pipeline=st.integers(1, 4),
    in_pod=st.integers(0, 16),
    resource=st.sampled_from(RESOURCES),
    by_template=st.booleans(),
)
@settings(max_examples=200)
def test_pods_ask_for_exactly_the_gpus_that_parallelism_implies(
    pool: str, tensor: int, pipeline: int, in_pod: int, resource: str, by_template: bool
) -> None:
    resources = {"limits": {resource: in_pod}} if in_pod else {}
    template = {"spec": {"containers": [{"name": "main", "resources": resources}]}}
    how = {"podTemplate": template} if by_template else {"resources": resources}
    made = service(**{pool: {"parallelism": {"tensor": tensor, "pipeline": pipeline}, **how}})
    reasons = {one.reason for one in check(made, GROUPS) if one.reason != "ParallelismUnsupported"}
    objects = next(one for one in render(made, CONTEXT).pools if one.pool == pool)
    pod = next(pod_templates([objects.workload]))["spec"]
    asked = num_gpus_of(pod) * objects.pods_per_replica
    wanted = tensor * pipeline
    if in_pod == 0 and wanted == 1:
        assert (reasons, asked) == (set(), 0)  # a CPU
    elif reasons:
        assert reasons == {"GpuCountMismatch"}
        assert asked != wanted
    else:
        assert asked == wanted
        grouped = objects.workload["kind"] == LEADER_WORKER_SET
        assert grouped is (objects.pods_per_replica > 1)
    assert ("ParallelismUnsupported" in {one.reason for one in check(made, GROUPS)}) is (
        (tensor, pipeline) != (1, 1)
    )


def test_the_group_is_of_the_size_that_spans_the_replica() -> None:
    made = service(
        llm={
            "parallelism": {"tensor": 8, "pipeline": 3},
            "resources": {"limits": {"nvidia.com/gpu": 8}},
        }
    )
    rendered = render(made, CONTEXT).pools[1]
    assert rendered.workload["spec"]["leaderWorkerTemplate"]["size"] == 3
    assert rendered.service["spec"]["selector"]["leaderworkerset.sigs.k8s.io/worker-index"] == "0"


@pytest.mark.parametrize("name", [*RESOURCES, "gpu.intel.com/xe", "example.com/gpu"])
def test_what_counts_as_a_gpu(name: str) -> None:
    assert is_gpu(name)


@pytest.mark.parametrize(
    "name", ["cpu", "memory", "rdma/ib", "nvidia.com/migrations", "gpu", "gpu.intel.com/monitoring"]
)
def test_what_does_not(name: str) -> None:
    assert not is_gpu(name)


@pytest.mark.parametrize("kind", ["TCP", "GRPC"])
def test_no_device_is_taken_from_others_for_nothing(kind: str) -> None:
    made = service(transport={"type": kind, "rdma": {"resourceName": "rdma/ib"}})
    main = main_of(made, "encoder")
    assert "resources" not in main
    assert main["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def test_rdma_devices_go_to_those_who_move_embeddings() -> None:
    made = service(
        transport={"rdma": {"resourceName": "rdma/ib", "count": 3}},
        llm={"resources": {"limits": {"nvidia.com/gpu": 1, "memory": "1.5Gi"}}},
    )
    assert main_of(made, "encoder")["resources"] == {"limits": {"rdma/ib": "3"}}
    assert main_of(made, "llm")["resources"] == {
        "limits": {"nvidia.com/gpu": "1", "memory": "1.5Gi", "rdma/ib": "3"}
    }


@pytest.mark.parametrize(
    ("pool", "size"),
    [
        ({}, None),
        ({"sharedMemorySize": "8Gi"}, "8Gi"),
        ({"sharedMemorySize": 0}, None),
        ({"parallelism": {"tensor": 2}}, "1Gi"),
        ({"parallelism": {"tensor": 2}, "sharedMemorySize": 0}, None),
    ],
)
def test_shared_memory(pool: dict[str, Any], size: str | None) -> None:
    made = service(llm=pool)
    sizes = [
        v["emptyDir"]["sizeLimit"] for v in pod_of(made, "llm")["volumes"] if v["name"] == "shm"
    ]
    mounted = [m for m in main_of(made, "llm")["volumeMounts"] if m["mountPath"] == "/dev/shm"]
    assert sizes == ([size] if size else [])
    assert len(mounted) == len(sizes)
